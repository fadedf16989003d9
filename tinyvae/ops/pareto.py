"""The shape k of the tail of importance weights: how far their mean can be trusted (Vehtari et al. 2024).

Above a high cutoff u, the excess y = w - u of a weight is nearly a generalized Pareto variable,

    p(y) = (1/s) (1 + k y / s)^(-1 - 1/k)

whose moments of order 1/k and above are infinite: from k = 1/2 on the variance of the weights is, and from k = 1 on
their mean. Above 0.7 the mean of any practical number of weights is not to be trusted (Vehtari, Simpson, Gelman, Yao &
Gabry 2024, "Pareto smoothed importance sampling", JMLR 25, section 3).

k is estimated by the mean over the posterior of one parameter (Zhang & Stephens 2009, "A new and efficient estimation
method for the generalized Pareto distribution", Technometrics 51): with M excesses in rising order, m = 30 + sqrt(M),

    theta_j = 1 / y_M + (1 - sqrt(m / (j - 1/2))) / (3 y_(M/4))        k(theta) = mean_i log(1 - theta y_i)
    l(theta) = M (log(-theta / k(theta)) - k(theta) - 1)               theta^ = sum_j theta_j e^l_j / sum_j e^l_j

and then drawn to 1/2 as by ten more excesses: (M k + 5) / (M + 10) (Vehtari et al. 2024, appendix C).
"""

import math

import numpy as np

LIMIT = 0.7
FEWEST = 5  # excesses that a k can be estimated from
MOST = 300  # 3 sqrt(K) of them at K = 10,000: what is kept does not grow beyond
EVEN = 1e-3  # weights within this share of the largest are equal: their differences are the rounding of log p(x|z)


def tail_length(draws: int) -> int:
    """How many of the largest of K weights are the tail, min(K / 5, 3 sqrt(K)), at most 300; 0 if these are too few."""
    length = min(draws // 5, math.ceil(3 * math.sqrt(draws)), MOST)
    return length if length >= FEWEST else 0


def tail_shape(log_w: np.ndarray) -> np.ndarray:
    """k of each row, from the largest weights and, first, the cutoff below them.

    log_w (rows, 1 + M), rising, in nats -> (rows,). -infinity where the weights do not differ: there is no tail.
    Infinity where all is in a few weights. NaN without enough of them, and where they are no numbers.
    """
    rows, count = log_w.shape
    if count - 1 < FEWEST:
        return np.full(rows, math.nan)
    with np.errstate(all="ignore"):  # what overflows is looked at in the end
        w = np.exp(log_w - log_w[:, -1:])  # (rows, 1 + M): the largest is 1
        y = w[:, 1:] - w[:, :1]  # (rows, M)
        k = _zhang_stephens(y)
        k = ((count - 1) * k + 5) / (count - 1 + 10)
        k = np.where(y[:, -1] < EVEN, -math.inf, np.where(np.isfinite(k), k, math.inf))
        return np.where(np.isnan(w).any(axis=1), math.nan, k)


def _zhang_stephens(y: np.ndarray) -> np.ndarray:
    M = y.shape[1]
    m = 30 + int(math.sqrt(M))
    j = np.arange(1, m + 1)  # (m,)
    quartile = y[:, int(M / 4 + 0.5) - 1]  # (rows,)
    theta = 1 / y[:, -1:] + (1 - np.sqrt(m / (j - 0.5))) / (3 * quartile[:, None])  # (rows, m)
    k = np.stack([np.log1p(-theta[:, i, None] * y).mean(axis=1) for i in range(m)], axis=1)  # (rows, m)
    log_l = M * (np.log(-theta / k) - k - 1)  # (rows, m)
    share = np.exp(log_l - log_l.max(axis=1, keepdims=True))  # (rows, m)
    best = (theta * share).sum(axis=1) / share.sum(axis=1)  # (rows,)
    return np.log1p(-best[:, None] * y).mean(axis=1)  # (rows,)

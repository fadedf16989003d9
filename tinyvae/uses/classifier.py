"""Two classifiers by hand: multinomial logistic regression ("softmax"), and a vote of the nearest neighbours.

Logistic regression gives a row x the logits a_c = sum_i x_i W_ic + b_c, and the probability of class c

    log p_c = a_c - log sum_k e^a_k,    d log p_y / d a_c = [c = y] - p_c.

The loss is the mean cross-entropy over the rows, in nats, and a penalty that keeps the optimum finite:

    loss = -(1/N) sum_n log p_(n, y_n) + (l2 / 2) sum_ic W_ic^2

forward                           backward
a = x W + b                       da_nc = (p_nc - [c = y_n]) / N
log p = a - log sum e^a           dW_ic = sum_n x_ni da_nc + l2 W_ic
                                  db_c  = sum_n da_nc

It is convex, so there is one best loss (Bishop 2006, "Pattern Recognition and Machine Learning", section 4.3.4).
"""

import math
from dataclasses import dataclass

import numpy as np

from tinyvae.backend import as_generator
from tinyvae.ops.adam import adam_step

STEP = 0.3  # of Adam: lr times the root of the number of features, which is about what a step can change a logit by
CHUNK = 256  # rows whose distances to all training rows are in memory at a time


def cross_entropy_forward(
    x: np.ndarray, y: np.ndarray, W: np.ndarray, b: np.ndarray, l2: float
) -> tuple[float, np.ndarray]:
    """The loss in nats, and log p (rows, classes). Finite at any finite logits.

    x (rows, features), y (rows,) in 0..classes-1, W (features, classes), b (classes,).
    """
    log_p = log_softmax(x @ W + b)  # (rows, classes)
    nll = -log_p[np.arange(len(y)), y]  # (rows,)
    return float(nll.mean() + 0.5 * l2 * (W * W).sum()), log_p


def cross_entropy_backward(
    x: np.ndarray, y: np.ndarray, W: np.ndarray, log_p: np.ndarray, l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """dW (features, classes) and db (classes,): the gradient of the loss. `log_p` is what the forward pass returned."""
    da = np.exp(log_p)  # (rows, classes)
    da[np.arange(len(y)), y] -= 1
    da /= len(y)
    return x.T @ da + l2 * W, da.sum(axis=0)


def log_softmax(a: np.ndarray) -> np.ndarray:
    """a - log sum_k e^a_k over each row.  a (rows, classes) -> (rows, classes)."""
    a = a - a.max(axis=1, keepdims=True)  # changes no probability, and exp cannot overflow
    return a - np.log(np.exp(a).sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class SoftmaxClassifier:
    """A fitted logistic regression on standardized features: (x - mean) / scale. Made by `fit_softmax`."""

    labels: np.ndarray  # (classes,) the label of each column, ascending
    mean: np.ndarray  # (features,)
    scale: np.ndarray  # (features,): the standard deviation, or 1 where a feature is constant
    W: np.ndarray  # (features, classes)
    b: np.ndarray  # (classes,)

    def predict_log_proba(self, x: np.ndarray) -> np.ndarray:
        """log p of every class, in nats.  x (rows, features) -> (rows, classes), columns as in `labels`."""
        x = _checked_features(x, len(self.mean))
        log_p = np.empty((len(x), len(self.labels)))
        for start in range(0, len(x), CHUNK):
            rows = slice(start, start + CHUNK)
            log_p[rows] = log_softmax((x[rows] - self.mean) / self.scale @ self.W + self.b)  # (chunk, classes)
        return log_p

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The most probable label of each row (of equal ones the smallest).  x (rows, features) -> (rows,)."""
        return self.labels[self.predict_log_proba(x).argmax(axis=1)]

    def accuracy(self, x: np.ndarray, y: np.ndarray) -> float:
        """The share of rows whose label is predicted. A label that was not there in fitting is never predicted."""
        return accuracy(self.predict(x), y)


def fit_softmax(
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator | int,
    *,
    l2: float = 1e-4,
    steps: int = 2000,
    batch_size: int = 256,
    standardize: bool = True,
) -> SoftmaxClassifier:
    """Minimize the loss above by Adam, from W = 0, with a learning rate that falls to 0 along a straight line.

    x (rows, features) numbers, y (rows,) whole numbers, `rng`, a generator or a seed, orders the batches: the same
    one gives the same classifier. No more than `batch_size` rows: every step sees all of them, and nothing is random.
    standardize=False only takes the mean off: for features of one scale, such as pixels, of which a few rows know too
    little to divide by their standard deviations. The penalty is on the weights of the features so scaled.

    Raises ValueError for wrong shapes, no rows, labels that are no whole numbers, and features that are not finite.
    """
    x, y, rng = _checked_features(x), np.asarray(y), as_generator(rng)
    if y.shape != (len(x),) or y.dtype.kind not in "bui":
        raise ValueError(f"y must be {len(x)} whole numbers, one for each row of x, not {y.dtype} {y.shape}")
    labels, y = np.unique(y, return_inverse=True)  # (classes,); y (rows,) in 0..classes-1
    mean, deviation = _moments(x)  # (features,) each
    scale = deviation if standardize else np.ones_like(mean)  # (features,)
    lr = STEP / math.sqrt(x.shape[1])
    params = [np.zeros((x.shape[1], len(labels))), np.zeros(len(labels))]  # W, b
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in params]
    rows, waiting = np.arange(len(x)), np.empty(0, dtype=int)
    for t in range(1, steps + 1):
        if len(x) > batch_size:
            if len(waiting) < batch_size:
                waiting = rng.permutation(len(x))  # a new epoch; the few rows that fill no batch are left out
            rows, waiting = waiting[:batch_size], waiting[batch_size:]
        batch = (x[rows] - mean) / scale  # (batch, features)
        log_p = log_softmax(batch @ params[0] + params[1])  # (batch, classes)
        grads = cross_entropy_backward(batch, y[rows], params[0], log_p, l2)
        for i, (p, g, (m, v)) in enumerate(zip(params, grads, moments, strict=True)):
            params[i], m, v = adam_step(p, g, m, v, t, lr * (1 - (t - 1) / steps))
            moments[i] = m, v
    return SoftmaxClassifier(labels, mean, scale, *params)


def nearest_neighbours(x_train: np.ndarray, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of `x_train` that are closest to each row of `x`, and their squared distances.

    x_train (train rows, features), x (rows, features) -> which (rows, k) row numbers, squared distances (rows, k), the
    closest first; at the same distance the smaller row number first.

    |u - v|^2 = |u|^2 - 2 u.v + |v|^2 makes all distances by one matrix product, but close rows lose digits: the error
    is up to about (features + 4) eps (|u| + |v|)^2 (Higham 2002, section 3.1). So it only finds the candidates, those
    whose distance might be among the k smallest; theirs are computed again, by differences. The mean is taken off
    first: it makes |u| and |v| small and changes no distance. CHUNK rows at a time, so that memory stays small.

    Raises ValueError for wrong shapes, and unless 1 <= k <= train rows.
    """
    x_train = _checked_features(x_train).astype(np.float64, copy=False)
    x = _checked_features(x, x_train.shape[1]).astype(np.float64, copy=False)
    if not 1 <= k <= len(x_train):
        raise ValueError(f"k must lie between 1 and the number of training rows, {len(x_train)}, not {k}")
    centre = x_train.mean(axis=0)  # (features,)
    v = x_train - centre  # (train rows, features)
    v2 = (v * v).sum(axis=1)  # (train rows,)
    which, found = np.empty((len(x), k), dtype=np.intp), np.empty((len(x), k))
    unit = 2 * (x.shape[1] + 4) * float(np.finfo(np.float64).eps)  # twice the bound: it is itself rounded
    for start in range(0, len(x), CHUNK):
        u = x[start : start + CHUNK] - centre  # (chunk, features)
        u2 = (u * u).sum(axis=1)  # (chunk,)
        d2 = (-2 * u) @ v.T  # (chunk, train rows): the products first, then in place the squared distances
        d2 += v2
        d2 += u2[:, None]
        kth = np.partition(d2, k - 1, axis=1)[:, k - 1]  # (chunk,)
        error = unit * (np.sqrt(u2) + math.sqrt(v2.max())) ** 2  # (chunk,): of any distance in the row
        for i in range(len(u)):
            candidates = np.flatnonzero(d2[i] <= kth[i] + 2 * error[i])  # ascending, at least k
            exact = ((x_train[candidates] - x[start + i]) ** 2).sum(axis=1)  # (candidates,)
            first = np.argsort(exact, kind="stable")[:k]
            which[start + i], found[start + i] = candidates[first], exact[first]
    return which, found


def knn_predict(x_train: np.ndarray, y_train: np.ndarray, x: np.ndarray, k: int = 5) -> np.ndarray:
    """The label that most of the k nearest neighbours have (Euclidean); of equally many, that of the closest neighbour.

    x_train (train rows, features), y_train (train rows,), x (rows, features) -> labels (rows,).
    Raises ValueError as `nearest_neighbours`.
    """
    if np.shape(y_train) != (len(x_train),):
        raise ValueError(f"y_train must be {len(x_train)} labels, one for each training row, not {np.shape(y_train)}")
    which, _ = nearest_neighbours(x_train, x, k)
    labels, y = np.unique(y_train, return_inverse=True)
    near = y[which]  # (rows, k) class numbers, the closest first
    votes = (near[:, :, None] == near[:, None, :]).sum(axis=2)  # (rows, k): how many have the label of neighbour j
    return labels[near[np.arange(len(near)), votes.argmax(axis=1)]]  # the first, so the closest, of the most


def accuracy(predicted: np.ndarray, y: np.ndarray) -> float:
    """The share of rows that are right.  predicted, y (rows,)."""
    if predicted.shape != np.shape(y):
        raise ValueError(f"{predicted.shape} predictions and {np.shape(y)} labels: they must come in pairs")
    return float((predicted == y).mean())


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each column, and its standard deviation, or 1 where all its numbers are the same.

    x (rows, features) -> (features,), (features,). The mean of a constant column is that constant: a rounded one would
    leave a rest, which Adam makes as large as any other feature.
    """
    constant = x.min(axis=0) == x.max(axis=0)  # (features,)
    mean = np.where(constant, x[0], x.mean(axis=0, dtype=np.float64))
    squares = np.zeros(x.shape[1])
    for start in range(0, len(x), CHUNK):
        squares += ((x[start : start + CHUNK] - mean) ** 2).sum(axis=0)
    return mean, np.where(squares == 0, 1.0, np.sqrt(squares / len(x)))


def _checked_features(x: np.ndarray, width: int | None = None) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 2 or 0 in x.shape or (width is not None and x.shape[1] != width):
        raise ValueError(f"features must have shape (rows, {width or 'features'}), at least one row, not {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("the features hold NaN or infinite values")
    return x

"""Restore damaged rows with a trained model: fill in what is missing, or take the noise off.

Missing. Rezende et al. 2014, "Stochastic Backpropagation and Approximate Inference in Deep Generative Models",
appendix F: begin with anything in the missing places, then repeat

    z ~ q(z|x)        x_missing ~ p(x|z)        x_observed stays as it is

Where q(z|x) is the true posterior this is Gibbs sampling, and its draws come to follow p(x_missing | x_observed). An
encoder is only near the posterior, so the chain ends up only near that distribution. The estimate of a missing number
is the mean of p(x|z) averaged over the second half of the chain: draws that disagree make it blurred. A chain seldom
leaves the first plausible image that it finds, so the average is taken over several short chains, not one long one.

Noise. Nothing is known for certain, so nothing can be held fast: encode the noisy row, decode, and average over z.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvae.backend import as_generator, to_host
from tinyvae.model.description import checked_count
from tinyvae.model.vae import CHUNK, VAE
from tinyvae.ops import gaussian

STEPS = 20
CHAINS = 10
DRAWS = 20  # of z, for one noisy row
SMALLEST = 1e-6  # a probability below this is taken for this, so that no cross-entropy is infinite


@dataclass(frozen=True)
class Restored:
    """What came out of `fill_in`. In the observed places both are the data themselves."""

    estimate: np.ndarray  # (rows, data): the mean of p(x|z), averaged over the second half of every chain
    draw: np.ndarray  # (rows, data): the last state of the last chain


def fill_in(
    model: VAE,
    x: np.ndarray,
    observed: np.ndarray,
    start: np.ndarray | float,
    rng: Any,
    steps: int = STEPS,
    chains: int = CHAINS,
    y: Any = None,
    progress: Any = None,
) -> Restored:
    """Fill in what is missing by the chain at the top of this file, for each row on its own.

    x         (rows, data); what stands in the missing places is not looked at
    observed  (rows, data), True where x is known
    start     (data,) or (rows, data): what the missing places begin with, such as the mean of the training rows
    steps     of a chain; the means of the second half of them are averaged
    chains    for each row, each from `start`; their averages are averaged
    y         (rows,), the labels of a conditional model
    progress  `progress(rows done)` is called after every step, with fractions of rows

    rng is a NumPy generator on any backend, or a seed. Raises ValueError for steps or chains < 1, for shapes that do
    not match, and for observed values that the likelihood does not allow; TypeError for another rng.
    """
    steps, chains, rng = checked_count("steps", steps), checked_count("chains", chains), as_generator(rng)
    if model.standard is not None:
        inward, x = model.standard.inward, to_host(model.checked_rows(x, "x", model.data_dim, "float64"))
        begin = inward(np.broadcast_to(np.asarray(start, dtype="float64"), x.shape))
        found = fill_in(model.plain, inward(x), observed, begin, rng, steps, chains, y, progress)
        back = (np.where(observed, x, model.standard.outward(a)) for a in (found.estimate, found.draw))
        return Restored(*back)
    x, observed = np.asarray(x, dtype=model.dtype), np.asarray(observed)
    model.checked_rows(x, "x", model.architecture.data_dim)
    if observed.shape != x.shape or observed.dtype != bool:
        raise ValueError(f"observed must be truth values of shape {x.shape}, not {observed.dtype} {observed.shape}")
    if observed.any():
        model.architecture.check_values(x[observed])
        model.likelihood.check_rows(np.where(observed, x, np.nan))
    start = np.broadcast_to(np.asarray(start, dtype=model.dtype), x.shape)  # (rows, data)
    estimate, draw = np.empty_like(x), np.empty_like(x)  # (rows, data)
    for first in range(0, len(x), CHUNK):
        rows = slice(first, first + CHUNK)
        known, truth, labels = observed[rows], x[rows], None if y is None else y[rows]
        state, total = truth, np.zeros(truth.shape)  # (chunk, data) each: of the chain, the sum of the means
        for chain in range(chains):
            state = clamped(known, truth, start[rows])
            for step in range(steps):
                z = _draw_z(model, state, rng, labels)  # (chunk, latent)
                if step >= steps // 2:
                    total += to_host(model.decode(z, y=labels))
                state = clamped(known, truth, to_host(model.draw(z, rng, y=labels)))
                if progress is not None:
                    progress(first + len(truth) * (chain + (step + 1) / steps) / chains)
        estimate[rows] = clamped(known, truth, total / (chains * (steps - steps // 2)))
        draw[rows] = state
    return Restored(estimate, draw)


def clamped(observed: np.ndarray, x: np.ndarray, proposed: np.ndarray) -> np.ndarray:
    """x where it is observed, what is proposed elsewhere. All (rows, data)."""
    return np.where(observed, x, proposed)


def denoise(model: VAE, noisy: np.ndarray, rng: Any, draws: int = DRAWS, y: Any = None) -> np.ndarray:
    """The mean of p(x|z), averaged over `draws` of z ~ q(z|noisy x).  noisy (rows, data) -> (rows, data).

    rng is a NumPy generator on any backend, or a seed. Noisy rows need not be rows that the likelihood allows.
    Raises ValueError for draws < 1, TypeError for another rng.
    """
    draws, rng = checked_count("draws", draws), as_generator(rng)
    if model.standard is not None:
        wide = to_host(model.checked_rows(noisy, "noisy", model.data_dim, "float64"))
        return model.standard.outward(denoise(model.plain, model.standard.inward(wide), rng, draws, y))
    noisy = np.asarray(noisy, dtype=model.dtype)
    out = np.empty_like(noisy)  # (rows, data)
    for first in range(0, len(noisy), CHUNK):
        rows = slice(first, first + CHUNK)
        labels = None if y is None else y[rows]
        total = np.zeros(noisy[rows].shape)  # (chunk, data)
        for _ in range(draws):
            total += to_host(model.decode(_draw_z(model, noisy[rows], rng, labels), y=labels))
        out[rows] = total / draws
    return out


def blurred(x: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    """Each pixel as the mean of the 3 x 3 around it; beyond the edge the edge goes on.  x (rows, data), as it."""
    h, w = image_shape[:2]
    images = x.reshape(-1, *image_shape)
    wider = [(0, 0), (1, 1), (1, 1), (0, 0)][: images.ndim]
    padded = np.pad(images, wider, mode="edge")  # (rows, h + 2, w + 2), in colour with 3 more
    shifted = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]  # 9 x (rows, h, w)
    return np.mean(shifted, axis=0).reshape(x.shape)


def _draw_z(model: VAE, x: np.ndarray, rng: Any, y: Any) -> Any:
    """z ~ q(z|x), on the model's device.  x (rows, data) -> (rows, latent)."""
    mu, logvar = model.encode(x, y=y)  # (rows, latent) each
    eps = model.backend.asarray(rng.standard_normal(mu.shape), model.dtype)  # (rows, latent)
    return gaussian.reparameterize_forward(mu, logvar, eps)


# --------------------------------------------------------------------------------------------------------------- errors


@dataclass(frozen=True)
class Error:
    """The mean of an error over the missing numbers, and its standard error over the rows."""

    value: float
    standard_error: float  # nan from a single row


def root_mean_squared_error(estimate: np.ndarray, x: np.ndarray, observed: np.ndarray) -> Error:
    """sqrt(mean (estimate - x)^2) over the missing numbers whose truth x is known, not NaN. All (rows, data).

    Its standard error is that of the mean divided by twice the root (the delta method). See `mean_of_rows`.
    """
    squared = mean_of_rows((np.asarray(estimate, dtype=np.float64) - x) ** 2, ~observed & ~np.isnan(x))
    root = squared.value**0.5
    return Error(root, squared.standard_error / (2 * root) if root else 0.0)


def cross_entropy(p: np.ndarray, x: np.ndarray, observed: np.ndarray) -> Error:
    """mean of -x log p - (1 - x) log(1 - p) over the missing numbers whose truth x is known, in nats for each.
    All (rows, data).

    Probabilities are kept within [1e-6, 1 - 1e-6]: a pixel that is never on in training, and is in a test row, costs
    13.8 nats, not infinitely many.
    """
    p = np.clip(np.asarray(p, dtype=np.float64), SMALLEST, 1 - SMALLEST)  # (rows, data)
    return mean_of_rows(-x * np.log(p) - (1 - x) * np.log1p(-p), ~observed & ~np.isnan(x))


def mean_of_rows(values: np.ndarray, counted: np.ndarray) -> Error:
    """The mean of the values that are counted, and its standard error, taking the rows as independent draws.

    Rows may have different numbers of counted values, so the mean is a ratio r = sum s_i / sum n_i of their sums and
    counts; its variance is, to first order, R / (R - 1) sum (s_i - r n_i)^2 / (sum n_i)^2 (Cochran 1977, section 2.11).

    values, counted (rows, data). Raises ValueError if nothing is counted.
    """
    sums, counts = np.where(counted, values, 0).sum(axis=1, dtype=np.float64), counted.sum(axis=1)  # (rows,) each
    total, rows = int(counts.sum()), len(counts)
    if not total:
        raise ValueError("nothing is missing")
    mean = float(sums.sum()) / total
    spread = float(((sums - mean * counts) ** 2).sum())
    return Error(mean, (spread * rows / (rows - 1)) ** 0.5 / total if rows > 1 else float("nan"))


@dataclass(frozen=True)
class Line:
    """One way to restore, and how far it is from the truth."""

    name: str
    rmse: Error  # in the units of the data
    cross_entropy: Error | None  # nats; None where the estimates are no probabilities


def compare(
    estimates: dict[str, np.ndarray], x: np.ndarray, observed: np.ndarray, probabilities: tuple[str, ...]
) -> list[Line]:
    """The errors of estimates (rows, data) by their names, with cross-entropies for those that are `probabilities`."""
    return [
        Line(
            name,
            root_mean_squared_error(estimate, x, observed),
            cross_entropy(estimate, x, observed) if name in probabilities else None,
        )
        for name, estimate in estimates.items()
    ]

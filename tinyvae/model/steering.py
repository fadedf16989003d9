"""Ways through the latent space: from one point to another, and one point with every label."""

from typing import Any

import numpy as np

from tinyvae.backend import to_host
from tinyvae.model.description import checked_count
from tinyvae.model.vae import VAE

PATHS = ("line", "sphere")


def interpolate(a: np.ndarray, b: np.ndarray, steps: int, path: str = "line") -> np.ndarray:
    """Points from a to b, both ends included.  a, b (latent,) -> (steps, latent).

        line     (1 - t) a + t b
        sphere   length (sin((1 - t) w) a / |a| + sin(t w) b / |b|) / sin w,   length = (1 - t) |a| + t |b|

    where w is the angle between a and b: the direction turns evenly (Shoemake 1985), and the length goes over evenly.
    In many dimensions the prior's draws lie near a sphere of radius sqrt(latent). The middle of a line between two of
    them is nearer to 0 than draws are. Where a and b are (anti)parallel, or one is 0, no arc is singled out, and the
    line is taken.

    Raises ValueError for an unknown path, and for steps < 1.
    """
    if path not in PATHS:
        raise ValueError(f"path must be one of {', '.join(PATHS)}, not {path!r}")
    t = np.linspace(0, 1, checked_count("steps", steps))[:, None]  # (steps, 1)
    length_a, length_b = np.linalg.norm(a), np.linalg.norm(b)
    cosine = float(np.clip((a / length_a) @ (b / length_b), -1, 1)) if length_a > 0 and length_b > 0 else 1.0
    angle = np.arccos(cosine)
    if path == "line" or np.sin(angle) < 1e-6:
        return (1 - t) * a + t * b  # (steps, latent)
    length = (1 - t) * length_a + t * length_b  # (steps, 1)
    share_a = np.sin((1 - t) * angle) / np.sin(angle) * (length / length_a)  # (steps, 1): exactly 1 at t = 0, 0 at 1
    share_b = np.sin(t * angle) / np.sin(angle) * (length / length_b)  # (steps, 1)
    return share_a * a + share_b * b  # (steps, latent)


def listed(labels: np.ndarray) -> str:
    """Labels in ascending order, in words: "1, 3, 4", or "0 to 9" where three or more leave none out."""
    if len(labels) > 2 and labels.dtype.kind in "iu" and labels[-1] - labels[0] == len(labels) - 1:
        return f"{labels[0]} to {labels[-1]}"
    if len(labels) > 20:
        return f"{len(labels)} from {labels[0]} to {labels[-1]}"
    return ", ".join(map(str, labels))


def every_label(model: VAE, x: Any, y: np.ndarray, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Each row's z = mu with every label, to be decoded: what stays is what the label does not say.

    The row's own label goes into the encoder, each label in turn into the decoder. For digits what stays is the
    handwriting: Kingma et al. 2014, "Semi-supervised learning with deep generative models", figure 2 ("analogies").

    x (rows, data), y (rows,) -> z (rows * classes, latent), labels (rows * classes,), those of a row side by side.
    labels (classes,): those that occur in the training data, where some of the model's do not (default: all).
    Raises ValueError if the model is not conditional.
    """
    if not model.classes:
        raise ValueError("the model is not conditional: it knows no labels (one that does is made with classes=...)")
    mu = to_host(model.encode(x, y)[0])  # (rows, latent)
    labels = np.array(model.labels or range(model.classes)) if labels is None else labels
    return np.repeat(mu, len(labels), axis=0), np.tile(labels, len(mu))

"""All candidates must compute the same losses before any time is printed.

They are compared with tinyvae's readable formulas in float64, on the same weights, batches, noise and uniforms.

The tolerance is derived. A candidate rounds each parameter p by eps |p| in a step, and the step of Adam, which is at
most some lr, by up to 100 eps where m or v cancel. To first order that changes the loss by at most the sum of
|dL/dp| eps (|p| + 100 lr) for each step made so far. The loss itself has gone through some 50 roundings.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.shapes import LR, SCALE, Shape, given_batches
from tinyvae.objectives import objective
from tinyvae.training.adam import Adam

STEPS = 20
EPS = float(np.finfo(np.float32).eps)
TF32_RELATIVE = 0.01  # of a loss in TF32, whose products round their inputs to 10 bits; float32 has agreed before


Truth = dict[str, list[float]]  # "losses" in float64, and "tolerances": what float32 may differ from them by


class DisagreementError(Exception):
    """The candidates do not do the same work."""


def expected(shape: dict[str, Any]) -> Truth:
    """What is expected on the given batches of a shape."""
    s = Shape.from_dict(shape)
    data, labels = s.pixels(), s.labels()
    batches = []
    for rows, eps, u in given_batches(s, STEPS):
        x = data[rows] * SCALE
        y = () if labels is None else (labels[rows],)
        batches.append(((u < x).astype(float) if s.dynamic else x, eps, *y))
    return expected_on(s, batches)


def expected_on(shape: Shape, batches: Iterable[tuple[np.ndarray, ...]]) -> Truth:
    """Adam on the readable formulas, step by step.

    Each batch: x (batch, data), eps (batch, latent) or (batch, draws, latent), and the labels (batch,) if it has any.
    """
    model, minimized = shape.model(kernels="reference", dtype="float64"), objective(shape.objective)
    p, g = model.params.flat, model.grads.flat
    p[...] = p.astype(np.float32)  # the candidates begin with rounded weights
    adam = Adam(model)
    losses, tolerances = [], []
    for t, (x, eps, *y) in enumerate(batches):
        loss = model.loss_and_grad(x, eps, y=y[0] if y else None, objective=minimized).loss
        drift = t * float((np.abs(p) + 100 * LR) @ np.abs(g))
        losses.append(loss)
        tolerances.append(EPS * (drift + 50 * abs(loss)))
        adam.step(LR)
    return {"losses": losses, "tolerances": tolerances}


def compare(name: str, theirs: list[float], truth: Truth, tf32: bool = False) -> float:
    """The largest difference, as a share of what is allowed.

    Raises DisagreementError if it is above 1, or not a number.
    """
    losses = np.array(truth["losses"])
    allowed = TF32_RELATIVE * np.abs(losses) if tf32 else np.array(truth["tolerances"])
    if len(theirs) != len(losses):
        raise DisagreementError(f"{name} made {len(theirs)} steps, not {len(losses)}; no time is printed")
    shares = np.abs(np.array(theirs) - losses) / allowed
    worst = float(shares.max())  # NaN if there is one
    if not worst <= 1:
        step = int(np.argmax(~(shares <= 1)))
        raise DisagreementError(
            f"{name} does not do the same work: the loss of step {step + 1} is {theirs[step]:.6f}, not "
            f"{losses[step]:.6f} +- {allowed[step]:.1g}; no time is printed"
        )
    return worst

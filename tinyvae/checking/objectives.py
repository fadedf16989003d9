"""The contract of an objective, and the gradients of every objective in the folder.

    check_objective(BetaTC(beta=4))

Its partials are compared with finite differences of its loss in nll, mu, logvar and z, as if these were independent. An
objective that says that they are no derivative (`is_derivative`) owes that of the loss by nll alone; by mu and logvar
it owes its mean. That is looked at in a toy model, whose decoder is a formula: over many draws of the noise, the mean
must differ from that of the loss's derivative by less than 5 standard errors.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tinyvae import objectives
from tinyvae.checking.agreement import Numbers, assert_right, check_agreement, check_left_alone, checked_name
from tinyvae.checking.examples import all_objectives, text
from tinyvae.checking.finite_differences import Check, Report, gradcheck
from tinyvae.checking.replay import check_replayed
from tinyvae.checking.slopes import H
from tinyvae.kernels.contract import Kernels
from tinyvae.kernels.reference import Reference
from tinyvae.objectives.objective import Objective, Partials, Posterior, Terms

N, LATENT = 6, 3  # rows, dimensions
REPEATS, MANY = 400, 50  # batches of noise, and rows in each
SIGMAS = 5.0  # standard errors


def objective_checks(seed: int = 0) -> Iterator[Check]:
    """One Check for each partial of each example of each objective, named "objective: partial"."""
    for objective in all_objectives(seed):
        for check in gradients(objective, seed):
            yield replace(check, name=f"{text(objective)}: {check.name}")


def gradients(objective: Objective, seed: int = 0) -> Report:
    """Finite differences of the loss; where the partials are none, by nll alone, and the mean of the others."""
    given = _given(objective, seed)
    k = Reference(np, "float64")
    found = _run(objective, k, given)
    p = {name: given[name] for name in ("nll", "mu", "logvar", "z")}
    if not objective.is_derivative:
        p = {"nll": p["nll"]}

    def loss() -> np.ndarray:
        terms, _ = objective.forward(k, given["nll"], _posterior(given))
        rest = terms.loss[0] - given["nll"].mean()
        return np.append(given["nll"] / given["nll"].size, rest)

    def sides() -> Any:
        found = objective.sides(_posterior(given))
        return np.zeros(0, dtype=bool) if found is None else found

    report = gradcheck(loss, p, {name: found[f"d{name}"] for name in p}, kinks=sides, seed=seed)
    return report if objective.is_derivative else Report([*report, *_mean_checks(objective, seed)])


def check_objective(objective: Objective) -> None:
    """Raises AssertionError or ValueError with one line: what the objective does not keep."""
    name = checked_name(objective, Objective, objectives)
    samples = objective.samples
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(f"{name}: samples must be a whole number, at least 1, not {samples!r}")
    for changed in (objective.at(0.5), objective.at(1e9), objective.on(1000)):
        if not isinstance(changed, Objective) or changed.samples != samples:
            raise ValueError(f"{name}: at() and on() must give an objective of as many draws, not {changed!r}")
    given = _given(objective, 0)
    check_left_alone(given, lambda: _run(objective, Reference(np, "float64"), given), name)
    _check_result(objective, given, name)
    assert_right(gradients(objective), name)
    for what, at in ((name, objective), (f"{name} after half an epoch", objective.at(0.5))):
        run = lambda k, given, at=at: _run(at, k, given)
        check_agreement(run, _given(objective, 1), _given(objective, 2), what)
    _check_numbers_may_change(objective, name)
    _check_holds_nothing(objective, name)
    check_replayed(objective, name)


def _given(objective: Objective, seed: int) -> Numbers:
    """nll, mu, logvar, eps and z, all as if they were independent."""
    rng = np.random.default_rng(seed)
    draws = N * objective.samples
    normals = lambda *shape: rng.standard_normal(shape)
    return {
        "nll": 3 + normals(draws), "mu": normals(N, LATENT), "logvar": normals(N, LATENT) - 0.5,
        "eps": normals(draws, LATENT), "z": normals(draws, LATENT),
    }  # fmt: skip


def _posterior(given: Numbers) -> Posterior:
    return Posterior(given["mu"], given["logvar"], given["eps"], given["z"])


def _run(objective: Objective, k: Kernels, given: Numbers) -> Numbers:
    """The losses, and all partials in full."""
    q = _posterior(given)
    terms, back = objective.forward(k, given["nll"], q)
    kept = [np.array(a) for a in terms]
    return {**dict(zip(Terms._fields, kept, strict=True)), **_in_full(back(), given)}


def _in_full(d: Partials, given: Numbers) -> Numbers:
    """Every partial in the shape of what it is of, with what None stands for."""
    n, draws = given["mu"].shape[0], given["nll"].size
    full: Numbers = {f"d{name}": np.zeros(given[name].shape) for name in ("mu", "logvar", "z")}
    full["dnll"], full["z_scale"] = np.full(draws, 1 / draws), np.ones(draws)
    for name, a in d._asdict().items():
        key = name if name == "z_scale" else f"d{name}"
        if a is not None:  # what is handed over for each draw is added up over a row's
            each = a.reshape(n, -1, LATENT).sum(axis=1) if name in ("mu", "logvar") else a
            full[key] = np.array(each, dtype=np.float64).reshape(full[key].shape)
    return full


def _check_result(objective: Objective, given: Numbers, name: str) -> None:
    """Shapes, and what does not hang on the kernels."""
    terms, back = objective.forward(Reference(np, "float64"), given["nll"], _posterior(given))
    assert isinstance(terms, Terms), f"{name}: forward must return Terms and a function, not {type(terms).__name__}"
    for what, a in terms._asdict().items():
        assert getattr(a, "shape", None) == (1,), f"{name}: {what} must be an array (1,), not {getattr(a, 'shape', a)}"
        assert np.isfinite(a[0]), f"{name}: {what} is {a[0]}"
    mean = given["nll"].mean()
    assert abs(terms.nll[0] - mean) < 1e-12 * (1 + abs(mean)), (
        f"{name}: nll is {terms.nll[0]:.6g}, not the mean {mean:.6g}"
    )
    d = back()
    assert isinstance(d, Partials), f"{name}: the way back must return Partials, not {type(d).__name__}"
    rows, draws = (N, LATENT), (N * objective.samples, LATENT)
    allowed = {"mu": (rows, draws), "logvar": (rows, draws), "z": (draws,)}
    for what, a in d._asdict().items():
        shapes = allowed.get(what, ((draws[0], 1),))
        if a is not None and a.shape not in shapes:
            raise AssertionError(
                f"{name}: the partial by {what} has shape {a.shape}, not {' or '.join(map(str, shapes))}"
            )
    scaled = d.z_scale is not None and objective.is_derivative
    assert not scaled, f"{name}: z_scale changes what comes from the decoder: that is no derivative (see is_derivative)"
    first = _in_full(d, given)
    try:
        again = _in_full(back(), given)
    except RuntimeError:
        return
    for key, a in first.items():
        same = np.array_equal(a, again[key])
        assert same, f"{name}: a second way back is not refused, and gives another {key}"


def _check_numbers_may_change(objective: Objective, name: str) -> None:
    """As beta does on its way: a number that froze in a prepared call shows."""

    def run(k: Kernels, given: Numbers) -> Numbers:
        return _run(objective.at(float(given["epochs"][0])), k, given)

    early, late = ({**_given(objective, 3), "epochs": np.array([epochs])} for epochs in (0.25, 0.5))
    check_agreement(run, early, late, f"{name} while its numbers change")


def _check_holds_nothing(objective: Objective, name: str) -> None:
    outer, inner = _given(objective, 0), _given(objective, 1)
    expected = _run(objective, Reference(np, "float64"), outer)
    _, back = objective.forward(Reference(np, "float64"), outer["nll"], _posterior(outer))
    _run(objective, Reference(np, "float64"), inner)
    for key, a in _in_full(back(), outer).items():
        same = np.array_equal(a, expected[key])
        assert same, f"{name}: holds results between calls: {key} is another after a pass of other numbers in between"


# ------------------------------------------------------------------------------------------------------ in the mean


def _mean_checks(objective: Objective, seed: int) -> list[Check]:
    """One Check each for mu and logvar: the mean of the gradient, beside that of the loss's derivative."""
    rng = np.random.default_rng(seed)
    k, toy = Reference(np, "float64"), _Toy(rng)
    mu, logvar = 0.5 * rng.standard_normal((1, LATENT)), rng.standard_normal((1, LATENT)) - 1.0
    gaps: dict[str, list[np.ndarray]] = {"mu": [], "logvar": []}
    for _ in range(REPEATS):
        eps = rng.standard_normal((MANY * objective.samples, LATENT))
        loss = lambda m, s, eps=eps: _toy_pass(objective, k, toy, m, s, eps)[0]
        _, dmu, dlogvar = _toy_pass(objective, k, toy, mu, logvar, eps)
        for name, got in (("mu", dmu), ("logvar", dlogvar)):
            gap = got.copy()
            for j in range(LATENT):
                step = np.where(np.arange(LATENT) == j, H, 0.0)[None]
                plus, minus = (loss(mu + s, logvar) if name == "mu" else loss(mu, logvar + s) for s in (step, -step))
                gap[j] -= (plus - minus) / (2 * H)
            gaps[name].append(gap)
    found = []
    for name, each in gaps.items():
        mean, error = np.mean(each, axis=0), np.std(each, axis=0, ddof=1) / math.sqrt(REPEATS)
        worst = int(np.argmax(np.abs(mean) / error))
        tolerance = SIGMAS * float(error[worst])
        off = abs(float(mean[worst]))
        found.append(Check(f"{name}, in the mean", off, tolerance, off <= tolerance))
    return found


class _Toy:
    """A decoder: nll(z) = sum_j c_j cos(z_j - t_j) + z_j^2 / 4, and its slope."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.c, self.t = 2 * rng.standard_normal((2, LATENT))

    def nll(self, z: np.ndarray) -> np.ndarray:
        return (self.c * np.cos(z - self.t) + z * z / 4).sum(axis=1)

    def slope(self, z: np.ndarray) -> np.ndarray:
        return -self.c * np.sin(z - self.t) + z / 2


def _toy_pass(
    objective: Objective, k: Kernels, toy: _Toy, mu: np.ndarray, logvar: np.ndarray, eps: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """The loss of rows that all have this mu and logvar (1, latent), and its gradient by these (latent,)."""
    sigma = np.exp(0.5 * logvar)
    z = mu + sigma * eps
    whole = [np.repeat(a, MANY, axis=0) for a in (mu, logvar)]
    given = {"nll": toy.nll(z), "mu": whole[0], "logvar": whole[1], "eps": eps, "z": z}
    terms, back = objective.forward(k, given["nll"], _posterior(given))
    d = _in_full(back(), given)
    dz = d["z_scale"][:, None] * d["dnll"][:, None] * toy.slope(z) + d["dz"]  # (n K, latent)
    dmu = dz.sum(axis=0) + d["dmu"].sum(axis=0)
    dlogvar = (dz * eps * 0.5 * sigma).sum(axis=0) + d["dlogvar"].sum(axis=0)
    return float(terms.loss[0]), dmu, dlogvar

"""The contract of a likelihood, ours or a stranger's: what its formulas, draws and numbers must be to one another.

    check_likelihood(Mine())

Nothing here knows what the likelihood shall be. But its draws must have the density that nll says, whose integral or
sum is 1; the slopes must be nll's derivatives, and the mean, Fisher's information and all loops follow from these. So a
file that is not of one piece is found; whether it is what its name says, only an oracle of its own can tell.
"""

import contextlib
import math
from typing import Any, NamedTuple

import numpy as np

from tinyvae import kernels as kernel_files
from tinyvae import likelihoods, parts
from tinyvae.backend import get_backend
from tinyvae.checking.agreement import usable_kernels
from tinyvae.checking.finite_differences import gradcheck
from tinyvae.checking.replay import check_replayed
from tinyvae.formula import Formula
from tinyvae.kernels.contract import Kernels
from tinyvae.kernels.reference import Reference
from tinyvae.likelihoods.likelihood import Likelihood

DATA, DRAWS = 3, 20_000  # of columns as many, or the next number that can be
DEVIATIONS = 6  # standard errors: a right likelihood is beyond them once in 1e9 times
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}  # of the number, and in nats
FAR = (1e-4, 1.0, 10.0, 30.0, 100.0, 1e4)  # what a decoder may say, with either sign, and still be no error
FAR_OFF = 1e-6  # there float64 may differ by so much at least: terms of 1e9 cancel, where counts are 1e7
STEP_OFF = 1e-6  # of a step: what its rounding may move a draw by
LARGE = 1e30  # beyond it float32 may be infinite


class Case(NamedTuple):
    """Numbers to try: own parameters, what the decoder says (n K, outputs data), x (n, data), weights (n K, 1)."""

    p: dict[str, np.ndarray]
    output: np.ndarray
    x: np.ndarray
    weight: np.ndarray

    def astype(self, dtype: str) -> "Case":
        """A copy in that precision."""
        p = {name: a.astype(dtype) for name, a in self.p.items()}
        return Case(p, *(a.astype(dtype) for a in (self.output, self.x, self.weight)))


class Pass(NamedTuple):
    """What a pass makes of a case."""

    loss: np.ndarray  # (n K,)
    slopes: np.ndarray  # as output
    own: dict[str, np.ndarray]


def check_likelihood(likelihood: Likelihood, seed: int = 0) -> None:
    """Raises ValueError if it is no likelihood at all, AssertionError with what is wrong of it."""
    with np.errstate(all="ignore"):
        _check_form(likelihood)
        case = _checked_draws(likelihood, seed)
        _check_distribution(likelihood, case)
        _check_slopes(likelihood, seed)
        _check_moments(likelihood, case)
        for kernels in usable_kernels():
            for dtype in TOLERANCE:
                _check_loops(likelihood, kernels, dtype, seed)
        _check_pairs(likelihood, seed)
        _check_start(likelihood, case)
        check_replayed(likelihood, type(likelihood).__name__)


# ---------------------------------------------------------------------------------------------------------------- form


def _check_form(of: Likelihood) -> None:
    name = type(of).__name__
    if not isinstance(of, Likelihood):
        raise ValueError(f"{name} must be a subclass of tinyvae.likelihoods.likelihood.Likelihood")
    try:
        hash(of)
    except TypeError as error:
        raise ValueError(
            f"{name} must be a dataclass; its fields are options, and cannot be changed: {error}"
        ) from error
    data = of.some_columns(DATA)
    own = {p.name: p for p in of.own(data)}
    for p in own.values():
        if p.shape not in ((1,), (data,)) and not of.by_rows:
            raise ValueError(f"{name}: the parameter {p.name} must be one number (1,) or one a column, not {p.shape}")
    if not of.outputs:
        raise ValueError(f"{name}: outputs must name what the decoder says of each number of x")
    if not of.by_rows:
        _check_formulas(of, name, own)
    text, said = parts.text_of(of), None
    with contextlib.suppress(ValueError):
        said = parts.part(likelihoods, Likelihood, text, known=(type(of),))
    if said != of:
        raise ValueError(f"{name}: its options do not come back from the text {text!r} that says them")


def _check_formulas(of: Likelihood, name: str, own: dict[str, Any]) -> None:
    _check_formula(name, "nll", getattr(of, "nll", None), {"x", *of.outputs, *own, *of.fixed()})
    _check_backward(name, "slopes", getattr(of, "slopes", None), of.nll, of.outputs)
    if own or of.own_slopes is not None:
        _check_backward(name, "own_slopes", of.own_slopes, of.nll, tuple(own))
    if of.encoder_input is not None:
        _check_formula(name, "encoder_input", of.encoder_input, {"x"})


def _check_formula(name: str, what: str, f: Any, known: set[str]) -> None:
    if not isinstance(f, Formula):
        raise ValueError(f"{name}: {what} must be a @formula, not {f!r}")
    unknown = [i for i in f.inputs if i not in known]
    if unknown:
        raise ValueError(f"{name}: {what} reads {unknown[0]}, which is none of {', '.join(sorted(known))}")


def _check_backward(name: str, what: str, f: Any, nll: Formula, wrt: tuple[str, ...]) -> None:
    said = ", ".join(repr(w) for w in wrt)
    if not isinstance(f, Formula) or f.of is not nll or f.wrt != wrt:
        raise ValueError(f"{name}: {what} must be decorated with @backward_of({nll.__name__}, {said})")
    _check_formula(name, what, f, {"dnll", *nll.inputs})


# --------------------------------------------------------------------------------------------------------------- cases


def _own(of: Likelihood, data: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    start = lambda p: np.asarray(p.start(rng) if callable(p.start) else p.start, "float64")
    return {p.name: start(p) + 0.3 * rng.standard_normal(p.shape) for p in of.own(data)}


def _case(of: Likelihood, seed: int, n: int = 7, K: int = 1, spread: float = 1.0) -> Case:
    """x are draws under an output near 0, or as far from it as `spread` says."""
    rng, data = np.random.default_rng(seed), of.some_columns(DATA)
    p = _own(of, data, rng)
    output = spread * rng.standard_normal((n * K, of.output_width(data)))
    x = of.draw(p, output[::K], rng).astype("float64")
    return Case(p, output, x, rng.uniform(0.2, 2, (n * K, 1)))


def _far(of: Likelihood, seed: int) -> Case:
    """Outputs far from 0, each alone, with x drawn near it, or as far as counts of 1e7."""
    rng, data = np.random.default_rng(seed), of.some_columns(DATA)
    p, width = _own(of, data, rng), of.output_width(data)
    alone = range(width) if of.by_rows else [slice(i * data, (i + 1) * data) for i in range(len(of.outputs))]
    near = np.repeat(rng.standard_normal((8, width)), len(alone) * 2 * len(FAR), axis=0)
    x = of.draw(p, near, rng).astype("float64")
    places = np.indices((8, len(alone), 2, len(FAR))).reshape(4, -1)
    output = near.copy()
    for row, (_, i, sign, j) in enumerate(places.T):
        output[row, alone[i]] = (1 - 2 * sign) * FAR[j]
    wide = rng.uniform(-16, 16, (200, width))
    x_wide = of.draw(p, wide, rng).astype("float64")
    output, x = np.concatenate([output, wide]), np.concatenate([x, x_wide])
    keep = np.isfinite(x).all(axis=1)
    return Case(p, output[keep], x[keep], np.ones((int(keep.sum()), 1)))


def _formulas(of: Likelihood, case: Case, each: float) -> tuple[Pass, np.ndarray]:
    """The oracle of all loops: the formulas on arrays, number by number; and nll of each number (n K, data).

    Without formulas it is the likelihood's own pass on the readable kernels in float64, and nll of each row (n K, 1).
    """
    if of.by_rows:
        found = _run(of, Reference(np, "float64"), case, each, bool(np.isnan(case.x).any()), only=True)
        return found, found.loss[:, None]
    x = np.repeat(case.x, len(case.output) // len(case.x), axis=0)
    seen = ~np.isnan(x)
    case = case._replace(x=np.where(seen, x, 0.0))
    nll = _value(of, of.nll, case)
    whole = lambda f: [np.where(seen, v, 0.0) for v in _values(of, f, case)]
    slopes = np.concatenate(whole(of.slopes), axis=1) * each * case.weight
    own = {}
    if of.own_slopes is not None:
        for name, slope in zip(of.own_slopes.wrt, whole(of.own_slopes), strict=True):
            total = (slope * each * case.weight).sum(axis=0)  # (data,)
            own[name] = total if case.p[name].size > 1 else total.sum(keepdims=True)
    nll = np.where(seen, nll, 0.0)
    return Pass(nll.sum(axis=1), slopes, own), nll


def _values(of: Likelihood, f: Formula, case: Case) -> list[np.ndarray]:
    given = {"dnll": 1.0, **of.inputs(case.p, case.output, case.x, f)}
    value = f(*(given[name] for name in f.inputs))
    return [v + np.zeros(case.x.shape) for v in (value if isinstance(value, tuple) else (value,))]


def _value(of: Likelihood, f: Formula, case: Case) -> np.ndarray:
    return _values(of, f, case)[0]


# --------------------------------------------------------------------------------------------------------------- draws


def _checked_draws(of: Likelihood, seed: int) -> Case:
    """Many draws under one output."""
    name, rng, data = type(of).__name__, np.random.default_rng(seed), of.some_columns(DATA)
    p, width = _own(of, data, rng), of.output_width(data)
    row = rng.standard_normal((1, width))
    output = np.repeat(row, DRAWS, axis=0)
    for dtype in TOLERANCE:
        x = of.draw({k: a.astype(dtype) for k, a in p.items()}, output[:5].astype(dtype), np.random.default_rng(seed))
        wrong = f"{name}: draw must give (rows, data) numbers of the output's precision"
        assert isinstance(x, np.ndarray), wrong
        assert x.shape == (5, data), f"{wrong}, not {x.shape}"
        assert x.dtype == dtype, f"{wrong}, {dtype}, not {x.dtype}"
    x = of.draw(p, output, np.random.default_rng(seed))
    again = of.draw(p, output, np.random.default_rng(seed))
    assert np.array_equal(x, again), (
        f"{name}: draw must draw from the generator that it is given, and from nothing else"
    )
    assert np.isfinite(x).all(), f"{name}: draw gives numbers that are infinite or NaN"
    try:
        of.check(float(x.min()), float(x.max()), bool((x == np.floor(x)).all()))
        of.check_rows(x)
    except ValueError as error:
        raise AssertionError(f"{name}: check refuses what draw drew ({error})") from error
    steps = x / of.step
    of_whole = "whole numbers" if of.step == 1 else f"whole multiples of {of.step:.4g}"
    whole = bool((np.abs(steps - np.round(steps)) <= STEP_OFF).all())
    assert whole or not of.discrete, f"{name}: discrete says that x are {of_whole}, but draw gives others"
    start = of.start(x)
    assert start is None or np.shape(start) == (width,), f"{name}: start must give ({width},) numbers, or None"
    return Case(p, row, x, np.ones((1, 1)))


def _check_distribution(of: Likelihood, case: Case) -> None:
    """How many draws lie below a number must be the sum, or the integral, of e^-nll up to there."""
    name = type(of).__name__
    allowed = DEVIATIONS * 0.5 / math.sqrt(DRAWS)
    if of.by_rows:
        _check_rows(of, case, allowed)
        return
    for j in range(case.x.shape[1]):
        x = np.sort(case.x[:, j])
        if of.discrete:
            at = of.step * np.arange(round(x[0] / of.step), round(x[-1] / of.step) + 1)
            mass = _probability(of, case, at)[:, j]
            below = np.cumsum(mass)
        else:
            at = x[:: DRAWS // 400]
            t = np.linspace(0, 1, 65)
            fine = at[:-1, None] + np.diff(at)[:, None] * t  # (intervals, 65)
            density = _probability(of, case, fine.ravel())[:, j].reshape(fine.shape)
            mass = np.diff(at) * ((density[:, :-1] + density[:, 1:]) / 2).mean(axis=1)
            below, at = np.cumsum(mass) + 1 / DRAWS, at[1:]
        drawn = np.searchsorted(x, at + STEP_OFF * of.step * of.discrete, side="right") / DRAWS
        off = np.abs(below - drawn)
        worst = int(np.argmax(np.where(np.isnan(off), np.inf, off)))
        what = "sum" if of.discrete else "integral"
        assert off[worst] <= allowed, (
            f"{name}: {drawn[worst]:.3f} of the draws lie below {at[worst]:.4g}, but the {what} of e^-nll is "
            f"{below[worst]:.3f}: draw, nll, or a constant in it is wrong"
        )


def _check_rows(of: Likelihood, case: Case, allowed: float) -> None:
    """How often a row is drawn must be e^-loss, if there are rows that are drawn again; where x are real numbers, only
    the moments below tell."""
    if of.discrete:
        x, counts = np.unique(case.x, axis=0, return_counts=True)
        output = np.repeat(case.output, len(x), axis=0)
        mass = np.exp(-_formulas(of, Case(case.p, output, x, np.ones((len(x), 1))), 1.0)[0].loss)
        off = np.abs(mass - counts / DRAWS)
        worst = int(np.argmax(np.where(np.isnan(off), np.inf, off)))
        assert off[worst] <= allowed, (
            f"{type(of).__name__}: {counts[worst] / DRAWS:.3f} of the draws are {x[worst]}, but e^-loss is "
            f"{mass[worst]:.3f}: draw, loss, or a constant in it is wrong"
        )


def _probability(of: Likelihood, case: Case, at: np.ndarray) -> np.ndarray:
    x = np.repeat(at[:, None], case.x.shape[1], axis=1)
    return np.exp(-_value(of, of.nll, case._replace(x=x)))  # (len(at), data)


def _check_moments(of: Likelihood, case: Case) -> None:
    """The mean of draws is `mean`; the mean slope is 0, and of its square Fisher's information."""
    name = type(of).__name__
    _same_mean(f"{name}: mean", case.x, of.mean(case.p, case.output)[0])
    information = of.information(case.p, case.output)
    wrong = f"{name}: information must have the shape of the output, {case.output.shape}, not {np.shape(information)}"
    assert np.shape(information) == case.output.shape, wrong
    if of.by_rows:
        output = np.repeat(case.output, len(case.x), axis=0)
        slope = _formulas(of, Case(case.p, output, case.x, np.ones((len(case.x), 1))), 1.0)[0].slopes
        _same_mean(f"{name}: the slope by the output, over draws,", slope, np.zeros(slope.shape[1]))
        _same_mean(f"{name}: the information of the output", slope**2, information[0])
        return
    data = case.x.shape[1]
    for i, (what, slope) in enumerate(zip(of.outputs, _values(of, of.slopes, case), strict=True)):
        _same_mean(f"{name}: the slope by {what}, over draws,", slope, np.zeros(data))
        part = information[0, i * data : (i + 1) * data]
        _same_mean(f"{name}: the information of {what}", slope**2, part)
    if of.own_slopes is not None:
        for what, slope in zip(of.own_slopes.wrt, _values(of, of.own_slopes, case), strict=True):
            _same_mean(f"{name}: the slope by {what}, over draws,", slope, np.zeros(data))


def _same_mean(what: str, values: np.ndarray, expected: np.ndarray) -> None:
    mean, allowed = values.mean(axis=0), DEVIATIONS * values.std(axis=0) / math.sqrt(len(values)) + 1e-9
    assert mean.shape == np.shape(expected), f"{what} has shape {np.shape(expected)}, not {mean.shape}"
    j = int(np.argmax(np.abs(mean - expected) / allowed))
    ok = bool(np.abs(mean - expected)[j] <= allowed[j])  # NaN is not
    assert ok, f"{what} is {mean[j]:.4g} +- {allowed[j]:.2g} by {len(values)} draws, not {expected[j]:.4g}"


# -------------------------------------------------------------------------------------------------------------- slopes


def _check_slopes(of: Likelihood, seed: int) -> None:
    """By finite differences of nll."""
    name, case = type(of).__name__, _case(of, seed)
    case = case._replace(output=case.output + 0.1 * np.random.default_rng(seed + 1).standard_normal(case.output.shape))
    got, _ = _formulas(of, case, 1.0)
    loss = lambda: case.weight[:, 0] * _formulas(of, case, 1.0)[0].loss
    params = {"output": case.output, **{f"parameter {k}": a for k, a in case.p.items()}}
    grads = {"output": got.slopes, **{f"parameter {k}": a for k, a in got.own.items()}}
    for check in gradcheck(loss, params, grads, seed=seed):
        assert check.passed, (
            f"{name}: the slope by the {check.name} ({', '.join(of.outputs)}) is not the derivative of nll: off by "
            f"{check.error:.2e}, where {check.tolerance:.1e} is allowed"
        )


# --------------------------------------------------------------------------------------------------------------- loops


def _check_loops(of: Likelihood, kernels: str, dtype: str, seed: int) -> None:
    name = f"{type(of).__name__}, in {dtype} on the {kernels} kernels"
    k = kernel_files.select(kernels, get_backend("numpy"), dtype)[1]()
    rng = np.random.default_rng(seed + 2)
    for K in (1, 3):
        first, second = (_case(of, s, K=K).astype("float32") for s in (seed, seed + 3))
        here = first.astype(dtype)
        for hide in (False, True):
            for case in (first, second, first):  # in the same memory: nothing may be left of the pass before
                for mine, other in zip(_arrays(here), _arrays(case), strict=True):
                    mine[...] = other
                if hide:
                    here.x[rng.random(here.x.shape) < 0.4] = np.nan
                    here.x[0] = np.nan
                what = f"{name}{', with NaN' if hide else ''}"
                expected, _ = _formulas(of, here.astype("float64"), 0.25)
                got = _run(of, k, here, 0.25, hide)
                _compare(got, expected, TOLERANCE[dtype], what)
                unseen = np.repeat(of.unseen(here.x), K, axis=0)
                assert not got.slopes[unseen].any(), f"{what}: a number that was not observed has a slope"
                _check_encoded(of, k, here, hide, what)
    far = _far(of, seed).astype("float32").astype(dtype)
    got, expected = _run(of, k, far, 1.0, False), _formulas(of, far.astype("float64"), 1.0)[0]
    _compare(
        got._replace(own={}), expected._replace(own={}), max(TOLERANCE[dtype], FAR_OFF), f"{name}, at outputs up to 1e4"
    )
    k.begin("lost")
    lost = np.array(of.loss(k, far.p, np.full_like(far.output, np.nan), far.x))
    assert not np.isfinite(lost).any(), f"{name}: a decoder that says NaN has a finite loss, so nobody sees it"


def _arrays(case: Case) -> list[np.ndarray]:
    return [*case.p.values(), case.output, case.x, case.weight]


def _run(of: Likelihood, k: Kernels, case: Case, each: float, missing: bool, only: bool = False) -> Pass:
    """As a training step does it; the loss alone and the slopes alone must be the same, unless it is asked for only."""
    name = type(of).__name__
    wide = lambda a: np.array(a, dtype="float64")
    k.begin("check", len(case.output), missing)
    loss, back = of.forward(k, case.p, case.output, case.x, each, missing)
    loss, g = wide(loss), {key: np.full_like(a, np.nan) for key, a in case.p.items()}
    slopes = wide(back(case.weight, g))
    if only:
        return Pass(loss, slopes, {key: wide(a) for key, a in g.items()})
    k.begin("loss", len(case.output), missing)
    alone = wide(of.loss(k, case.p, case.output, case.x, missing))
    _near(alone, loss, 1e-5, f"{name}: loss and forward differ: the loss")
    k.begin("slope", len(case.output), missing)
    loss_too, slope = (wide(a) for a in of.slope(k, case.p, case.output, case.x, missing))
    _near(loss_too, loss, 1e-5, f"{name}: slope and forward differ: the loss")
    _near(slope * each * case.weight, slopes, 1e-4, f"{name}: slope and forward differ: the slope")
    return Pass(loss, slopes, {key: wide(a) for key, a in g.items()})


def _compare(got: Pass, expected: Pass, tolerance: float, where: str) -> None:
    _near(got.loss, expected.loss, tolerance, f"{where}: the loss")
    _near(got.slopes, expected.slopes, tolerance, f"{where}: the slope")
    for name, a in expected.own.items():
        _near(got.own[name], a, tolerance, f"{where}: the gradient of {name}")


def _near(got: np.ndarray, expected: np.ndarray, tolerance: float, what: str) -> None:
    """Raises AssertionError unless they agree; where they are LARGE, both must be."""
    assert got.shape == expected.shape, f"{what} has shape {got.shape}, not {expected.shape}"
    assert not np.isnan(expected).any(), f"{what} is NaN, of finite numbers"
    large = np.abs(expected) > LARGE
    both = large & (np.abs(got) > LARGE / 10) & (np.sign(got) == np.sign(expected))
    off = np.where(both, 0, np.abs(got - expected) / (1 + np.abs(np.where(large, LARGE, expected))))
    worst = np.unravel_index(int(np.argmax(np.where(np.isnan(off), np.inf, off))), off.shape)
    assert off[worst] <= tolerance, f"{what} is {got[worst]:.8g}, not {expected[worst]:.8g}"


def _check_encoded(of: Likelihood, k: Kernels, case: Case, missing: bool, what: str) -> None:
    x = np.where(np.isnan(case.x), 0, case.x).astype("float64")
    if of.by_rows:
        expected = of.encoded(Reference(np, "float64"), case.x.astype("float64"), missing)
    else:
        expected = x if of.encoder_input is None else of.encoder_input(x)
    assert np.isfinite(expected).all(), f"{what}: what the encoder sees is not finite"
    got = np.array(of.encoded(k, case.x, missing), dtype="float64")
    _near(got, expected, 1e-6, f"{what}: what the encoder sees")


# ---------------------------------------------------------------------------------------------------- pairs, the start


def _check_pairs(of: Likelihood, seed: int) -> None:
    """log p of every x under every output."""
    case = _case(of, seed)
    x = case.x[:4].copy()
    for what in ("", ", with NaN"):
        if what:
            x[0, 1] = x[2, 0] = np.nan
        got = of.log_p_of_pairs(case.p, case.output, x)
        tiled = lambda row: case._replace(x=np.tile(row, (len(case.output), 1)))
        expected = np.array([-_formulas(of, tiled(row), 1.0)[0].loss for row in x])
        _near(got, expected, 1e-9, f"{type(of).__name__}: log p of all pairs{what}")


def _check_start(of: Likelihood, case: Case) -> None:
    """A decoder that says the start whatever z is, is no worse than one that says 0; and it knows what NaN means.

    0.01 a column: of DRAWS rows a start may add a count or so, to stay finite.
    """
    name, x = type(of).__name__, case.x.copy()
    x[0, 0] = x[:, 1] = np.nan
    start = of.start(x)
    if start is None:
        return
    assert np.isfinite(start).all(), f"{name}: start is not finite, of data with NaN"
    start = np.asarray(of.start(case.x), dtype="float64")
    told = lambda output: _formulas(of, case._replace(output=np.tile(output, (len(case.x), 1))), 1.0)[0].loss.mean()
    at_start, at_zero = told(start), told(0 * start)
    worse = f"{name}: at its start the loss is {at_start:.6g}, more than at 0, where it is {at_zero:.6g}"
    assert at_start <= at_zero + 0.01 * case.x.shape[1], worse

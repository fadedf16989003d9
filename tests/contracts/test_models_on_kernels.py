"""Every kind of VAE on every fused kernels: the numbers of the readable ones, no array in a step, the same training."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from net import IMAGE, MODELS
from strategies import EVERY_FUSED, assert_within, eps_of, sampled

import tinyvae
from tinyvae import likelihoods
from tinyvae.checking import examples
from tinyvae.objectives.elbo import ELBO
from tinyvae.objectives.iwae import IWAE
from tinyvae.objectives.objective import Objective
from tinyvae.ops.adam import adam_step

EPS = eps_of("float32")
# the models of the net, and one for each likelihood that it does not have
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **MODELS,
    **{f"likelihood {name}": ({"likelihood": name}, {}) for name in likelihoods.names()},
    "iwae 3, dreg": ({}, {"importance": 3, "estimator": "dreg"}),
    "labels, iwae 2, conv": ({**IMAGE, "conv": (2,), "classes": 3}, {"importance": 2}),
}
EACH = pytest.mark.parametrize("kind", sampled(list(KINDS), 3))
EACH_KERNELS = pytest.mark.parametrize("kernels", EVERY_FUSED)


def built(kind: str, kernels: str, dtype: str = "float32") -> tinyvae.VAE:
    described = KINDS[kind][0]
    described = {"data_dim": 50, "hidden": (24,), "latent_dim": 6, **described}
    model = tinyvae.VAE(**described, kernels=kernels, dtype=dtype, seed=1)
    noise = np.random.default_rng(0).standard_normal(model.params.flat.shape)
    model.params.flat += (0.05 * noise).astype("f4")  # no bias is 0
    return model


def batch(model: tinyvae.VAE, kind: str, rows: int, seed: int) -> tuple[Any, Any, Any, Objective]:
    asked = dict(KINDS[kind][1])
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(rows, model.data_dim))
    try:
        model.likelihood.check(0.0, 1.0, whole=False)
        model.likelihood.check_rows(x)
    except ValueError:
        x = examples.data(model.likelihood, rng, *x.shape)
    draws = asked.pop("importance", 0)
    eps = rng.standard_normal((rows * max(draws, 1), model.latent_dim))
    y = np.arange(rows) % model.classes if model.classes else None
    return x.astype("f4"), eps.astype("f4"), y, IWAE(draws, **asked) if draws else ELBO(**asked)


def step(model: tinyvae.VAE, x: Any, eps: Any, y: Any, objective: Objective) -> np.ndarray:
    with model.lock, model.borrowed("step", *eps.shape) as k:
        return np.concatenate(model.forward_backward(k, x, eps, objective.on(len(x)), y))


@EACH_KERNELS
@EACH
def test_losses_gradients_and_running_averages_are_those_of_the_formulas(kind: str, kernels: str) -> None:
    """A number has at most some hundred roundings behind it."""
    truth, model = built(kind, "reference", "float64"), built(kind, kernels)
    truth.params.flat[...] = model.params.flat
    for seed, rows in enumerate([5, 33, 3, 33]):  # memory is made, made larger, and used again
        x, eps, y, objective = batch(model, kind, rows, seed)
        losses = step(model, x, eps, y, objective)
        expected = step(truth, x.astype(float), eps.astype(float), y, objective)
        assert_within(losses, expected, 256 * EPS * (np.abs(expected).max() + 1))
        for name, g in truth.grads.items():
            assert_within(model.grads[name], g, 256 * EPS * (np.abs(g).max() + 1))
        for name in (name for name in truth.params if ".running_" in name):
            p = truth.params[name]
            assert_within(model.params[name], p, 256 * EPS * (np.abs(p).max() + 1))


# A step makes views, closures and tuples, some 100 bytes each. NumPy's own ufuncs take buffers of `bufsize` numbers for
# operands that broadcast or are strided, at most three at a time, whatever the arrays' size. An array of a number for
# each row shows in MORE rows.
OBJECTS, ROWS, MORE = 24 * 1024, 9000, 6000
ALLOWED = {"numba": OBJECTS, "numpy": OBJECTS + 3 * np.getbufsize() * 8}  # float64 within float32 loops
NO_ARRAY = 20_000  # less than MORE numbers; NumPy rounds its buffers to whole rows


def growth(model: tinyvae.VAE, given: tuple[Any, Any, Any, Objective]) -> int:
    """By how many bytes memory grows at most in a step from the third on; NumPy reports its arrays to tracemalloc."""
    for _ in range(2):
        step(model, *given)
    tracemalloc.start()
    try:
        step(model, *given)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        step(model, *given)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@EACH_KERNELS
@EACH
def test_a_training_step_makes_no_array(kind: str, kernels: str) -> None:
    model = built(kind, kernels)
    rows, more = (500, 100) if model.data_dim == 784 else (ROWS, MORE)
    x, eps, y, objective = batch(model, kind, rows + more, 0)
    draws = len(eps) // len(x)
    most = growth(model, (x, eps, y, objective))
    less = growth(model, (x[:rows], eps[: rows * draws], y if y is None else y[:rows], objective))
    assert most < ALLOWED[kernels]
    blocks = 16 * max(len(call.steps) for k in model.free for p in vars(k)["passes"].values() for call in p.calls)
    assert abs(most - less) < NO_ARRAY + blocks  # Python lists the operations of a call anew, 8 bytes each


@EACH_KERNELS
def test_the_allocation_test_would_notice_the_smallest_array(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, right = built("dense", kernels), ELBO.forward
    monkeypatch.setattr(ELBO, "forward", lambda self, k, nll, q: right(self, k, nll.copy(), q))
    given = [batch(model, "dense", rows, 0) for rows in (ROWS, ROWS + MORE)]
    less, most = (growth(model, (*one[:3], ELBO())) for one in given)
    assert most - less > NO_ARRAY


@EACH_KERNELS
@pytest.mark.parametrize("kind", ["dense", "tied, deep, gaussian", "dense, gaussian, sigma predicted", "iwae 5, deep"])
def test_fused_and_reference_losses_agree_for_100_steps(kind: str, kernels: str) -> None:
    steps, lr = 100, 1e-3
    fused, reference = built(kind, kernels), built(kind, "reference")
    reference.params.flat[...] = fused.params.flat
    x, eps, y, objective = batch(fused, kind, 16, 0)
    state = {id(model): [np.zeros_like(model.params.flat) for _ in range(2)] for model in (fused, reference)}
    first = last = 0.0
    for t in range(1, steps + 1):
        ours, theirs = (step(model, x, eps, y, objective).astype(float) for model in (fused, reference))
        first = first or theirs[0]
        # Each step rounds p by eps / 2 of it in both runs, and its own size, at most some lr, by up to 100 eps where m
        # or v cancel: together eps (|p| + 0.1) a step. What that does to the loss is at most sum |dL/dp| times it. On
        # top come some 50 roundings of the loss itself.
        p = np.abs(reference.params.flat.astype(float)) + 0.1
        drift = t * float(p @ np.abs(reference.grads.flat.astype(float)))
        assert np.abs(ours - theirs).max() <= EPS * (drift + 50 * np.abs(theirs).max())
        for model in (fused, reference):
            m, v = state[id(model)]
            model.params.flat[...], m[...], v[...] = adam_step(model.params.flat, model.grads.flat, m, v, t, lr)
        last = theirs[0]
    assert last < first - 0.05 * abs(first)  # it did train

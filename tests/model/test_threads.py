"""One model, several threads: each call returns what it returns alone, bit for bit, and training is not disturbed.

Two ways to look. In the midst of a call, after each of its kernels, another thread is let in: it must wait, or whatever
it leaves in the shared buffers shows in the result. And a pool of threads makes hundreds of calls of all kinds.
"""

import multiprocessing
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cases import build, inputs
from strategies import EVERY_FUSED, sampled
from training_runs import make, recorded

import tinyvae
from tinyvae.backend import to_host
from tinyvae.checking.models import CASES
from tinyvae.kernels.numpy_loops import NumPyKernels
from tinyvae.model.vae import CHUNK
from tinyvae.objectives.elbo import ELBO
from tinyvae.objectives.iwae import IWAE
from tinyvae.training.batches import Batches
from tinyvae.training.metrics import evaluate

KINDS = {
    case.name: case
    for case in CASES
    if case.name
    in (
        "bernoulli, deep",
        "gaussian, sigma predicted",
        "bernoulli, tied",
        "conditional",
        "conv, batch norm, conditional",
    )
}
KERNELS = [*EVERY_FUSED, "reference"]


def made(case: str, kernels: str = "numpy") -> tinyvae.VAE:
    model = build(KINDS[case], kernels=kernels)
    model.params.flat += (0.3 * np.random.default_rng(0).standard_normal(model.params.flat.shape)).astype(model.dtype)
    model.params.flat[...] = abs(model.params.flat) if KINDS[case].model.get("batch_norm") else model.params.flat
    return model


def given(case: str, rows: int, seed: int) -> SimpleNamespace:
    x, eps, y = inputs(KINDS[case], rows, seed)
    return SimpleNamespace(x=x, eps=eps, y=y, draws=np.stack([eps, eps[::-1]], axis=1), seed=seed, case=case)


def plain_mean(model: tinyvae.VAE, g: Any) -> Any:
    return tinyvae.fill_in(model, g.x, g.x > 0.5, g.x.mean(axis=0), g.seed, steps=2, chains=1, y=g.y)


CALLS: dict[str, Callable[[tinyvae.VAE, Any], Any]] = {
    "encode": lambda m, g: m.encode(g.x, g.y),
    "decode": lambda m, g: m.decode(g.eps, g.y),
    "draw": lambda m, g: m.draw(g.eps, g.seed, g.y),
    "sample": lambda m, g: m.sample(len(g.x), g.seed, y=g.y),
    "log p(x|z)": lambda m, g: m.log_p_x_given_z(g.x, g.eps, g.y),
    "rows_loss": lambda m, g: m.rows_loss(g.x, g.eps, g.y),
    "loss": lambda m, g: m.loss(g.x, g.eps, 0.5, 0.1, g.y),
    "log_likelihood": lambda m, g: tinyvae.log_likelihood(m, g.x, 2, g.seed, y=g.y),
    "anomaly_scores": lambda m, g: tinyvae.anomaly_scores(m, g.x, g.seed, samples=2, y=g.y),
    "anomaly_scores, likelihood": lambda m, g: tinyvae.anomaly_scores(m, g.x, g.seed, "likelihood", 2, y=g.y),
    "embed": lambda m, g: tinyvae.embed(m, g.x, g.y),
    "fill_in": lambda m, g: tuple(vars(plain_mean(m, g)).values()),
    "denoise": lambda m, g: tinyvae.denoise(m, g.x, g.seed, 2, g.y),
    "iwae": lambda m, g: m.loss(g.x, g.draws, y=g.y, objective=IWAE(2)),
    "look": lambda m, g: m.look(g.x, g.draws, g.y),
    "every_label": lambda m, g: tinyvae.every_label(m, g.x, g.y) if g.y is not None else 0.0,
    "evaluate": lambda m, g: tuple(vars(evaluate(m, Batches(m, g.x, 1.0, 3, False, g.y), ELBO(), 0)).values()),
}
SEARCHES = ("log_likelihood", "anomaly_scores, likelihood")  # these decode thousands of z for a row
TRAINING: dict[str, Callable[[tinyvae.VAE, Any], Any]] = {  # these move the running averages of batch normalization
    "loss_and_grad": lambda m, g: m.loss_and_grad(g.x, g.eps, 0.5, 0.1, g.y),
    "iwae, gradient": lambda m, g: m.loss_and_grad(g.x, g.draws, y=g.y, objective=IWAE(2)),
}


def as_bytes(result: Any) -> list[bytes]:
    return [np.asarray(to_host(a)).tobytes() for a in (result if isinstance(result, tuple) else (result,))]


@pytest.fixture
def many_switches() -> Iterator[None]:
    """Threads that take turns after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Intruder:
    """After every kernel that the test's own thread runs, another thread calls `what`, and has a moment for it."""

    MOMENT = 0.005  # seconds; without the lock the call takes a tenth of it

    def __init__(self, monkeypatch: pytest.MonkeyPatch, what: Callable[[], Any]) -> None:
        self.what, self.victim, self.thread, self.times = what, threading.current_thread(), None, 0
        for name in ("product", "map"):
            monkeypatch.setattr(NumPyKernels, name, self.interrupted(getattr(NumPyKernels, name)))

    def interrupted(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def then(*args: Any, **results: Any) -> Any:
            found = kernel(*args, **results)
            if threading.current_thread() is self.victim and (self.thread is None or not self.thread.is_alive()):
                self.thread = threading.Thread(target=self.what)
                self.thread.start()
                self.thread.join(self.MOMENT)
                self.times += 1
            return found

        return then

    def leave(self) -> None:
        self.victim = None
        if self.thread is not None:
            self.thread.join(10)


@pytest.mark.parametrize("call", [*CALLS, *TRAINING])
def test_whoever_comes_in_the_midst_of_a_call_waits(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = "conditional"
    function = {**CALLS, **TRAINING}[call]
    mine, theirs = given(case, 5, 1), given(case, 7, 2)
    expected, of_intruder = (
        as_bytes(function(made(case), mine)),
        made(case).loss_and_grad(theirs.x, theirs.eps, y=theirs.y),
    )
    model, losses = made(case), []
    model.loss_and_grad(theirs.x, theirs.eps, y=theirs.y)  # so that the buffers are as large as the intruder needs them
    intruder = Intruder(monkeypatch, lambda: losses.append(model.loss_and_grad(theirs.x, theirs.eps, y=theirs.y)))
    found = as_bytes(function(model, mine))
    intruder.leave()
    assert found == expected
    assert intruder.times >= 1
    assert losses == [of_intruder] * intruder.times


@pytest.mark.parametrize("kernels", sampled(KERNELS, 3))
@pytest.mark.parametrize("case", sampled(KINDS, 3))
def test_a_pool_of_threads_gets_what_one_thread_gets(case: str, kernels: str, many_switches: None) -> None:
    running_averages_move = KINDS[case].model.get("batch_norm", False)
    calls = list((CALLS if running_averages_move else {**CALLS, **TRAINING}).items())
    jobs = [
        (name, call, given(case, rows, seed))
        for seed, rows in enumerate((1, 4, 9, 33))
        for name, call in calls
        if rows == 4 or name not in SEARCHES
    ]
    jobs.append(("encode", CALLS["encode"], given(case, CHUNK + 5, 9)))
    alone = made(case, kernels)
    expected = [as_bytes(call(alone, g)) for _, call, g in jobs]
    order = np.random.default_rng(1).permutation(np.tile(np.arange(len(jobs)), 3)).tolist()  # about 200 of them
    model = made(case, kernels)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: as_bytes(jobs[i][1](model, jobs[i][2])), order))
    wrong = [jobs[i][0] for i, result in zip(order, found, strict=True) if result != expected[i]]
    assert wrong == []


def test_the_gradient_of_a_batch_can_be_read_by_who_holds_the_lock(many_switches: None) -> None:
    batches = [given("bernoulli, deep", rows, rows) for rows in (2, 5, 8)]
    alone = made("bernoulli, deep")
    expected = [(alone.loss_and_grad(g.x, g.eps), alone.grads.flat.tobytes()) for g in batches]
    model = made("bernoulli, deep")

    def both(i: int) -> bool:
        g = batches[i % 3]
        with model.lock:
            return (model.loss_and_grad(g.x, g.eps), model.grads.flat.tobytes()) == expected[i % 3]

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(both, range(90)))


OBJECTIVES: dict[str, dict[str, Any]] = {
    "elbo": {},
    "accumulated, clipped": {"accumulate": 3, "clip_norm": 0.5},
    "iwae": {"objective": "iwae", "importance": 3},
}


@pytest.mark.parametrize("options", OBJECTIVES.values(), ids=OBJECTIVES)
def test_who_looks_at_a_model_in_training_does_not_disturb_it(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, watched = (make(kernels="numpy", epochs=2, **options) for _ in range(2))
    undisturbed.run()
    rng = np.random.default_rng(0)
    x, eps = rng.uniform(0, 1, (9, 6)), rng.standard_normal((9, 2))
    seen: list[np.ndarray] = []

    def look() -> None:
        seen.append(watched.model.encode(x)[0])
        watched.model.loss_and_grad(x, eps)

    intruder = Intruder(monkeypatch, look)
    # between a batch's gradient and Adam there is more: the norm, the sum over batches
    monkeypatch.setattr(NumPyKernels, "squared_norm", intruder.interrupted(NumPyKernels.squared_norm))
    watched.run()
    intruder.leave()
    assert watched.model.params.flat.tobytes() == undisturbed.model.params.flat.tobytes()
    seconds = {"seconds": 0.0}  # but for the time it took
    assert [vars(r) | seconds for r in recorded(watched).rows] == [
        vars(r) | seconds for r in recorded(undisturbed).rows
    ]
    assert seen
    assert np.isfinite(seen).all()


def test_who_looks_at_a_model_in_training_gets_a_turn() -> None:
    trainer = make(kernels="numpy", epochs=2000, lr=1e-4)
    enough = threading.Event()
    running = threading.Thread(target=lambda: trainer.run(stop=enough.is_set))
    running.start()
    for _ in range(20):
        trainer.model.encode(np.zeros((1000, 6)))
    at_work = running.is_alive()
    enough.set()
    running.join(20)
    assert at_work
    assert not running.is_alive()


def test_a_forked_process_does_not_wait_for_a_thread_that_it_has_not() -> None:
    model, g = made("bernoulli, deep"), given("bernoulli, deep", 4, 1)
    expected = model.encode(g.x)[0]
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with model.lock:
            held.set()
            done.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    child = fork.Process(target=lambda: results.put(model.encode(g.x)[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "multi-threaded, fork may lead to deadlocks": this is it
        child.start()
    child.join(20)
    if child.is_alive():
        child.kill()
        child.join()
    done.set()
    holder.join()
    assert child.exitcode == 0
    np.testing.assert_array_equal(results.get(), expected)

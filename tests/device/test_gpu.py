"""On a real NVIDIA GPU: what the other tests show on the stand-in for CuPy. Without one all of this is skipped."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kinds import EVERY, Kind, step
from strategies import assert_within, eps_of
from test_graph_step import REPLAYED, Steps, assert_same_bits, check_formulas, each_kind, each_large

from tinyvae.backend import cupy_problem, to_host
from tinyvae.commands import main
from tinyvae.training import checkpoint as checkpoints


@pytest.fixture
def cupy() -> Any:
    problem = cupy_problem()
    if problem:
        pytest.skip(f"needs an NVIDIA GPU: {problem}")
    return importlib.import_module("cupy")


@each_kind
def test_the_captured_step_is_that_of_the_formulas(cupy: Any, kind: Kind) -> None:
    check_formulas(Steps(cupy, kind))


@each_large
def test_so_is_that_of_a_model_of_many_tiles(cupy: Any, kind: Kind) -> None:
    check_formulas(Steps(cupy, kind, data=70, latent=20, rows=75, batch=40))


def test_so_are_binarized_pixels_and_tf32(cupy: Any) -> None:
    check_formulas(Steps(cupy, dynamic=True))
    check_formulas(Steps(cupy, tf32=True), precision=2**-10)


@pytest.mark.parametrize("kind", REPLAYED, ids=lambda kind: kind.name)
def test_a_replay_is_the_eager_step_and_a_run_repeats_bit_for_bit(cupy: Any, kind: Kind) -> None:
    captured, again, eager = (Steps(cupy, kind, dynamic=True) for _ in range(3))
    captured.run()
    again.run()
    eager.run(captured=False)
    assert_same_bits(captured.numbers(), again.numbers())
    assert_same_bits(captured.numbers(), eager.numbers())


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.name)
def test_the_eager_kernels_make_the_gradients_of_the_formulas(cupy: Any, kind: Kind) -> None:
    x, eps, y = kind.inputs(8, seed=0)
    ours = kind.build(backend="cupy", kernels="cuda")
    truth = kind.build(dtype="float64", kernels="reference")
    truth.params.flat[...] = to_host(ours.params.flat)
    x, eps = x.astype(np.float32), eps.astype(np.float32)
    on_device = [None if a is None else cupy.asarray(a) for a in (x, eps, y)]
    got = [to_host(term) for term in step(ours, kind, *on_device)]
    expected = np.stack(step(truth, kind, x.astype(float), eps.astype(float), y))
    assert_within(got, expected, 16 * eps_of("float32") * np.abs(expected).max())
    for name, g in truth.grads.items():  # to 16 roundings of the largest of the tensor, as in `check_formulas`
        assert_within(to_host(ours.grads[name]), g, 16 * eps_of("float32") * np.abs(g).max())


@pytest.mark.parametrize("more", [[], ["--tf32"], ["--clip-norm", "1"]], ids=str)
def test_training_repeats_and_resumes_bit_for_bit(cupy: Any, more: list[str], tmp_path: Path) -> None:
    def train(name: str, *options: str) -> None:
        argv = ["train", "--backend", "cupy", "--no-figures", "--quiet", *options]
        assert main([*argv, *(more if "--resume" not in options else [])]) == 0, name

    for name in ("once", "twice"):
        train(name, "--epochs", "4", "--out", str(tmp_path / name))
    train("half", "--epochs", "2", "--out", str(tmp_path / "half"))
    train("half", "--resume", str(tmp_path / "half"), "--epochs", "4")
    once, *others = (checkpoints.read_last(tmp_path / name)[0] for name in ("once", "twice", "half"))
    for other in others:
        for name, tensor in once.params.items():
            assert tensor.tobytes() == other.params[name].tobytes(), name

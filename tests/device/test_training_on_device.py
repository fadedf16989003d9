"""Trainer, checkpoints and commands on the stand-in for CuPy: the same run as on NumPy, with hardly a host copy."""

from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture
from kinds import BY_NAME, EVERY, ORDINARY, Kind
from strategies import sampled
from trained import of_kind, parameters

import tinyvae
from tinyvae import objectives
from tinyvae.commands import main
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training.engine import Engine

each_kind = pytest.mark.parametrize("kind", sampled(EVERY, 3), ids=lambda kind: kind.name)


def check_copies(fake: Any, trainer: Engine) -> None:
    fake.reset_copies()
    list(trainer._epoch())
    assert fake.device_copies == 1  # the order of the rows
    assert fake.host_copies == 1  # the losses of the 7 steps, read at the end of the epoch
    trainer._close_epoch()
    assert fake.device_copies == 2  # the order of the test rows
    assert fake.host_copies == 3  # their losses, and their mu, from which active units are counted


@each_kind
def test_a_training_epoch_copies_one_order_in_and_one_ring_of_losses_out(fake_cupy: Any, kind: Kind) -> None:
    options = {"clip_norm": 1.0, "accumulate": 2, "binarize": "dynamic"}
    check_copies(fake_cupy, of_kind(kind, "cupy", epochs=1, **options))


@pytest.mark.parametrize("kind", ORDINARY, ids=lambda kind: kind.name)
def test_so_does_an_epoch_of_the_ordinary_step_with_the_fused_kernels(fake_cupy: Any, kind: Kind) -> None:
    trainer = of_kind(kind, "cupy", dtype="float32", epochs=1)
    assert trainer.model.kernels_name == "cuda"
    assert trainer.graph_step is None
    check_copies(fake_cupy, trainer)
    assert np.isfinite(parameters(trainer)).all()
    assert fake_cuda.clock.launches, "its kernels are ours"
    assert "finish_step" not in fake_cuda.clock.launches


@each_kind
def test_training_moves_the_parameters_as_on_numpy_given_the_same_noise(
    fake_cupy: Any, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """The two backends draw different noise, so both are given the same one here."""
    on_device, on_host = (of_kind(kind, backend, epochs=2) for backend in ("cupy", "numpy"))

    class Replayed:
        def __init__(self, wrap: Any) -> None:
            self.rng, self.wrap = np.random.default_rng(7), wrap

        def standard_normal(self, out: Any, dtype: Any) -> None:
            out[...] = self.wrap(self.rng.standard_normal(out.shape))

    for trainer, wrap in [(on_device, fake_cupy.asarray), (on_host, np.asarray)]:
        shared = Replayed(wrap)
        monkeypatch.setattr(type(trainer.model.backend), "generator", lambda self, *key, shared=shared: shared)
        before = parameters(trainer)
        trainer.run()
        assert not np.array_equal(parameters(trainer), before)
    # where memory lies may move the last bits of a sum, and Adam divides a small gradient by a small root
    np.testing.assert_allclose(parameters(on_device), parameters(on_host), rtol=1e-12, atol=1e-13)


RUNS = [
    [],
    ["--conv", "2", "--batch-norm", "--conditional"],
    ["--objective", "iwae", "--conditional"],
    ["--activation", "swish", "--objective", "elbo:draws=2"],
    *(["--objective", name] for name in objectives.names() if name not in ("elbo", "iwae")),
]


@pytest.mark.parametrize("more", sampled(RUNS, 2), ids=str)
def test_a_run_is_trained_resumed_evaluated_and_used_on_the_device(
    fake_cupy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    x = np.random.default_rng(0).uniform(0, 1, (60, 3, 3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(60) % 4)
    run, whole = str(tmp_path / "run"), str(tmp_path / "whole")
    options = ["--data", str(tmp_path / "x.npz"), "--backend", "cupy", "--hidden", "5", "--latent", "2", "--quiet"]
    options += more
    assert main(["train", *options, "--epochs", "2", "--out", run]) == 0
    assert main(["train", "--resume", run, "--epochs", "4", "--quiet"]) == 0
    assert main(["train", *options, "--epochs", "4", "--out", whole, "--no-figures"]) == 0
    resumed, at_once = (checkpoints.read_last(Path(path))[0] for path in (run, whole))
    for name, a in at_once.params.items():
        np.testing.assert_array_equal(resumed.params[name], a)
    assert main(["evaluate", run, "--backend", "cupy", "--nll-samples", "3"]) == 0
    assert main(["generate", run, "--backend", "cupy", "--n", "4", "--draw", "--out", str(tmp_path / "s.npy")]) == 0
    assert set(np.unique(np.load(tmp_path / "s.npy"))) <= {0.0, 1.0}
    assert "log p(x" in capsys.readouterr().out  # of a conditional run: log p(x|y)


def test_a_checkpoint_of_the_device_loads_on_the_host(fake_cupy: Any, tmp_path: Path) -> None:
    model = tinyvae.VAE(4, (3,), 2, backend="cupy", seed=3)
    tinyvae.save(model, tmp_path / "model.safetensors")
    again = tinyvae.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.params.flat, fake_cupy.asnumpy(model.params.flat))


def test_a_nan_on_the_device_is_found_with_its_step_though_it_is_looked_for_later(fake_cupy: Any) -> None:
    trainer = of_kind(BY_NAME["bernoulli"], "cupy", epochs=1)
    original, calls = trainer.model.step, iter(range(1, 99))

    def spoiled(*args: Any) -> Any:
        losses = original(*args)
        if next(calls) == 3:
            trainer.model.grads["decoder.0.bias"][0] = float("nan")
        return losses

    trainer.model.step = spoiled  # type: ignore[method-assign]  # the planted fault
    with pytest.raises(tinyvae.NonFiniteError, match="epoch 1, batch 3: "):
        trainer.run()

"""Trainer, checkpoints and commands on the stand-in for CuPy: the same run as on NumPy, with hardly a host copy."""

from pathlib import Path

import numpy as np
import pytest
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture

import tinyvae
from tinyvae.commands import main
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset
from tinyvae.training.metrics import Row
from tinyvae.training.trainer import RunState, Trainer


class Silent:
    def batch(self, state: RunState, loss: float) -> None:
        pass

    def epoch(self, row: Row) -> None:
        self.row = row


MODELS = {
    "dense": {},
    "labels": {"classes": 3},
    "batch norm": {"batch_norm": True},
    "conv, batch norm, labels": {"conv": (2, 3), "image_shape": (4, 4), "batch_norm": True, "classes": 3},
}
each_model = pytest.mark.parametrize("kind", MODELS)


def trainer_on(backend: str, kind: str = "dense", **options) -> Trainer:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (120, 16), dtype=np.uint8), rng.integers(0, 3, 120)
    dataset = Dataset("pixels", x[:100], x[100:], y[:100], y[100:], scale=1 / 255, image_shape=(4, 4))
    config = Config(data="p.npy", backend=backend, batch_size=16, dtype="float64", **options).resolved(100)
    model = tinyvae.VAE(16, (5,), 2, backend=backend, kernels="reference", dtype="float64", **MODELS[kind])
    return Trainer(model, dataset, config, Silent())


@each_model
@pytest.mark.parametrize("objective", [{"free_bits": 0.1}, {"objective": "iwae", "importance": 3}], ids=str)
def test_a_training_epoch_copies_one_order_in_and_one_ring_of_losses_out(fake_cupy, kind, objective) -> None:
    trainer = trainer_on("cupy", kind, epochs=1, clip_norm=1.0, accumulate=2, binarize="dynamic", **objective)
    fake_cupy.reset_copies()
    assert trainer._epoch(lambda: False)
    assert fake_cupy.device_copies == 1  # the order of the rows
    assert fake_cupy.host_copies == 1  # the losses of the 7 steps, read at the end of the epoch


@each_model
@pytest.mark.parametrize("objective", [{}, {"objective": "iwae", "importance": 3}], ids=str)
def test_training_moves_the_parameters_as_on_numpy_given_the_same_noise(
    fake_cupy, monkeypatch, kind, objective
) -> None:
    """The two backends draw different noise, so both are given the same one here."""
    on_device, on_host = (trainer_on(backend, kind, epochs=2, **objective) for backend in ("cupy", "numpy"))

    class Replayed:
        def __init__(self, wrap) -> None:
            self.rng, self.wrap = np.random.default_rng(7), wrap

        def standard_normal(self, out, dtype) -> None:
            out[...] = self.wrap(self.rng.standard_normal(out.shape))

    for trainer, wrap in [(on_device, fake_cupy.asarray), (on_host, np.asarray)]:
        shared = Replayed(wrap)
        monkeypatch.setattr(type(trainer.model.backend), "generator", lambda self, *key, shared=shared: shared)
        trainer.run()
    moved = fake_cupy.asnumpy(on_device.model.params.flat)
    # where memory lies may move the last bits of a sum, and Adam divides a small gradient by a small root
    np.testing.assert_allclose(moved, on_host.model.params.flat, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "more", [[], ["--conv", "2", "--batch-norm", "--conditional"], ["--objective", "iwae", "--conditional"]], ids=str
)
def test_a_run_is_trained_resumed_evaluated_and_used_on_the_device(
    fake_cupy, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
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


def test_a_checkpoint_of_the_device_loads_on_the_host(fake_cupy, tmp_path: Path) -> None:
    model = tinyvae.VAE(4, (3,), 2, backend="cupy", seed=3)
    tinyvae.save(model, tmp_path / "model.safetensors")
    again = tinyvae.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.params.flat, fake_cupy.asnumpy(model.params.flat))


def test_a_nan_on_the_device_is_found_with_its_step_though_it_is_looked_for_later(fake_cupy) -> None:
    trainer = trainer_on("cupy", epochs=1)
    original, calls = trainer.model.forward_backward, iter(range(1, 99))

    def spoiled(*args):
        losses = original(*args)
        if next(calls) == 3:
            trainer.model.grads["decoder.0.bias"][0] = float("nan")
        return losses

    trainer.model.forward_backward = spoiled  # type: ignore[method-assign]  # the planted fault
    with pytest.raises(tinyvae.NonFiniteError, match="epoch 1, batch 3: "):
        trainer.run()

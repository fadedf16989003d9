"""Trainer and command with the captured step, on the stand-in: resumed bit for bit, and what is said of a NaN."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest
from fake_cupy import FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture
from strategies import sampled
from trained import BATCHES, captured, heard, parameters
from training_runs import final_state, stop_after

import tinyvae
from tinyvae.backend import to_host
from tinyvae.commands import main
from tinyvae.ops.adam import step_and_epsilon
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training import streams
from tinyvae.training.engine import Engine, RunState
from tinyvae.training.graph_step import GraphStep


def test_captured_training_lowers_the_loss_on_the_rows_it_has_not_seen(fake_cupy: FakeCupy) -> None:
    trainer = captured(epochs=30, lr=1e-2)
    assert trainer.graph_step is not None
    assert trainer.run()
    rows = heard(trainer).rows
    assert rows[-1].valid_loss < rows[0].valid_loss - 0.1
    assert rows[-1].train_loss < rows[0].train_loss - 0.1
    assert heard(trainer).updates == list(range(1, 30 * BATCHES + 1))
    assert fake_cuda.clock.launches.count("finish_step") == 30 * BATCHES + 1  # and the warm-up's


def test_captured_training_moves_the_parameters_as_the_loop_given_the_same_noise(
    fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_against_the_loop(fake_cupy, monkeypatch)


def check_against_the_loop(fake: FakeCupy, patch: pytest.MonkeyPatch) -> None:
    """The loop draws its noise from what the captured step left in its buffers."""
    options = {"epochs": 2, "lr": 1e-2, "lr_schedule": "cosine", "beta_warmup": 1, "free_bits": 0.05}
    graph, loop = captured(**options), captured(**options)
    step, loop.graph_step = graph.graph_step, None
    assert step is not None
    head = next(arguments for name, arguments in step.launches if name == "head_forward")
    noise: list[np.ndarray] = []

    def batch(state: RunState, loss: float) -> None:
        step.stream.synchronize()
        noise.append(head["eps"]._host.copy())

    class Replayed:
        def standard_normal(self, out: Any, dtype: Any) -> None:
            out[...] = fake.asarray(noise.pop(0)[: out.shape[0]])

    heard(graph).batch = batch  # type: ignore[method-assign]  # a listener that looks on
    graph.run()
    assert len(noise) == 2 * BATCHES
    patch.setattr(loop, "measure", lambda: graph.measure())  # without drawing noise
    patch.setattr(type(loop.model.backend), "generator", lambda self, *key: Replayed())
    while not loop.finished():
        list(loop._epoch())
        loop.state.epoch, loop.state.batch, loop.state.rows = loop.state.epoch + 1, 0, 0
    moved, expected = (fake.asnumpy(trainer.model.params.flat) for trainer in (graph, loop))
    # 14 steps of at most 1e-2; a gradient of float32's rounding in size may have another sign in one of them
    np.testing.assert_allclose(moved, expected, atol=2e-4)


def test_a_loop_over_updates_finds_every_loss_counted_in(fake_cupy: FakeCupy) -> None:
    """What is saved between two updates has the sums of all batches so far, and each loss once."""
    at_once, one_by_one = captured(epochs=2), captured(epochs=2)
    at_once.run()
    sums = []
    for row in one_by_one.going(waits=True):
        assert math.isfinite(one_by_one.last_loss)
        if row is None:
            sums.append(one_by_one.state.sums[0])
            assert sums[-1] > (sums[-2] if one_by_one.state.batch > 1 else 0)
        else:
            heard(one_by_one).epoch(row)
    assert len(sums) == 2 * (BATCHES - 1)
    losses = [[row.train_loss for row in heard(trainer).rows] for trainer in (at_once, one_by_one)]
    assert losses[0] == losses[1]
    assert parameters(at_once).tobytes() == parameters(one_by_one).tobytes()


@pytest.mark.parametrize("options", [{"clip_norm": 0.5}, {"accumulate": 2}], ids=["clip_norm", "accumulate"])
def test_what_the_captured_step_does_not_cover_is_trained_by_the_loop_with_the_fused_kernels(
    fake_cupy: FakeCupy, options: dict[str, Any]
) -> None:
    trainer = captured(epochs=20, lr=2e-2, **options)
    assert (trainer.model.kernels_name, trainer.graph_step) == ("cuda", None)
    trainer.run()
    rows = heard(trainer).rows
    assert rows[-1].valid_loss < rows[0].valid_loss - 0.1
    assert "finish_step" not in fake_cuda.clock.launches


def step_of(trainer: Engine) -> GraphStep:
    assert trainer.graph_step is not None
    return trainer.graph_step


def test_a_captured_epoch_copies_three_tables_in_and_the_losses_out(fake_cupy: FakeCupy) -> None:
    trainer = captured(epochs=3, binarize="dynamic")
    list(trainer._graph_epoch(step_of(trainer), waits=False))
    trainer._close_epoch()
    fake_cupy.reset_copies()
    fake_cuda.clock.synchronizations = 0
    list(trainer._graph_epoch(step_of(trainer), waits=False))
    assert fake_cupy.device_copies == 3  # the order, the schedule, the state
    assert fake_cupy.host_copies == 2  # the losses of the 7 steps, and whether all parameters are finite
    assert fake_cuda.clock.synchronizations == 2  # at the end, and for the losses, when nothing is under way any more


def test_after_an_epoch_the_evaluation_sees_its_parameters(fake_cupy: FakeCupy) -> None:
    trainer = captured(epochs=2)
    trainer.run()
    assert heard(trainer).rows[-1].valid_loss == trainer.measure().loss
    assert heard(trainer).rows[-1].valid_loss != heard(trainer).rows[0].valid_loss


def test_the_epochs_mean_loss_is_over_rows(fake_cupy: FakeCupy) -> None:
    trainer = captured(epochs=1)
    trainer.run()
    assert trainer.graph_step is not None
    losses = trainer.graph_step.losses().astype(float)[:, 0]
    assert math.isclose(heard(trainer).rows[0].train_loss, (16 * losses[:6].sum() + 4 * losses[6]) / 100, rel_tol=1e-12)
    assert trainer.last_loss == losses[6]


def test_the_schedule_is_what_the_loop_would_use(fake_cupy: FakeCupy) -> None:
    check_schedule()


def check_schedule() -> None:
    trainer = captured(epochs=3, lr=0.1, lr_schedule="cosine", beta=2.0, beta_warmup=2)
    trainer.state.epoch, trainer.state.batch, trainer.state.updates = 1, 3, BATCHES + 3
    schedule = trainer._schedule(trainer.train_batches.sizes())
    assert schedule.shape == (BATCHES, 4)
    for i, row in enumerate(schedule.tolist()):
        trainer.state.updates = BATCHES + i
        assert row == [
            *trainer.objective_now().numbers(),
            *step_and_epsilon(BATCHES + i + 1, trainer.lr_after(trainer.state.updates)),
            1 / (16 if i < 6 else 4),
        ]


def test_each_epoch_has_noise_of_its_own(fake_cupy: FakeCupy) -> None:
    check_noise_of_epochs()


def check_noise_of_epochs() -> None:
    trainer, seen = captured(epochs=3), []
    assert trainer.graph_step is not None
    head = next(arguments for name, arguments in trainer.graph_step.launches if name == "head_forward")
    for _ in range(3):
        list(trainer._graph_epoch(step_of(trainer), waits=False))
        seen.append(head["eps"]._host.copy())
        trainer._close_epoch()
    assert not np.isin(seen[1], seen[0]).any()
    assert not np.isin(seen[2], seen[0]).any()


@pytest.mark.parametrize("updates", [1, 3, 6, 7, 9])
def test_a_captured_run_stopped_anywhere_and_gone_on_with_is_the_same_run(fake_cupy: FakeCupy, updates: int) -> None:
    check_stop_and_go(updates)


def check_stop_and_go(updates: int) -> None:
    options = {"epochs": 2, "binarize": "dynamic", "lr_schedule": "cosine", "beta_warmup": 1}
    whole, stopped, resumed = (captured(**options) for _ in range(3))
    whole.run()
    asked = iter(range(1, 99))
    assert not stopped.run(stop=lambda: next(asked) >= updates)
    assert stopped.state.updates == updates
    resumed.model.params.flat[...] = stopped.model.params.flat
    resumed.m[...], resumed.v[...] = stopped.m, stopped.v
    resumed.restore(RunState(**json.loads(json.dumps(stopped.state.to_dict()))))
    resumed.run()
    assert parameters(resumed).tobytes() == parameters(whole).tobytes()
    without_time = [{**vars(row), "seconds": 0} for trainer in (resumed, whole) for row in heard(trainer).rows[-1:]]
    assert without_time[0] == without_time[1]


VARIANTS = {
    "plain": [],
    "dynamic binarization, tied": ["--binarize", "dynamic", "--tied", "--free-bits", "0.1"],
    "learned sigma, cosine, warm-up": [
        *("--likelihood", "gaussian", "--sigma", "learned", "--lr-schedule", "cosine", "--beta-warmup", "2"),
    ],
    "predicted sigma, TF32": ["--likelihood", "gaussian", "--sigma", "predicted", "--tf32"],
    "clipping": ["--clip-norm", "1"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_captured_run_is_resumed_from_its_checkpoint_bit_for_bit(
    fake_cupy: FakeCupy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).uniform(0, 1, (60, 9)))  # float64: narrowed when it is loaded
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    small = ["--hidden", "6", "--latent", "2", "--batch-size", "12", "--epochs", "3", "--backend", "cupy"]
    options = ["train", "--data", str(tmp_path / "x.npy"), *small, "--no-figures", "--quiet", *VARIANTS[variant]]
    assert main([*options, "--out", str(whole)]) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        assert main([*options, "--out", str(parts)]) == 130
    assert checkpoints.read_last(parts)[0].run["state"]["updates"] == 7
    assert main(["train", "--resume", str(parts), "--no-figures", "--quiet"]) == 0
    assert final_state(parts) == final_state(whole)
    config = json.loads((whole / "config.json").read_text())
    assert (config["backend"], config["kernels"], config["tf32"]) == ("cupy", "cuda", "--tf32" in options)


def spoil_update(trainer: Engine, at: int) -> None:
    """Adam's step is infinite once: what it moved is NaN or infinite afterwards."""
    original = trainer._schedule

    def wrong(sizes: list[int]) -> np.ndarray:
        schedule = original(sizes)
        schedule[at - 1, 1] = np.inf
        return schedule

    trainer._schedule = wrong  # type: ignore[method-assign]  # the planted fault


def test_a_captured_run_that_diverges_names_epoch_batch_and_parameter(fake_cupy: FakeCupy) -> None:
    trainer = captured(epochs=2)
    spoil_update(trainer, at=2)
    with pytest.raises(tinyvae.NonFiniteError, match="epoch 1, batch 3: the loss is nan and the parameter encoder"):
        trainer.run()
    with pytest.raises(tinyvae.NonFiniteError):
        trainer.check_finite()


def test_the_last_update_of_an_epoch_is_looked_at_too(fake_cupy: FakeCupy) -> None:
    """Its loss was taken before it moved anything."""
    trainer = captured(epochs=2)
    spoil_update(trainer, at=BATCHES)
    with pytest.raises(tinyvae.NonFiniteError, match=r"epoch 1, batch 7: the loss is \d.* and the parameter"):
        trainer.run()


def test_a_loss_that_is_not_finite_with_finite_parameters_says_so(fake_cupy: FakeCupy) -> None:
    trainer = captured(epochs=1)
    assert trainer.graph_step is not None
    losses = trainer.graph_step.losses
    trainer.graph_step.losses = lambda: losses() * np.array([[np.inf, 1, 1]], "f4")  # type: ignore[method-assign]  # the planted fault
    with pytest.raises(tinyvae.NonFiniteError, match="epoch 1, batch 1: the loss is inf and every parameter is finite"):
        trainer.run()


# --------------------------------------------------------------------------------------------------------- planted bugs


def _one_key(patch: pytest.MonkeyPatch) -> None:
    key = streams.key
    patch.setattr(streams, "key", lambda seed, purpose, epoch: key(seed, purpose, 1))


def _late_schedule(patch: pytest.MonkeyPatch) -> None:
    schedule = Engine._schedule
    patch.setattr(Engine, "_schedule", lambda self, sizes: np.roll(schedule(self, sizes), 1, axis=0))


def _resumed_from_batch_0(patch: pytest.MonkeyPatch) -> None:
    begin = GraphStep.begin_epoch
    patch.setattr(
        GraphStep, "begin_epoch", lambda self, order, key, schedule, first: begin(self, order, key, schedule, 0)
    )


def _schedule_from_the_middle(patch: pytest.MonkeyPatch) -> None:
    """As if the batches of this epoch that were done before had not made updates."""
    schedule = Engine._schedule

    def wrong(self: Engine, sizes: list[int]) -> np.ndarray:
        self.state.updates += self.state.batch
        result = schedule(self, sizes)
        self.state.updates -= self.state.batch
        return result

    patch.setattr(Engine, "_schedule", wrong)


BUGS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[..., None], tuple[Any, ...]]] = {
    "every epoch has the first one's key": (_one_key, check_noise_of_epochs, ()),
    "the schedule is off by one": (_late_schedule, check_schedule, ()),
    "a resumed epoch begins at batch 0": (_resumed_from_batch_0, check_stop_and_go, (3,)),
    "a resumed epoch's schedule begins where it was stopped": (_schedule_from_the_middle, check_stop_and_go, (3,)),
}


@pytest.mark.parametrize("name", sampled(BUGS, 3))
def test_a_planted_bug_is_found(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plant, killer, arguments = BUGS[name]
    killer(*arguments)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        killer(*arguments)


def test_the_steps_are_over_when_an_exception_leaves_an_epoch(fake_cupy: FakeCupy) -> None:
    """Or the steps still under way would change the parameters under whoever reads them next."""
    trainer = captured()
    assert trainer.graph_step is not None
    waits: list[int] = []
    trainer.graph_step.wait = lambda: waits.append(trainer.state.batch)

    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(stop=interrupt)
    assert set(waits) == {1}


def test_dynamic_binarization_of_the_test_set_draws_every_pixel_by_itself(fake_cupy: FakeCupy) -> None:
    """CuPy's `random` fills all of `out` with one number unless it is told a size."""
    trainer = captured(binarize="dynamic")
    for x, *_ in trainer.valid_batches.in_order(0):
        u = to_host(trainer.valid_batches.u[: len(x)])
        assert len(np.unique(u)) > u.size / 2

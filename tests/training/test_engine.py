"""The training loop: schedules, accumulation, clipping, and what it refuses to go on with."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from training_runs import LATENT, ROWS, Recorder, make, recorded

import tinyvae
from tinyvae.errors import NonFiniteError
from tinyvae.objectives import objective as objective_named
from tinyvae.training import engine as engines
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset
from tinyvae.training.engine import Engine, RunState


def test_training_lowers_the_loss() -> None:
    trainer = make(epochs=60, lr=0.01)
    assert trainer.run()
    rows = recorded(trainer).rows
    assert [row.epoch for row in rows] == list(range(1, 61))
    assert rows[-1].train_loss < 0.9 * rows[0].train_loss
    assert trainer.state.updates == 60 * 4  # 50 rows in batches of 16, 16, 16 and 2


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first, second, other = make(), make(), make(seed=1)
    for trainer in (first, second, other):
        trainer.run()
    assert first.model.params.flat.tobytes() == second.model.params.flat.tobytes()
    assert first.model.params.flat.tobytes() != other.model.params.flat.tobytes()


def test_the_epoch_means_are_those_of_the_rows_and_not_of_the_batches() -> None:
    """With lr -> 0 the parameters stand still, so the mean over an epoch is the loss of the whole set."""
    trainer = make(lr=1e-300, epochs=1, dtype="float64")
    model, batches = trainer.model, trainer.train_batches
    model.start_at(trainer.dataset.values(trainer.dataset.x_train))  # as `run` does
    rows = [model.rows_loss(x.copy(), eps.copy()) for x, eps, _ in batches.shuffled(seed=0, epoch=1)]
    nll = np.concatenate([nll for nll, _ in rows])
    kl = np.concatenate([kl.sum(axis=1) for _, kl in rows])
    assert len(nll) == ROWS
    trainer.run()
    row = recorded(trainer).rows[0]
    assert math.isclose(row.train_nll, nll.mean(), rel_tol=1e-13)  # sums of 50 float64: 50 * 1.1e-16 at most
    assert math.isclose(row.train_kl, kl.mean(), rel_tol=1e-13)
    assert math.isclose(row.train_loss, nll.mean() + kl.mean(), rel_tol=1e-13)


def test_accumulating_two_batches_is_one_batch_of_twice_the_rows() -> None:
    """The last group of each epoch is ragged (16 + 2 rows): rows are weighted, not batches."""
    two = make(accumulate=2, batch_size=16, dtype="float64", epochs=2)
    one = make(accumulate=1, batch_size=32, dtype="float64", epochs=2)
    two.run()
    one.run()
    assert two.state.updates == one.state.updates == 4
    # the gradients agree to about 1e-16; Adam divides by |g| + 1e-8, so its steps of lr = 1e-3 agree to 1e-3 * 1e-8
    np.testing.assert_allclose(two.model.params.flat, one.model.params.flat, rtol=0, atol=1e-10)


def test_clipping_bounds_the_gradient_that_adam_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(clip_norm=0.01, epochs=1)
    seen = []
    update = trainer.adam.update

    def spy(k, g, *args):
        update(k, g, *args)
        seen.append(float(np.linalg.norm(g)))  # clipped in place

    monkeypatch.setattr(trainer.adam, "update", spy)
    trainer.run()
    assert len(seen) == 4
    assert all(norm <= 0.01 * (1 + 1e-6) for norm in seen)  # float32: a relative rounding of 6e-8 in each product


def test_beta_rises_in_a_straight_line_over_the_warm_up() -> None:
    trainer = make(beta=2.0, beta_warmup=2)  # 2 epochs of 4 updates
    betas = []
    for updates in (0, 2, 4, 8, 9):
        trainer.state.updates = updates
        betas.append(trainer.objective_now().numbers()[0])
    assert betas == [0.0, 0.5, 1.0, 2.0, 2.0]
    assert make(beta=2.0).objective_now().numbers() == (2.0,)


def test_the_cosine_ends_at_zero_and_the_constant_stays() -> None:
    trainer = make(lr=0.5, lr_schedule="cosine")  # 3 epochs of 4 updates
    rates = []
    for updates in (0, 6, 12):
        rates.append(trainer.lr_after(updates))
    assert rates == [0.5, 0.25, 0.0]
    assert make(lr=0.5).lr_after(7) == 0.5


def test_free_bits_and_beta_reach_the_loss() -> None:
    """With every dimension below its allowance the charge is beta * latent * free_bits, whatever the KL."""
    trainer = make(free_bits=100.0, beta=3.0, epochs=1, dtype="float64")
    trainer.run()
    row = recorded(trainer).rows[0]
    assert math.isclose(row.train_loss, row.train_nll + 3.0 * LATENT * 100.0, rel_tol=1e-12)
    assert math.isclose(row.valid_loss, row.valid_nll + 3.0 * row.valid_kl, rel_tol=1e-12)  # measured without free bits


def test_patience_stops_after_so_many_epochs_without_a_better_validation_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(epochs=50, patience=3)
    losses = iter([5.0, 4.0, 4.5, 4.0, 4.1, 3.0])
    evaluation = engines.Evaluation(0, 1.0, 1.0, 2)
    monkeypatch.setattr(trainer, "measure", lambda: replace(evaluation, loss=next(losses)))
    assert trainer.run()
    assert trainer.state.epoch == 5  # the best is epoch 2; an equal loss is no better one
    assert trainer.state.best_epoch == 2
    assert trainer.finished()


def test_the_best_parameters_are_those_of_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(epochs=3)
    losses = iter([5.0, 4.0, 4.5])
    snapshots = []

    def evaluate() -> engines.Evaluation:
        snapshots.append(trainer.model.params.flat.copy())
        return engines.Evaluation(next(losses), 1.0, 1.0, 2)

    monkeypatch.setattr(trainer, "measure", evaluate)
    trainer.run()
    np.testing.assert_array_equal(trainer.best_params, snapshots[1])


def test_stopping_is_asked_after_every_update_and_keeps_the_place() -> None:
    trainer = make()
    asked = iter([False, False, True])
    assert not trainer.run(stop=lambda: next(asked))
    assert (trainer.state.epoch, trainer.state.batch, trainer.state.updates, trainer.state.rows) == (0, 3, 3, 48)


def test_a_stop_brings_home_the_losses_that_were_not_looked_at_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the losses are read every 64 steps; here the same on NumPy, stopped after 3."""
    at_once = make()
    asked = iter([False, False, True])
    assert not at_once.run(stop=lambda: next(asked))
    monkeypatch.setitem(engines.RING, "numpy", 64)
    later = make()
    asked = iter([False, False, True])
    assert not later.run(stop=lambda: next(asked))
    assert later.state == at_once.state


def test_a_stop_waits_for_the_whole_group_of_accumulated_batches() -> None:
    trainer = make(accumulate=3, epochs=2)  # groups of 3 batches and 1
    assert not trainer.run(stop=lambda: True)
    assert (trainer.state.batch, trainer.state.updates) == (3, 1)


# ---------------------------------------------------------------------------------------------------- where it begins


def counted(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The data of each call of `start_at`."""
    seen: list[np.ndarray] = []
    truth = tinyvae.VAE.start_at

    def watched(self: tinyvae.VAE, x: np.ndarray) -> None:
        seen.append(x)
        truth(self, x)

    monkeypatch.setattr(tinyvae.VAE, "start_at", watched)
    return seen


def test_a_fresh_run_begins_where_the_likelihood_says_and_a_resumed_one_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = counted(monkeypatch)
    trainer = make()
    asked = iter([False, True])
    assert not trainer.run(stop=lambda: next(asked))
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0], trainer.dataset.values(trainer.dataset.x_train))
    assert trainer.run()  # the same process goes on
    assert len(seen) == 1
    again = make()
    again.model.params.flat[...] = trainer.model.params.flat
    again.restore(RunState(epoch=1, updates=4))
    again.run()
    assert len(seen) == 1


def test_a_start_at_every_run_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = Engine.run

    def begins_anew(self: Engine, stop: Any = lambda: False) -> bool:
        self.model.start_at(self.dataset.values(self.dataset.x_train))
        return truth(self, stop)

    monkeypatch.setattr(Engine, "run", begins_anew)
    with pytest.raises(AssertionError):
        test_a_fresh_run_begins_where_the_likelihood_says_and_a_resumed_one_where_it_was(monkeypatch)


def test_no_more_rows_than_enough_say_where_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "START_ROWS", 7)
    seen = counted(monkeypatch)
    make(epochs=1).run()
    assert [len(x) for x in seen] == [7]


def test_counts_of_thousands_begin_at_their_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a rate of 1 the first gradient would be some thousands for each number, and Adam's steps are 1e-3 each."""
    rng = np.random.default_rng(0)
    x = rng.poisson([3.0, 500.0, 20_000.0], (60, 3)).astype(np.float32)
    dataset = Dataset("counts", x[:50], x_valid=x[50:])
    config = Config(data="x.npy", backend="numpy", epochs=1, batch_size=10, lr=1e-6).resolved(50)

    def trained() -> tuple[tinyvae.VAE, float]:
        model = tinyvae.VAE(3, (4,), 1, likelihood="poisson", kernels="numpy")
        trainer = Engine(model, dataset, config, Recorder())
        trainer.run()
        return model, recorded(trainer).rows[0].valid_nll

    model, nll = trained()
    monkeypatch.setattr(tinyvae.VAE, "start_at", lambda self, x: None)
    _, without = trained()
    assert nll < without / 1000
    rates = model.decode(np.zeros((1, 1)))[0]
    np.testing.assert_allclose(rates, x[:50].mean(axis=0), rtol=0.15)  # half a count more, and weights that begin small


# ---------------------------------------------------------------------------------------------------------- objectives


@pytest.mark.parametrize("objective", ["elbo:draws=3", "iwae:draws=3", "iwae:draws=3,estimator=dreg", "beta-tc"])
def test_every_objective_trains(objective: str) -> None:
    trainer = make(epochs=100, lr=0.01, objective=objective)
    assert trainer.run()
    rows = recorded(trainer).rows
    assert rows[-1].train_loss < rows[0].train_loss
    assert rows[-1].train_nll < 0.9 * rows[0].train_nll


def test_an_objective_knows_how_many_rows_there_are() -> None:
    assert make(objective="beta-tc").objective == objective_named(f"beta-tc:rows={ROWS}")


def test_an_objective_that_does_not_suit_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match="batch normalization"):
        make(objective="iwae:estimator=dreg", model={"batch_norm": True})


# ------------------------------------------------------------------------------------------------- non-finite values


def spoil_gradient(trainer: Engine, name: str, value: float, at: int) -> None:
    original, calls = trainer.model.step, iter(range(1, 10_000))

    def spoiled(*args):
        losses = original(*args)
        if next(calls) == at:
            trainer.model.grads[name].flat[0] = value
        return losses

    trainer.model.step = spoiled  # type: ignore[method-assign]  # the planted fault


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["encoder.0.weight", "decoder.1.bias"])
def test_a_bad_gradient_stops_before_adam_and_is_named_with_its_step(value: float, name: str) -> None:
    trainer = make()
    spoil_gradient(trainer, name, value, at=6)  # the second batch of the second epoch
    with pytest.raises(NonFiniteError, match=rf"epoch 2, batch 2: .* the gradient {name} holds NaN or infinite"):
        trainer.run()
    assert trainer.state.updates == 5
    assert np.isfinite(trainer.model.params.flat).all()


def test_a_bad_parameter_is_named() -> None:
    trainer = make()
    trainer.model.params["decoder.0.weight"][0, 0] = math.nan
    with pytest.raises(NonFiniteError, match=r"epoch 1, batch 1: .* the parameter decoder\.0\.weight holds NaN"):
        trainer.run()


def test_a_gradient_too_large_to_be_squared_stops_before_adam_and_is_named() -> None:
    """Adam squares every number: from 1.8e19 on that overflows float32, and the parameter would never move again."""
    trainer = make(epochs=1)
    spoil_gradient(trainer, "encoder.0.weight", 1e25, at=1)
    with (
        np.errstate(over="ignore"),
        pytest.raises(NonFiniteError, match=r"gradient encoder\.0\.weight reaches 1\.0e\+25"),
    ):
        trainer.run()
    assert trainer.state.updates == 0


def test_no_state_with_a_nan_passes_the_check_before_a_save() -> None:
    trainer = make()
    trainer.check_finite()
    trainer.v[3] = math.inf
    with pytest.raises(NonFiniteError, match="Adam's v"):
        trainer.check_finite()


def test_a_step_size_that_is_far_too_large_ends_in_one_clear_error() -> None:
    with pytest.raises(NonFiniteError, match="try a smaller --lr"):
        make(lr=1e30, epochs=20).run()

"""A model that knows where its columns lie, beside the same model on data that was brought there by hand."""

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
from hypothesis import given
from hypothesis import strategies as st
from planted import Plant, assert_killed, instead
from scipy import integrate
from strategies import SEEDS, assert_within, eps_of

import tinyvae
from tinyvae.likelihoods import likelihood
from tinyvae.model.standard import Standard
from tinyvae.objectives.iwae import IWAE

ROWS, DATA, LATENT = 7, small_models.DATA, small_models.LATENT
KINDS = ("gaussian, learned", "gaussian, columns", "gaussian, predicted", "laplace", "mixed")
MEAN, STD = np.array([3.0, -40.0, 0.5, 1e3, 7.0, 0.0]), np.array([2.0, 0.1, 30.0, 5.0, 0.7, 1.0])


# ------------------------------------------------------------------------------------------------------------- moments


@given(seed=SEEDS, rows=st.integers(1, 40), size=st.integers(1, 40), gaps=st.sampled_from([0.0, 0.3, 0.9]))
def test_moments_are_numpys_whatever_the_chunks_are(seed: int, rows: int, size: int, gaps: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal([0, 5, 1e7, -300], [1, 0.01, 2, 50], (rows, 4))
    x[rng.random(x.shape) < gaps] = np.nan
    found = Standard.of((x[at : at + size] for at in range(0, rows, size)), np.full(4, True))
    for j in range(4):
        seen = x[~np.isnan(x[:, j]), j]
        if len(seen) == 0:
            assert (found.mean[j], found.std[j]) == (0, 1)
            continue
        # each number is rounded once, and each sum a few times a row, relative to the largest of them
        bound = 4 * (rows + 4) * eps_of("float64") * np.abs(seen).max()
        assert_within(found.mean[j], seen.mean(), bound)
        if (seen == seen[0]).all():
            assert found.std[j] == 1
        else:
            assert_within(found.std[j], seen.std(), bound)


def test_columns_near_1e7_keep_their_digits_in_float64() -> None:
    off = np.random.default_rng(0).standard_normal((3000, 2))
    off = np.round(off * 2**20) / 2**20  # so that 1e7 + off has all of it
    found = Standard.of([1e7 + off[:1000], 1e7 + off[1000:]], np.array([True, True]))
    assert_within(found.std, off.std(axis=0), 1e-9)  # of squares 1e14 apart nothing would be left
    u = found.inward((1e7 + off).astype("float64"))
    # a mean of chunks of 1,000 rows: each sum of numbers of 1e7 is rounded once a row
    assert_within(u, (off - off.mean(axis=0)) / off.std(axis=0), 1004 * eps_of("float64") * 1e7)


@given(seed=SEEDS)
def test_inward_and_outward_undo_each_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    standard = Standard(rng.normal(0, 1e3, 4), rng.lognormal(0, 2, 4))
    x = rng.normal(0, 1e3, (5, 4))
    bound = 4 * eps_of("float64") * (np.abs(x) + np.abs(standard.mean))
    assert_within(standard.outward(standard.inward(x)), x, bound)


def test_columns_that_never_change_and_those_that_are_not_real_stay_as_they_are() -> None:
    x = np.array([[0.1, 5, 1e9], [0.1, 7, 1e9], [0.1, 9, 1e9]])
    found = Standard.of([x], np.array([True, False, True]))
    assert found.mean.tolist() == [pytest.approx(0.1), 0, 1e9]
    assert found.std.tolist() == [1, 1, 1]


def test_what_no_column_can_have_is_refused() -> None:
    for mean, std in [([0.0], [0.0]), ([0.0], [-1.0]), ([np.nan], [1.0]), ([0.0], [np.inf]), ([0.0, 1.0], [1.0])]:
        with pytest.raises(ValueError, match="mean and std must be"):
            Standard(np.array(mean), np.array(std))
    with pytest.raises(ValueError, match=r"column 1 .* beyond float64"):
        Standard.of([np.array([[1.0, 1e200], [2.0, -1e200]])], np.array([True, True]))
    Standard.of([np.array([[1.0, 1e200], [2.0, -1e200]])], np.array([True, False]))  # that is not asked


def test_a_mixed_likelihood_has_its_real_columns_alone() -> None:
    mixed = likelihood("mixed:columns=bernoulli*1+gaussian*2+categorical*3+poisson*1+laplace")
    assert mixed.real(9).tolist() == [False, True, True, False, False, False, False, True, True]


@pytest.mark.parametrize(
    ("name", "real"),
    [("gaussian", True), ("laplace", True), ("gaussian:sigma=fixed:2", False), ("laplace:scale=fixed:2", False),
     ("bernoulli", False), ("poisson", False), ("negative-binomial", False), ("continuous-bernoulli", False),
     ("discretized-logistic", False)],
)  # fmt: skip
def test_what_a_likelihood_takes_as_real(name: str, real: bool) -> None:
    assert likelihood(name).real(2).tolist() == [real, real]


# --------------------------------------------------------------------------------------- each method, changed by hand


class Pair:
    """A model with `standard`, the same without it, and rows for both: x, and u = (x - mean) / std."""

    def __init__(self, kind: str, missing: bool = True, **options: Any) -> None:
        self.within = small_models.make(kind, kernels="numpy", **options)
        self.model = copy.deepcopy(self.within)
        real = self.within.likelihood.real(DATA)
        self.mean, self.std = np.where(real, MEAN, 0.0), np.where(real, STD, 1.0)
        self.model.standard = Standard(self.mean, self.std)
        rng = np.random.default_rng(5)
        u = small_models.data_of(self.within, ROWS)
        if missing:
            whole = np.isin(np.arange(DATA), [1, 2, 3]) if kind == "mixed" else np.full(DATA, False)  # one-hot groups
            u[(rng.random(u.shape) < 0.3) & ~whole] = np.nan
        self.x = self.mean + self.std * u
        self.u = (self.x - self.mean) / self.std  # what rounding left of u
        self.eps, self.z = rng.standard_normal((ROWS, LATENT)), rng.standard_normal((ROWS, LATENT))
        self.lost = np.where(np.isnan(u), 0, np.log(self.std)).sum(axis=1)  # (rows,): sum_j log std_j, observed alone

    def out(self, u: Any) -> np.ndarray:
        return self.mean + self.std * np.asarray(u)


def near(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)


def codes_and_samples(kind: str) -> None:
    p = Pair(kind)
    near(p.model.encode(p.x), p.within.encode(p.u))
    near(p.model.decode(p.z), p.out(p.within.decode(p.z)))
    near(p.model.draw(p.z, 3), p.out(p.within.draw(p.z, 3)))
    near(p.model.sample(4, 3), p.out(p.within.sample(4, 3)))
    near(p.model.sample(4, 3, mean=False), p.out(p.within.sample(4, 3, mean=False)))


def losses(kind: str) -> None:
    p = Pair(kind)
    for objective in (None, IWAE(draws=3)):
        eps = p.eps if objective is None else np.random.default_rng(1).standard_normal((ROWS, 3, LATENT))
        for method in ("loss", "loss_and_grad"):
            found = getattr(p.model, method)(p.x, eps, objective=objective)
            want = getattr(p.within, method)(p.u, eps, objective=objective)
            lost = p.lost.mean()
            near(found, (want.loss + lost, want.nll + lost, want.kl))
        assert np.abs(p.within.grads.flat).max() > 1e-3
        near(p.model.grads.flat, p.within.grads.flat)


def looks(kind: str) -> None:
    p = Pair(kind)
    found, want = p.model.look(p.x, p.eps), p.within.look(p.u, p.eps)
    near(found.nll, want.nll + p.lost)
    for a, b in zip(found, want._replace(nll=want.nll + p.lost), strict=True):
        near(a, b)
    near(p.model.rows_loss(p.x, p.eps)[0], p.within.rows_loss(p.u, p.eps)[0] + p.lost)
    draws = np.random.default_rng(1).standard_normal((ROWS, 3, LATENT))
    near(p.model.look(p.x, draws).nll, p.within.look(p.u, draws).nll + np.repeat(p.lost, 3))
    near(p.model.log_p_x_given_z(p.x, p.z), p.within.log_p_x_given_z(p.u, p.z) - p.lost)


def estimates(kind: str) -> None:
    p = Pair(kind)
    found, want = (tinyvae.log_likelihood(m, x, 5, 1) for m, x in ((p.model, p.x), (p.within, p.u)))
    for a, b in zip(
        found, want._replace(log_p=want.log_p - p.lost, second_look=want.second_look - p.lost), strict=True
    ):
        near(a, b)
    nobody = np.zeros(ROWS, bool)
    found, want = found._replace(trusted=nobody), want._replace(trusted=nobody)
    better = tinyvae.repair_log_likelihood(p.model, p.x, found, 5, np.random.default_rng(2))
    truth = tinyvae.repair_log_likelihood(p.within, p.u, want, 5, np.random.default_rng(2))
    near(better.log_p, truth.log_p - p.lost)
    near(better.second_look, truth.second_look - p.lost)
    assert np.array_equal(better.trusted, truth.trusted)


def restored(kind: str) -> None:
    p = Pair(kind, missing=False)
    observed = np.random.default_rng(1).random(p.x.shape) < 0.6
    if kind == "mixed":
        observed[:, 2:4] = observed[:, 1:2]  # a group of one-hot columns is observed as one
    hidden = np.where(observed, p.x, np.nan)
    found = tinyvae.fill_in(p.model, hidden, observed, p.out(np.zeros(DATA)), 1, steps=2, chains=2)
    want = tinyvae.fill_in(p.within, p.u, observed, np.zeros(DATA), 1, steps=2, chains=2)
    for a, b in zip((found.estimate, found.draw), (want.estimate, want.draw), strict=True):
        near(a, p.out(b))
        assert np.array_equal(a[observed], p.x[observed])  # to the last digit
    near(tinyvae.denoise(p.model, p.x, 1, draws=2), p.out(tinyvae.denoise(p.within, p.u, 1, draws=2)))


def scores(kind: str) -> None:
    p = Pair(kind, missing=False)
    near(
        tinyvae.anomaly_scores(p.model, p.x, 1, samples=2), tinyvae.anomaly_scores(p.within, p.u, 1, samples=2) + p.lost
    )


METHODS = (codes_and_samples, losses, looks, estimates, restored, scores)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_speaks_in_the_units_of_the_data(method: Any, kind: str) -> None:
    method(kind)


def no_outward(self: Standard, u: Any) -> Any:
    return u


def no_missing(self: Standard, x: Any) -> Any:
    return np.full(len(x), np.log(self.std).sum())


def gained(self: Standard, x: Any) -> Any:
    return -((~np.isnan(x)) @ np.log(self.std))


PLANTED: dict[str, tuple[Plant, Any]] = {
    "means in the model's own units": (instead(Standard, "outward", no_outward), codes_and_samples),
    "estimates in the model's own units": (instead(Standard, "outward", no_outward), restored),
    "log std of numbers that were not observed": (instead(Standard, "log_std", no_missing), losses),
    "log std gained, not lost": (instead(Standard, "log_std", gained), looks),
    "log p in the model's own units": (instead(Standard, "log_std", lambda self, x: np.zeros(len(x))), estimates),
    "variance for standard deviation": (
        instead(Standard, "inward", lambda self, x: (x - self.mean) / self.std**2), codes_and_samples,
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_die(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    plant, killer = PLANTED[bug]
    assert_killed(monkeypatch, plant, lambda: killer("gaussian, learned"))


def test_rows_of_another_width_are_refused_and_never_spread() -> None:
    p = Pair("gaussian, learned", missing=False)
    for wrong in (p.x[:, :1], p.x[0], p.x[:, :4]):
        with pytest.raises(ValueError, match=r"must have shape|observed must be"):
            tinyvae.denoise(p.model, wrong, 1)
        with pytest.raises(ValueError, match=r"must have shape|observed must be"):
            tinyvae.fill_in(p.model, wrong, np.full(wrong.shape, True), 0.0, 1)
        with pytest.raises(ValueError, match="must have shape"):
            p.model.encode(wrong)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_log_p_integrates_to_1_over_x(kind: str) -> None:
    model = tinyvae.VAE(1, (3,), 1, likelihood=kind, dtype="float64", kernels="numpy", seed=1)
    model.standard = Standard(np.array([500.0]), np.array([40.0]))
    z = np.array([[0.3]])
    centre = float(model.decode(z)[0, 0])
    density = lambda x: math.exp(model.log_p_x_given_z([[x]], z)[0])
    total, _ = integrate.quad(density, centre - 4000, centre + 4000, points=[centre], limit=200)
    assert total == pytest.approx(1, abs=1e-6)


# ---------------------------------------------------------------------------------------------------- kept, and gone on


def real_rows(n: int = 60, columns: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.normal([1e7, -3, 40][:columns], [2, 0.01, 300][:columns], (n, columns))
    x[rng.random(x.shape) < 0.1] = np.nan
    return x


def tiny(likelihood: str = "gaussian", columns: int = 3, **options: Any) -> tinyvae.VAE:
    return tinyvae.VAE(columns, (4,), 2, likelihood=likelihood, kernels="numpy", **options)


def test_copies_pickles_and_files_keep_it(tmp_path: Path) -> None:
    model, x = tiny(), real_rows()
    tinyvae.fit(model, x, epochs=1, progress=False)
    assert model.standard is not None
    np.testing.assert_allclose(model.standard.mean, np.nanmean(x, axis=0), rtol=1e-12)
    np.testing.assert_allclose(model.standard.std, np.nanstd(x, axis=0), rtol=1e-9)
    tinyvae.save(model, tmp_path / "m.safetensors")
    want = model.sample(3, 1)
    assert want.dtype == np.float64
    assert np.abs(want[:, 0] - 1e7).max() < 100
    copies = [copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for other in (*copies, tinyvae.load(tmp_path / "m.safetensors")):
        assert np.array_equal(other.sample(3, 1), want)
        assert np.array_equal(other.standard.mean, model.standard.mean)
        assert np.array_equal(other.standard.std, model.standard.std)


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    x, options = real_rows(), {"epochs": 3, "batch_size": 9, "valid": 0.2}
    whole, parted = tiny(), tiny()
    with tinyvae.Trainer(whole, x, run=tmp_path / "whole", **options) as trainer:
        trainer.train()
        want = [row.train_loss for row in trainer.history], [row.valid_loss for row in trainer.history]
    with tinyvae.Trainer(parted, x, run=tmp_path / "parted", **options) as trainer:
        for step in trainer.steps():
            if step.updates == 8:  # in the midst of an epoch
                break
    parted = tiny(seed=9)
    with tinyvae.Trainer(parted, x, valid=0.2, resume=tmp_path / "parted") as trainer:
        trainer.train()
        found = [row.train_loss for row in trainer.history], [row.valid_loss for row in trainer.history]
    assert found == want
    assert parted.params.flat.tobytes() == whole.params.flat.tobytes()
    assert np.array_equal(parted.standard.std, whole.standard.std)
    assert np.array_equal(parted.sample(3, 1), whole.sample(3, 1))


def test_a_model_that_was_trained_before_means_what_it_meant() -> None:
    model, x = tiny(), real_rows()
    tinyvae.fit(model, x, epochs=1, progress=False)
    before = model.standard
    tinyvae.fit(model, x[:30], epochs=1, progress=False)
    assert model.standard is before


def test_the_losses_of_a_training_are_in_the_units_of_the_data() -> None:
    x = real_rows()
    x, held = x[:40], x[40:]
    model = tiny(dtype="float64")
    with tinyvae.Trainer(model, x, valid=(held, None), epochs=1, batch_size=64, lr=1e-12) as trainer:
        (row,) = trainer
    # the model that hardly moved, on u by hand and with log std by hand; its noise is the training's own
    mean, std = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
    for rows, said, batches in (
        (x, row.train_nll, trainer.engine.train_batches.shuffled(0, 1)),
        (held, row.valid_nll, trainer.engine.valid_batches.in_order(0)),
    ):
        lost = np.where(np.isnan(rows), 0, np.log(std)).sum(axis=1).mean()
        ((u, eps, _),) = batches
        order = trainer.engine.train_batches.order(0, 1) if rows is x else np.arange(len(rows))
        np.testing.assert_allclose(u, ((rows - mean) / std)[order], rtol=1e-6, atol=1e-6)
        inside = model.plain
        assert inside.standard is None
        assert said == pytest.approx(inside.loss(u.copy(), eps.copy()).nll + lost, rel=1e-8)


@pytest.mark.parametrize(("size", "nats"), [(60, 27.5), (20, 22.1)])
def test_real_columns_of_any_size_are_learned(size: float, nats: float) -> None:
    x = size * np.random.default_rng(0).standard_normal((1000, 5))
    model = tinyvae.VAE(5, (32,), 2, likelihood="gaussian", kernels="numpy")
    tinyvae.fit(model, x, epochs=12, batch_size=50, lr=3e-3, progress=False)
    eps = np.random.default_rng(1).standard_normal((1000, 2))
    assert abs(model.loss(x, eps).loss - nats) < 0.2

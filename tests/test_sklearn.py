"""The face for scikit-learn: its own checks, and what they do not look at: units, densities, round trips, going on."""

import copy
import doctest
import functools
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from strategies import assert_within, eps_of, sampled

import tinyvae.kernels
import tinyvae.sklearn
from tinyvae import blas
from tinyvae.errors import NonFiniteError
from tinyvae.model.estimates import log_likelihood
from tinyvae.model.vae import CHUNK
from tinyvae.sklearn import VAETransformer


# Few epochs: the checks ask how the estimator behaves, not what it has learned. A Bernoulli refuses their data, which
# lie outside [0, 1].
@parametrize_with_checks(
    [VAETransformer(epochs=3), VAETransformer(epochs=2, sigma="predicted", standardize=False, kernels="numpy")]
)
def test_scikit_learns_own_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


# -------------------------------------------------------------------------------------------------------------- helpers


def correlated(rows: int, seed: int = 0) -> np.ndarray:
    """(rows, 3): one factor, three columns of very different size and place, with little noise."""
    rng = np.random.default_rng(seed)
    factor, noise = rng.standard_normal((rows, 1)), rng.standard_normal((rows, 3))
    return (factor * [1.0, -1.0, 0.5] + 0.3 * noise) * [5.0, 0.01, 300.0] + [7.0, 0.0, -1000.0]


def small(**parameters: Any) -> VAETransformer:
    """Two epochs of something small: enough where only equality matters."""
    return VAETransformer(**{"hidden": (8,), "epochs": 2, "batch_size": 16, "random_state": 0, **parameters})


def duplicate(estimator: Any) -> Any:
    """`clone`, whose stubs promise less than it does."""
    return clone(estimator)


@functools.cache
def linear() -> VAETransformer:
    """No hidden layers: p(x) is a Gaussian that can be written down, and q(z|x) can be the exact posterior."""
    parameters: dict[str, Any] = {"latent_dim": 1, "hidden": (), "epochs": 60, "learning_rate": 0.02, "batch_size": 50}
    return VAETransformer(**parameters, random_state=0).fit(correlated(500))


def gaussian_of(vae: VAETransformer) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of p(x) of a linear model: x' = z W + b + sigma noise, x = mean_ + scale_ x'."""
    params = vae.model_.params
    W, b = params["decoder.0.weight"], params["decoder.0.bias"]  # (latent, data), (data,)
    inner = W.T @ W + np.exp(params["likelihood.logvar"]) * np.eye(len(b))  # (data, data)
    return vae.mean_ + vae.scale_ * b, inner * np.outer(vae.scale_, vae.scale_)


def everything(vae: VAETransformer, X: np.ndarray) -> list[np.ndarray]:
    """All that a fitted estimator can say of X."""
    Z = vae.transform(X)
    return [Z, vae.inverse_transform(Z), vae.score_samples(X), vae.sample(5, random_state=3), vae.model_.params.flat]


def assert_same(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------------------------------------ densities, and units


def test_the_score_of_a_linear_model_is_its_gaussian_density_in_the_units_of_x() -> None:
    vae, X = linear(), correlated(200, seed=1)
    exact = multivariate_normal(*gaussian_of(vae), allow_singular=False).logpdf(X)  # pyright: ignore
    x = (X - vae.mean_) / vae.scale_
    error = log_likelihood(vae.model_, x, 100, np.random.default_rng(0)).standard_error
    assert error.max() < 0.1  # or the next line would ask for little
    assert_within(vae.score_samples(X), exact, 6 * error)
    assert vae.score(X) == vae.score_samples(X).mean()


@given(powers=st.lists(st.integers(-8, 8), min_size=3, max_size=3))
@settings(max_examples=5)
def test_scaled_columns_shift_the_log_density_by_the_logarithms_of_the_scales(powers: list[int]) -> None:
    # Powers of 2 leave the standardized rows as they are, bit for bit, and so the model
    X, c = correlated(40), 2.0 ** np.array(powers)
    plain, scaled = small().fit(X), small().fit(X * c)
    before, after = plain.score_samples(X), scaled.score_samples(X * c)
    shift = np.log(c).sum()
    terms = np.abs(before) + np.abs(after) + np.abs(np.log(plain.scale_)).sum() + np.abs(np.log(c)).sum()
    assert_within(after, before - shift, 20 * eps_of("float64") * terms)
    assert_within(scaled.loss_curve_, np.array(plain.loss_curve_) + shift, 1e-12 * (np.abs(plain.loss_curve_) + 100))
    np.testing.assert_array_equal(scaled.transform(X * c), plain.transform(X))
    Z = plain.transform(X)
    np.testing.assert_array_equal(scaled.inverse_transform(Z), plain.inverse_transform(Z) * c)


def test_samples_have_the_mean_and_covariance_of_the_density_that_score_speaks_of() -> None:
    vae, n = linear(), 20_000
    mean, covariance = gaussian_of(vae)
    X = vae.sample(n, random_state=0)
    variances = np.diag(covariance)
    assert_within(X.mean(axis=0), mean, 5 * np.sqrt(variances / n))
    # of a product of two Gaussians: var = C_ii C_jj + C_ij^2
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / n)
    assert_within(np.cov(X.T), covariance, 5 * error)


def test_repeated_calls_and_other_orders_give_the_same_scores() -> None:
    X = correlated(CHUNK + 200)  # more than are worked on at a time
    vae = small(importance_samples=3).fit(X)
    scores = vae.score_samples(X)
    np.testing.assert_array_equal(vae.score_samples(X), scores)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(vae.score_samples(X[order]), scores[order], rtol=1e-10)
    np.testing.assert_allclose(vae.score_samples(X[-5:]), scores[-5:], rtol=1e-10)


def test_more_importance_samples_bring_the_score_nearer_to_the_truth() -> None:
    X = correlated(100, seed=2)
    exact = multivariate_normal(*gaussian_of(linear())).logpdf(X).mean()  # pyright: ignore - scipy's stubs
    far, near = (abs(linear().set_params(importance_samples=k).score(X) - exact) for k in (1, 1000))
    linear().set_params(importance_samples=100)
    assert near < 0.2 * far


def test_the_decoded_transform_is_far_nearer_to_the_rows_than_their_mean() -> None:
    train, test = correlated(300), correlated(100, seed=1)
    vae = VAETransformer(latent_dim=1, hidden=(16,), epochs=150, learning_rate=0.01, random_state=0).fit(train)
    residual = (vae.inverse_transform(vae.transform(test)) - test) / train.std(axis=0)
    of_mean = (train.mean(axis=0) - test) / train.std(axis=0)
    # A share 0.09 / 1.09, and 0.09 / 0.34 of the third column, is noise; PCA leaves (0.08 + 0.08 + 0.26) / 3 = 0.14
    assert (residual**2).mean() < 0.25 * (of_mean**2).mean()


def test_a_bernoulli_is_not_scaled_and_its_scores_are_probabilities() -> None:
    X = (np.random.default_rng(0).random((60, 4)) < [0.1, 0.5, 0.9, 0.3]).astype(np.float64)
    vae = small(likelihood="bernoulli", epochs=30, importance_samples=2000).fit(X)
    np.testing.assert_array_equal((vae.mean_, vae.scale_), (np.zeros(4), np.ones(4)))
    every = np.array([[n >> i & 1 for i in range(4)] for n in range(16)], dtype=float)  # all there is
    assert abs(np.exp(vae.score_samples(every)).sum() - 1) < 0.01
    assert set(np.unique(vae.sample(50, random_state=0))) == {0.0, 1.0}


def test_without_standardizing_the_rows_reach_the_model_as_they_are() -> None:
    X = correlated(30) / 100
    vae = small(standardize=False, sigma="fixed:0.5").fit(X)
    np.testing.assert_array_equal(vae.transform(X), vae.model_.encode(X)[0])
    np.testing.assert_array_equal((vae.mean_, vae.scale_), (np.zeros(3), np.ones(3)))


def test_a_column_that_never_changes_does_no_harm() -> None:
    X = np.column_stack([correlated(30), np.full(30, 1e9 + 0.1)])
    vae = small().fit(X)
    assert vae.scale_[3] == 1
    assert np.isfinite(vae.score_samples(X)).all()


# --------------------------------------------------------------------------------------- among scikit-learn's own parts


def test_a_pipeline_scales_reduces_and_classifies() -> None:
    X, y = load_wine(return_X_y=True)
    vae = VAETransformer(latent_dim=2, hidden=(16,), epochs=150, batch_size=50, learning_rate=0.01, random_state=0)
    pipeline = make_pipeline(StandardScaler(), vae, LogisticRegression())
    assert pipeline.fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.85  # the largest class: 0.4
    fitted: Any = pipeline[1]
    np.testing.assert_allclose(fitted.mean_, 0, atol=1e-12)
    np.testing.assert_allclose(fitted.scale_, 1, rtol=1e-12)


def test_a_grid_search_goes_by_the_score_and_finds_the_number_of_factors() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 2)) @ rng.standard_normal((2, 6)) + 0.1 * rng.standard_normal((120, 6))
    vae = VAETransformer(hidden=(), epochs=100, learning_rate=0.03, importance_samples=50, random_state=0)
    folds = KFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(vae, {"latent_dim": [1, 2], "beta": [1.0, 20.0]}, cv=folds).fit(X)
    assert search.best_params_ == {"latent_dim": 2, "beta": 1.0}
    best = duplicate(vae).set_params(**search.best_params_)
    by_hand = [duplicate(best).fit(X[train]).score(X[test]) for train, test in folds.split(X)]
    assert search.best_score_ == np.mean(by_hand)
    assert search.score(X) == best.fit(X).score(X)


def test_a_clone_has_the_parameters_and_nothing_else() -> None:
    vae = small(beta=0.5).fit(correlated(20))
    other = duplicate(vae)
    assert other.get_params() == vae.get_params()
    assert not [name for name in vars(other) if name.endswith("_")]


def test_columns_have_names_and_come_as_a_data_frame_where_that_is_asked_for() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed: set_output cannot make its frames")
    X = pandas.DataFrame(correlated(20), columns=["a", "b", "c"])
    vae = small().fit(X)
    assert list(vae.get_feature_names_out()) == ["vaetransformer0", "vaetransformer1"]
    frame = vae.set_output(transform="pandas").transform(X)
    assert list(frame.columns) == list(vae.get_feature_names_out())
    np.testing.assert_allclose(vae.inverse_transform(frame), vae.inverse_transform(frame.to_numpy()), rtol=1e-10)
    with pytest.raises(ValueError, match="feature names"):
        vae.transform(X[["b", "a", "c"]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_model_computes_in_the_dtype_of_the_data(dtype: str) -> None:
    X = correlated(20).astype(dtype)
    vae = small().fit(X)
    assert vae.model_.dtype == dtype
    Z = vae.transform(X.astype("float64"))
    assert (Z.dtype, vae.inverse_transform(Z).dtype, vae.sample(2).dtype) == (dtype, dtype, dtype)
    assert small().fit(np.arange(20).reshape(10, 2)).model_.dtype == "float64"


# ----------------------------------------------------------------------------------------- the same again, and going on


def test_the_same_number_gives_the_same_bits_and_another_gives_others() -> None:
    X = correlated(50)
    once = small().fit(X)
    assert_same(everything(small().fit(X), X), everything(once, X))
    before = everything(once, X)
    assert_same(everything(once.fit(X), X), before)
    assert once.loss_curve_ == small().fit(X).loss_curve_
    for seed in (1, None):
        assert (small(random_state=seed).fit(X).model_.params.flat != before[-1]).any()
    states = [np.random.RandomState(5) for _ in range(2)]
    assert_same(*(everything(small(random_state=state).fit(X), X) for state in states))
    assert (once.sample(3) != once.sample(3)).all()


def test_partial_fits_on_all_rows_are_the_epochs_of_one_fit_bit_for_bit() -> None:
    X = correlated(50)
    whole, parts = small(epochs=4).fit(X), small()
    for _ in range(4):
        assert parts.partial_fit(X) is parts
    assert_same(everything(parts, X), everything(whole, X))
    assert parts.loss_curve_ == whole.loss_curve_
    assert_same(everything(small(epochs=3).fit(X).partial_fit(X), X), everything(whole, X))


def test_partial_fits_over_chunks_reach_about_what_a_fit_reaches() -> None:
    X, test = correlated(300), correlated(200, seed=1)
    parameters: dict[str, Any] = {"latent_dim": 1, "hidden": (), "learning_rate": 0.02, "batch_size": 50}
    whole = VAETransformer(epochs=60, random_state=0, **parameters).fit(X)
    chunked = VAETransformer(random_state=0, **parameters)
    untrained = VAETransformer(epochs=1, random_state=0, **parameters).fit(X).score(test)
    for _ in range(60):
        for chunk in np.split(X, 3):
            chunked.partial_fit(chunk)
    first = StandardScaler().fit(X[:100])
    np.testing.assert_array_equal((chunked.mean_, chunked.scale_), (first.mean_, first.scale_))
    gain = whole.score(test) - untrained
    assert gain > 0.5
    assert abs(chunked.score(test) - whole.score(test)) < 0.1 * gain


def test_a_fit_after_partial_fits_begins_anew() -> None:
    X = correlated(50)
    assert_same(everything(small().partial_fit(2 * X).fit(X), X), everything(small().fit(X), X))


def through_pickle(vae: VAETransformer, folder: Path) -> VAETransformer:
    return pickle.loads(pickle.dumps(vae))


def through_joblib(vae: VAETransformer, folder: Path) -> VAETransformer:
    joblib.dump(vae, folder / "vae.joblib")
    return joblib.load(folder / "vae.joblib")


def through_a_memory_map(vae: VAETransformer, folder: Path) -> VAETransformer:
    joblib.dump(vae, folder / "mapped.joblib")
    return joblib.load(folder / "mapped.joblib", mmap_mode="r")


ROUND_TRIPS = [through_pickle, through_joblib, through_a_memory_map]


def test_any_copy_of_a_fitted_transformer_is_of_its_own() -> None:
    X = correlated(40)
    vae = small().fit(X)
    expected = vae.transform(X)
    for twin in (copy.copy(vae), copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        np.testing.assert_array_equal(twin.transform(X), expected)
        twin.partial_fit(X)
        assert (twin.transform(X) != expected).any()
        np.testing.assert_array_equal(vae.transform(X), expected)


def test_a_fitted_transformer_is_shared_by_threads() -> None:
    X = correlated(40)
    vae = small().fit(X)
    tables, before = [X[:1], X[:7], X], sys.getswitchinterval()
    calls = [
        vae.transform, vae.score_samples, lambda X: vae.inverse_transform(vae.transform(X)),
        lambda X: vae.sample(len(X), random_state=0),
    ]  # fmt: skip
    jobs = [(call, table) for call in calls for table in tables] * 6
    expected = [call(table).tobytes() for call, table in jobs]
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert [a.tobytes() for a in pool.map(lambda job: job[0](job[1]), jobs)] == expected
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("trip", sampled(ROUND_TRIPS, 2), ids=lambda trip: trip.__name__)
def test_what_comes_back_says_the_same_and_goes_on_alike(trip: Callable[..., VAETransformer], tmp_path: Path) -> None:
    X = correlated(50)
    vae = small().fit(X)
    back = trip(vae, tmp_path)
    assert_same(everything(back, X), everything(vae, X))
    assert back.loss_curve_ == vae.loss_curve_
    assert_same(everything(back.partial_fit(X), X), everything(vae.partial_fit(X), X))


def test_an_unfitted_one_comes_back_unfitted() -> None:
    back = pickle.loads(pickle.dumps(small(beta=0.3)))
    assert back.get_params() == small(beta=0.3).get_params()
    assert not hasattr(back, "model_")


def test_a_dump_holds_parameters_and_moments_and_no_buffers_or_data() -> None:
    X = np.random.default_rng(0).standard_normal((3000, 20))
    vae = small(hidden=(30,), epochs=1, batch_size=1000).fit(X)
    vae.score_samples(X)
    file = io.BytesIO()
    joblib.dump(vae, file)
    per_number, arrays = 8, 3 * vae.model_.params.flat.size + 2 * 20
    assert file.tell() < per_number * arrays + 4000  # of names and parameters
    assert file.tell() < X.nbytes / 5


def test_a_dump_loads_where_its_kernels_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    X = correlated(20).astype("float32")
    vae = small(kernels="numpy").fit(X)
    expected, dump = vae.transform(X), pickle.dumps(vae)
    truth = tinyvae.kernels.problem
    hidden = lambda name, *rest: "hidden" if name == "numpy" else truth(name, *rest)
    monkeypatch.setattr(tinyvae.kernels, "problem", hidden)
    with pytest.warns(UserWarning, match="loaded with NumPy instead: the numpy kernels cannot be used here: hidden"):
        back = pickle.loads(dump)
    np.testing.assert_allclose(back.transform(X), expected, rtol=1e-4, atol=1e-5)


def test_on_a_device_everything_comes_back_as_numpy_arrays_and_goes_on(
    fake_cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = correlated(40)
    vae = small(backend="cupy", kernels="reference").fit(X)
    back = pickle.loads(pickle.dumps(vae))
    said = everything(vae, X)[:-1]
    assert all(type(a) is np.ndarray for a in said)
    assert_same(everything(back, X)[:-1], said)
    assert_same(everything(back.partial_fit(X), X)[:-1], everything(vae.partial_fit(X), X)[:-1])
    said, dump = everything(vae, X)[:-1], pickle.dumps(vae)
    monkeypatch.setitem(sys.modules, "cupy", None)  # a machine without it
    with pytest.warns(UserWarning, match="loaded with NumPy instead: CuPy is not installed"):
        at_home = pickle.loads(dump)
    for here, there in zip(everything(at_home, X), said, strict=False):
        np.testing.assert_allclose(here, there, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be a whole number, at least 1, not 0"),
        ({"hidden": 64}, "hidden must be a list of widths"),
        ({"likelihood": "weibull"}, "likelihood must be one of .*, not 'weibull'"),
        ({"sigma": "fixed:0"}, "sigma must be"),
        ({"beta": -1}, "beta must be a finite number, at least 0, not -1"),
        ({"beta": float("nan")}, "beta must be a finite number, at least 0, not nan"),
        ({"epochs": 0}, "epochs must be a whole number, at least 1, not 0"),
        ({"batch_size": 2.5}, r"batch_size must be a whole number, at least 1, not 2\.5"),
        ({"learning_rate": 0.0}, r"learning_rate must be a finite number, above 0, not 0\.0"),
        ({"importance_samples": True}, "importance_samples must be a whole number, at least 1, not True"),
        ({"kernels": "fast"}, "kernels must be one of"),
        ({"likelihood": "bernoulli"}, "for real values use the gaussian likelihood"),
    ],
)
def test_an_impossible_parameter_is_named_with_its_value(parameters: dict[str, Any], message: str) -> None:
    for method in ("fit", "partial_fit"):
        vae = small(**parameters)
        with pytest.raises(ValueError, match=message):
            getattr(vae, method)(correlated(20))
        with pytest.raises(NotFittedError):
            vae.transform(correlated(20))


def test_divergence_is_one_line_in_the_words_of_this_estimator() -> None:
    vae = small().fit(correlated(20)).set_params(learning_rate=1e30, epochs=20)
    with pytest.raises(NonFiniteError, match=r"training diverged in epoch .*; try a smaller learning_rate") as caught:
        vae.fit(correlated(20))
    assert "--" not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(NotFittedError):
        vae.transform(correlated(20))
    assert len(vae.set_params(learning_rate=1e-3).partial_fit(correlated(20)).loss_curve_) == 1


def test_numbers_too_large_to_be_squared_are_refused() -> None:
    with pytest.raises(ValueError, match="the variance of X overflows"):
        small().fit(correlated(20) * 1e300)


def test_data_outside_the_likelihood_is_refused_after_the_fit_as_well() -> None:
    vae = small(likelihood="bernoulli").fit(np.eye(4))
    for method in (vae.transform, vae.score_samples, vae.partial_fit):
        with pytest.raises(ValueError, match=r"needs \[0, 1\]"):
            method(2 * np.eye(4))
    with pytest.raises(ValueError, match="z must have shape"):
        vae.inverse_transform(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="n_samples must be a whole number, at least 1, not 0"):
        vae.sample(0)


@pytest.mark.parametrize("likelihood", ["poisson", "negative-binomial"])
def test_counts_are_fitted_and_nothing_between_two_counts(likelihood: str) -> None:
    X = np.random.default_rng(0).poisson([1.0, 30.0, 400.0], (60, 3)).astype(float)
    vae = small(likelihood=likelihood).fit(X)
    assert np.array_equal(vae.scale_, np.ones(3))  # counts are not scaled
    assert np.isfinite(vae.score_samples(X)).all()
    between = X.copy()
    between[3, 1] += 0.5  # the smallest and the largest of all stay whole
    for method in (small(likelihood=likelihood).fit, vae.transform, vae.score_samples, vae.partial_fit):
        with pytest.raises(ValueError, match="holds numbers that are not whole"):
            method(between)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_scikit_learn_one_line_says_how_to_get_it() -> None:
    done = python("import sys; sys.modules['sklearn'] = None; import tinyvae.sklearn")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: tinyvae.sklearn needs scikit-learn 1.6 or newer (")
    assert last.endswith("): python -m pip install 'tinyvae[sklearn]'")


def test_the_package_does_not_import_scikit_learn() -> None:
    done = python(
        "import sys, tinyvae; [getattr(tinyvae, n) for n in tinyvae.__all__]; assert 'sklearn' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_the_example_in_the_documentation_runs() -> None:
    found = doctest.testmod(tinyvae.sklearn)
    assert found.attempted >= 8
    assert found.failed == 0


def test_a_verbose_fit_says_first_which_settings_of_blas_are_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(blas, "hint", lambda: "blas: NumPy was loaded without A=1")
    vae = small(verbose=True, epochs=1).fit(correlated(20))
    first, second = capsys.readouterr().out.splitlines()
    assert first == "[VAETransformer] blas: NumPy was loaded without A=1"
    assert second.startswith("[VAETransformer] epoch 1")
    vae.partial_fit(correlated(20))  # called many times: said once is enough
    small(epochs=1).fit(correlated(20))
    assert "A=1" not in capsys.readouterr().out


def test_a_verbose_fit_prints_a_line_after_every_epoch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(blas, "hint", lambda: None)
    vae = small(verbose=True, epochs=3).fit(correlated(20))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": loss ")[0] for line in lines] == [f"[VAETransformer] epoch {i}" for i in (1, 2, 3)]
    assert f"{vae.loss_curve_[-1]:.4f}" in lines[-1]
    small(epochs=3).fit(correlated(20))
    assert capsys.readouterr().out == ""


# --------------------------------------------------------------------------------------------------------- planted bugs


@dataclass(frozen=True)
class Bug:
    """A wrong line in the place of a right one, and the test that must fail under it."""

    name: str
    target: Any
    attribute: str
    wrong: Any
    killer: Callable[..., None]


class OwnNoise(tinyvae.sklearn._SameForEveryRow):
    def standard_normal(self, shape: Any) -> np.ndarray:
        return np.random.Generator.standard_normal(self, shape)


def logvar(self: VAETransformer, X: Any) -> np.ndarray:
    return self.model_.encode(self._rows(X))[1]


def state_without(name: str, value: Any) -> Callable[[VAETransformer], dict[str, Any]]:
    truth = VAETransformer.__getstate__
    return lambda self: {**truth(self), name: value}


def eager_partial_fit(self: VAETransformer, X: Any, y: Any = None) -> VAETransformer:
    X = np.asarray(X)
    if not hasattr(self, "model_"):
        self._begin(X)
    self.mean_, self.scale_ = X.mean(axis=0), X.std(axis=0)  # the weights were made for another scaling
    return self._train(X, 1)


def forgetful_train(self: VAETransformer, X: np.ndarray, epochs: int) -> VAETransformer:
    self._moments = None
    return TRAIN(self, X, epochs)


def means_only(self: VAETransformer, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
    rng = np.random.default_rng(random_state)
    return self._in_units_of_X(self.model_.sample(n_samples, rng, mean=True))


TRAIN, LOG_SCALE, BEGIN = VAETransformer._train, VAETransformer._log_scale, VAETransformer._begin


def unseeded_begin(self: VAETransformer, X: np.ndarray) -> None:
    given, self.random_state = self.random_state, None
    BEGIN(self, X)
    self.random_state = given


DENSITY = test_the_score_of_a_linear_model_is_its_gaussian_density_in_the_units_of_x
THROUGH_PICKLE = functools.partial(test_what_comes_back_says_the_same_and_goes_on_alike, through_pickle, Path())
VT = VAETransformer
BUGS = [
    Bug("a density in standardized units", VT, "_log_scale", lambda self: 0.0, DENSITY),
    Bug("a Jacobian turned around", VT, "_log_scale", lambda self: -LOG_SCALE(self), DENSITY),
    Bug("noise of its own for every row", tinyvae.sklearn, "_SameForEveryRow", OwnNoise,
        test_repeated_calls_and_other_orders_give_the_same_scores),
    Bug("samples without their noise", VT, "sample", means_only,
        test_samples_have_the_mean_and_covariance_of_the_density_that_score_speaks_of),
    Bug("samples in standardized units", VT, "_in_units_of_X", lambda self, x: x,
        test_samples_have_the_mean_and_covariance_of_the_density_that_score_speaks_of),
    Bug("reconstructions about 0", VT, "_in_units_of_X", lambda self, x: x * self.scale_,
        test_the_decoded_transform_is_far_nearer_to_the_rows_than_their_mean),
    Bug("the log-variances for the means", VT, "transform", logvar,
        test_the_decoded_transform_is_far_nearer_to_the_rows_than_their_mean),
    Bug("moments that every call forgets", VT, "_train", forgetful_train,
        test_partial_fits_on_all_rows_are_the_epochs_of_one_fit_bit_for_bit),
    Bug("a scaling that follows the chunk", VT, "partial_fit", eager_partial_fit,
        test_partial_fits_over_chunks_reach_about_what_a_fit_reaches),
    Bug("moments that are not pickled", VT, "__getstate__", state_without("_moments", None), THROUGH_PICKLE),
    Bug("an epoch count that is not pickled", VT, "__getstate__", state_without("_epochs_done", 0), THROUGH_PICKLE),
    Bug("a step count that is not pickled", VT, "__getstate__", state_without("_updates", 0), THROUGH_PICKLE),
    Bug("a random_state that is not asked", VT, "_begin", unseeded_begin,
        test_the_same_number_gives_the_same_bits_and_another_gives_others),
]  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3), ids=lambda bug: bug.name)
def test_a_planted_bug_is_seen_by_its_test(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    linear()  # trained before the bug is planted: it is not trained again
    bug.killer()
    monkeypatch.setattr(bug.target, bug.attribute, bug.wrong)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        bug.killer()

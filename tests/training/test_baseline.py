"""Independent columns of a data set, in its own units, and the line that says when a model is worse."""

import numpy as np
import pytest
from scipy import stats

import tinyvae
from tinyvae.model.standard import Standard
from tinyvae.training.baseline import SLACK, independent_loss, verdict
from tinyvae.training.data import Dataset
from tinyvae.training.data.dataset import CHUNK


def gaussian(x: np.ndarray, known: np.ndarray) -> float:
    columns = zip(x.T, known.T, strict=True)
    return sum(-stats.norm.logpdf(a, np.nanmean(b), np.nanstd(b))[~np.isnan(a)].sum() for a, b in columns) / len(x)


@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_it_is_in_the_units_of_the_data_whatever_the_model_computes_with(standardized: bool, gaps: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal([3, -40, 5], [2, 0.1, 30], (300, 3))
    x[rng.random(x.shape) < gaps] = np.nan
    model = tinyvae.VAE(3, (3,), 2, likelihood="gaussian", dtype="float64")
    if standardized:
        model.standard = Standard(np.array([1.0, -39, 0]), np.array([5.0, 0.2, 0.01]))
    dataset = Dataset("own", x[:200], x_test=x[200:])
    for rows in (x[:200], x[200:]):
        assert independent_loss(model, dataset, rows) == pytest.approx(gaussian(rows, x[:200]), abs=1e-6)


def test_rows_of_several_chunks_and_bytes() -> None:
    x = np.random.default_rng(0).integers(0, 2, (CHUNK + 9, 2)).astype(np.uint8) * 255
    model = tinyvae.VAE(2, (3,), 2)
    p = (x > 0)[np.linspace(0, len(x) - 1, 2000).round().astype(int)].mean(axis=0)
    want = -np.where(x > 0, np.log(p), np.log1p(-p)).sum(axis=1).mean()
    assert independent_loss(model, Dataset("own", x, scale=1 / 255), x) == pytest.approx(want, abs=1e-4)


def test_the_verdict_is_a_line_for_a_worse_model_alone() -> None:
    assert verdict(5.0, 6.0, "columns") is None
    assert verdict(6.0 + SLACK / 2, 6.0, "columns") is None
    assert verdict(9.0, float("inf"), "columns") is None
    line = verdict(9.0, 6.0, "pixels")
    assert line is not None
    assert line.startswith("the model is worse than independent pixels, which have 6.00 nats where it has 9.00")
    assert "\n" not in line

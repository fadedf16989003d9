"""Masks and noise: what is observed, and what is done to the rest."""

import math
import re

import numpy as np
import pytest
from scipy import stats

from tinyvae.uses.masks import NOISE_SHARE, Mask, add_noise, parse_mask


def missing(text: str, rows: int, data_dim: int, shape: tuple[int, int] | None = None) -> np.ndarray:
    return ~parse_mask(text).observed(rows, data_dim, shape, np.random.default_rng(0))


def test_the_half_is_the_right_one() -> None:
    assert missing("half", 2, 6, (2, 3)).tolist() == [[False, False, True] * 2] * 2
    assert missing("half", 1, 5).tolist() == [[False] * 3 + [True] * 2]


def test_a_box_is_its_pixels() -> None:
    expected = np.zeros((3, 4, 5), dtype=bool)
    expected[:, 1:3, 2:5] = True
    assert np.array_equal(missing("box:1,2,2,3", 3, 20, (4, 5)).reshape(3, 4, 5), expected)
    assert missing("box:0,0,4,5", 1, 20, (4, 5)).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_random_mask_has_its_share(share: float) -> None:
    found = missing(f"random:{share}", 1000, 50)
    assert abs(found.mean() - share) <= 5 * math.sqrt(share * (1 - share) / found.size)
    assert share == 1 or (len(np.unique(found, axis=0)) > 900 or share == 0.1)  # each row has its own


WRONG = ["", "foo", "half:2", "noise:1", "random", "random:", "random:0", "random:2", "random:-1", "random:nan",
         "random:x", "box", "box:", "box:1,2,3", "box:1,2,3,4,5", "box:-1,0,2,2", "box:0,0,0,2", "box:0,0,2,0",
         "box:a,b,c,d", "box:1.5,0,2,2", "box:0,0,99999999999,1", "Half"]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_other_masks_are_refused_by_name(text: str) -> None:
    shown = text.partition(":")[2] if text.startswith(("random:", "box:")) else text
    with pytest.raises(ValueError, match=f"(must be|needs) .* not {re.escape(repr(shown))}"):
        parse_mask(text)


@pytest.mark.parametrize("text", ["box:3,0,2,2", "box:0,4,1,2", "box:9,9,1,1"])
def test_a_box_outside_of_the_image_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="outside of the image of 4 x 5 pixels"):
        missing(text, 1, 20, (4, 5))
    with pytest.raises(ValueError, match="a box needs images"):
        missing(text, 1, 20)


def test_noise_flips_replaces_or_adds() -> None:
    rng = np.random.default_rng(0)
    grey, spread = rng.random((200, 100)), np.linspace(1, 5, 100)
    n = grey.size
    error = 5 * math.sqrt(NOISE_SHARE * (1 - NOISE_SHARE) / n)
    binary = np.round(grey)
    noisy, what = add_noise(binary, spread, rng)
    assert "flipped" in what
    assert set(np.unique(noisy)) == {0.0, 1.0}
    assert abs((noisy != binary).mean() - NOISE_SHARE) <= error
    noisy, what = add_noise(grey, spread, rng)
    assert "replaced" in what
    changed = noisy != grey
    assert abs(changed.mean() - NOISE_SHARE) <= error
    assert stats.kstest(noisy[changed], "uniform").pvalue > 1e-6
    noisy, what = add_noise(grey - 3, spread, rng)
    assert "Gaussian" in what
    assert stats.kstest(((noisy - grey + 3) / spread).ravel(), "norm").pvalue > 1e-6


def test_noisy_counts_are_counts() -> None:
    rng = np.random.default_rng(0)
    counts, spread = rng.poisson([1.0, 50.0, 4000.0], (3000, 3)).astype(float), np.array([1.0, 7.0, 60.0])
    noisy, what = add_noise(counts, spread, 1, counts=True)
    assert what == "Gaussian noise of one standard deviation of each column added, rounded to counts"
    assert noisy.min() == 0
    assert np.array_equal(noisy, np.round(noisy))
    plain, _ = add_noise(counts, spread, 1)
    assert plain.min() < 0
    assert np.array_equal(noisy, np.maximum(np.round(plain), 0))


def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The left half is missing in the place of the right."""
    truth = Mask.observed
    monkeypatch.setattr(Mask, "observed", lambda *a: truth(*a)[:, ::-1])
    with pytest.raises(AssertionError):
        test_the_half_is_the_right_one()

"""`tinyvae generate`: samples, paths, the plane of z, and every label on demand."""

from pathlib import Path

import numpy as np
import pytest
from running import BASE, run
from variants import CONDITIONAL, VARIANTS

import tinyvae


@pytest.mark.parametrize("variant", VARIANTS)
def test_generate_samples_and_paths(variants: Path, variant: str, tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    for options, rows in [
        (["--n", "5"], 5), (["--n", "5", "--draw"], 5), (["--interpolate", "0", "7"], 11),
        (["--interpolate", "0", "7", "--path", "sphere"], 11), (["--manifold"], 225),
    ]:  # fmt: skip
        assert run("generate", variants / variant, *options, "--out", out) == 0
        x = np.load(out)
        assert x.shape == (rows, 64)
        assert np.all((x >= 0) & (x <= 1))
    assert run("generate", variants / variant, "--n", "5", "--out", tmp_path / "x.png") == 0


@pytest.mark.parametrize("variant", CONDITIONAL)
def test_generate_what_a_label_asks_for(variants: Path, variant: str, tmp_path: Path) -> None:
    out, model = tmp_path / "x.npy", tinyvae.load(variants / variant)

    def made(*options: str) -> np.ndarray:
        assert run("generate", variants / variant, *options, "--out", out) == 0
        return np.load(out)

    threes = made("--n", "12", "--label", "3")
    in_turn = made("--n", "12")
    np.testing.assert_array_equal(threes[3], in_turn[3])  # the same z, and in turn the fourth label is 3
    assert np.any(threes != made("--n", "12", "--label", "4"))
    digits = tinyvae.load_data("digits")
    assert digits.y_test is not None
    x, y = digits.values(digits.x_test[[2, 5]]), digits.y_test[[2, 5]]
    mu = model.encode(x, y)[0]
    expected = [model.decode(mu[i : i + 1], np.array([label]))[0] for i in range(2) for label in range(10)]
    np.testing.assert_allclose(made("--style", "2", "5"), expected, rtol=1e-4)
    ends = made("--interpolate", "2", "5", "--label", "1")[[0, -1]]
    np.testing.assert_allclose(ends, model.decode(mu, np.array([1, 1])), rtol=1e-4)


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("conv", ["--label", "3"], "--label needs a run that was trained with --conditional"),
        ("iwae", ["--style", "0"], "--style needs a run that was trained with --conditional"),
        ("labels", ["--label", "10"], "--label must be one of the run's labels, 0 to 9, not 10"),
        ("labels", ["--label", "-1"], "--label must be one of the run's labels, 0 to 9, not -1"),
        ("labels", ["--style", "0", "359"], "--style needs test rows from 0 to 358, not 359"),
        ("labels", ["--style", "-1"], "--style needs test rows from 0 to 358, not -1"),
        ("labels", ["--style", "0", "--label", "3"], "--style decodes with every label: leave --label away"),
        ("labels", ["--interpolate", "0", "400"], "--interpolate needs test rows from 0 to 358, not 400"),
        ("labels", ["--interpolate", "0", "1", "--path", "arc"], "invalid choice: 'arc'"),
    ],
)
def test_wrong_options_of_generate_get_one_line(
    variants: Path, variant: str, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", variants / variant, *options, "--out", tmp_path / "x.npy") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert not (tmp_path / "x.npy").exists()


def generated(folder: Path, out: Path, *options: str) -> np.ndarray:
    assert run("generate", folder, "--out", out, "--backend", "numpy", *options) == 0
    return np.load(out)


def test_samples_are_numbers_that_a_seed_reproduces(trained: Path, here: Path) -> None:
    x = generated(trained, here / "a.npy", "--n", "9")
    assert x.shape == (9, 64)
    assert np.all((x > 0) & (x < 1))
    assert np.array_equal(x, generated(trained, here / "b.npy", "--n", "9", "--seed", "0"))
    assert not np.array_equal(x, generated(trained, here / "c.npy", "--n", "9", "--seed", "1"))
    assert not np.array_equal(x, generated(trained, here / "d.npy", "--n", "9", "--checkpoint", "best"))
    assert sorted(p.name for p in here.iterdir()) == ["a.npy", "b.npy", "c.npy", "d.npy", "own.npz"]


def test_draws_are_black_and_white_where_the_model_is(trained: Path, here: Path) -> None:
    x = generated(trained, here / "a.npy", "--n", "9", "--draw")
    assert set(np.unique(x)) == {0.0, 1.0}
    assert np.array_equal(x, generated(trained, here / "a.npy", "--n", "9", "--draw"))


def test_an_interpolation_goes_from_one_mu_to_the_other_in_equal_steps(trained: Path, here: Path) -> None:
    model, data = tinyvae.load(trained), tinyvae.load_data(str(trained.parent / "own.npz"))
    x = generated(trained, here / "a.npy", "--interpolate", "1", "4")
    mu = model.encode(data.x_test[[1, 4]])[0].astype("float64")
    assert np.abs(mu[0] - mu[1]).max() > 0.5  # or this would show nothing
    t = np.linspace(0, 1, 11)[:, None]
    assert np.array_equal(x, model.decode((1 - t) * mu[0] + t * mu[1]))


def test_the_manifold_is_the_plane_of_z_from_the_top_left(trained: Path, here: Path) -> None:
    model = tinyvae.load(trained)
    x = generated(trained, here / "a.npy", "--manifold")
    # The outermost of 15 points of equal probability is the quantile 14.5/15 of the normal distribution, 1.8339.
    corners = model.decode([[-1.8339146, 1.8339146], [1.8339146, 1.8339146], [-1.8339146, -1.8339146], [0, 0]])
    # float32: the corner is rounded to 1e-7, and a decoder of so few weights magnifies that by less than 100
    assert np.all(np.abs(x[[0, 14, 210, 112]] - corners) < 1e-5)


@pytest.mark.parametrize("options", [["--n", "5"], ["--interpolate", "0", "1"], ["--manifold"], ["--draw"]])
def test_a_picture_is_written_and_named(
    trained: Path, here: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert run("generate", trained, "--out", "a.png", *options) == 0
    assert capsys.readouterr() == ("a.png\n", "")
    assert (here / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_samples_need_no_data_but_an_evaluation_does(
    trained: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", *BASE, "--out", "run") == 0
    (here / "own.npz").unlink()
    assert generated(here / "run", here / "a.npy").shape == (64, 64)
    capsys.readouterr()
    assert run("evaluate", "run") == 1
    assert "own.npz" in capsys.readouterr().err

"""The data sets: what ships, what is drawn, what is downloaded, and what a user brings."""

import contextlib
import gc
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyvae.errors import DataError
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset, load, load_digits, two_gaussians
from tinyvae.training.data import dataset as datasets
from tinyvae.training.data.user import load_user_file
from tinyvae.training.run import load_data

Z = 5.0  # standard errors; a normal estimate strays further once in 1.7 million


def saved(path: Path, **arrays: Any) -> Path:
    """A .npy file of x alone, or an .npz file of all the arrays."""
    if path.suffix == ".npy":
        np.save(path, arrays["x"])
    else:
        np.savez(path, **arrays)
    return path


def rows(n: int = 20, columns: int = 3) -> np.ndarray:
    return np.arange(n * columns).reshape(n, columns) / (n * columns)


# --------------------------------------------------------------------------------------------------------------- digits


def test_the_digits_that_ship_are_the_ones_their_note_describes() -> None:
    path = Path(datasets.__file__).with_name("digits.npz")
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest()
        == "2c0990a03ee3eb488a158259e01527a726529640ba0a5e6aff8fb66f8c606795"
    )
    with np.load(path) as file:
        x, y = file["x"], file["y"]
    assert (x.shape, x.dtype, int(x.min()), int(x.max())) == ((1797, 8, 8), np.uint8, 0, 16)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as its authors count them


def test_digits_are_split_without_losing_or_doubling_a_row() -> None:
    digits = load_digits()
    assert digits.x_train.shape == (1438, 64)
    assert digits.x_test.shape == (359, 64)
    assert digits.image_shape == (8, 8)
    assert digits.range() == (0.0, 1.0)
    assert digits.x_train.dtype == np.uint8  # bytes stay bytes
    with np.load(Path(datasets.__file__).with_name("digits.npz")) as file:
        original = [(x.tobytes(), int(y)) for x, y in zip(file["x"], file["y"], strict=True)]
    assert digits.y_train is not None
    assert digits.y_test is not None
    pairs = [(x.tobytes(), int(y)) for x, y in zip(digits.x_train, digits.y_train, strict=True)]
    pairs += [(x.tobytes(), int(y)) for x, y in zip(digits.x_test, digits.y_test, strict=True)]
    assert sorted(pairs) == sorted(original)


def test_no_seed_changes_which_digits_are_for_testing() -> None:
    first, other = load("digits", seed=0), load("digits", seed=1)
    assert first.digest() == other.digest()
    assert first.digest() == load_digits().digest()
    # Nor does a version: whoever reports a test loss on digits means these rows.
    rows_for_testing = hashlib.sha256(first.x_test.tobytes()).hexdigest()
    assert rows_for_testing == "0d54b7ffa7898a4df8f32b32079dcd29f4fbd696fb3307ecd3d1538059389cec"


def test_a_value_is_the_stored_byte_times_the_scale() -> None:
    digits = load_digits()
    assert np.array_equal(digits.values(digits.x_test), digits.x_test / 16)
    assert digits.values(digits.x_test, "float32").dtype == np.float32


# -------------------------------------------------------------------------------------------------------- two-gaussians


def test_two_gaussians_have_the_moments_they_promise() -> None:
    n = 50_000
    points = two_gaussians(n, seed=3)
    assert points.y_train is not None
    assert points.y_test is not None
    x, y = np.concatenate([points.x_train, points.x_test]), np.concatenate([points.y_train, points.y_test])
    assert points.x_train.shape == points.x_test.shape == (n, 2)
    # A fair coin: the share of ones has the standard error sqrt(1/4 / 2n).
    assert abs(y.mean() - 0.5) < Z * 0.5 / np.sqrt(2 * n)
    for label, mean in [(0, (1.0, 1.0)), (1, (1.5, 0.5))]:
        cloud = x[y == label]
        m = len(cloud)
        # Each coordinate has variance 1, so its mean has the standard error 1 / sqrt(m).
        assert np.all(np.abs(cloud.mean(axis=0) - mean) < Z / np.sqrt(m))
        # For a Gaussian, Var(sample cov_ij) = (c_ii c_jj + c_ij^2) / (m - 1): 2 on the diagonal, 1.25 beside it.
        spread = np.sqrt(np.array([[2.0, 1.25], [1.25, 2.0]]) / (m - 1))
        assert np.all(np.abs(np.cov(cloud.T) - [[1.0, 0.5], [0.5, 1.0]]) < Z * spread)


def test_two_gaussians_takes_its_number_of_points_from_the_name_and_its_draw_from_the_seed() -> None:
    assert load("two-gaussians").x_train.shape == (100, 2)
    assert load("two-gaussians:12").x_test.shape == (12, 2)
    assert load("two-gaussians:12", seed=1).digest() == load("two-gaussians:12", seed=1).digest()
    assert load("two-gaussians:12", seed=1).digest() != load("two-gaussians:12", seed=2).digest()
    with pytest.raises(DataError, match="at least 10 points, not 0"):
        two_gaussians(0, seed=0)


# ------------------------------------------------------------------------------------------------------ a user's files


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("uint8", "uint8"), ("bool", "uint8"), ("float32", "float32"), ("float64", "float64"), ("float16", "float32"),
        ("int8", "float64"), ("int64", "float64"), ("uint32", "float64"),
    ],
)  # fmt: skip
def test_numbers_of_every_kind_are_read_without_losing_a_digit(tmp_path: Path, dtype: str, stored: str) -> None:
    x = (np.arange(60).reshape(20, 3) / (7 if dtype.startswith("float") else 1)).astype(dtype)
    data = load_user_file(saved(tmp_path / "own.npy", x=x))
    assert data.x_train.dtype == stored
    assert (data.name, data.x_train.shape, data.x_test.shape) == ("own", (18, 3), (2, 3))
    assert data.image_shape is None
    assert sorted(np.concatenate([data.x_train, data.x_test]).tolist()) == sorted(x.astype(stored).tolist())


def test_float64_of_the_other_byte_order_keeps_its_digits(tmp_path: Path) -> None:
    x = rows().astype(">f8" if np.little_endian else "<f8")
    data = load_user_file(saved(tmp_path / "own.npy", x=x))
    assert sorted(np.concatenate([data.x_train, data.x_test]).tolist()) == sorted(rows().tolist())


def test_images_keep_their_shape_and_labels_their_rows(tmp_path: Path) -> None:
    x = np.arange(20 * 6, dtype=np.uint8).reshape(20, 2, 3)
    data = load(str(saved(tmp_path / "images.npz", x=x, y=np.arange(20))))
    assert data.image_shape == (2, 3)
    assert data.data_dim == 6
    assert data.y_train is not None
    assert data.y_test is not None
    assert np.array_equal(data.x_train, x.reshape(20, 6)[data.y_train])
    assert np.array_equal(data.x_test, x.reshape(20, 6)[data.y_test])


def test_a_user_file_is_split_alike_whatever_the_seed(tmp_path: Path) -> None:
    path = str(saved(tmp_path / "own.npy", x=rows()))
    assert load(path, seed=1).digest() == load(path, seed=2).digest()


X = rows()
BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "a NaN": (
        {"x": np.where(X[4, 1] == X, np.nan, X)},
        "x holds NaN or infinite values .1 of 20 rows, the first is row 4",
    ),
    "an infinity": ({"x": np.where(X[4, 1] == X, -np.inf, X)}, "the first is row 4"),
    "strings": ({"x": X.astype(str)}, "dtype <U.*numbers are needed"),
    "complex": ({"x": X.astype(complex)}, "dtype complex128, but numbers are needed"),
    "dates": ({"x": X.astype("M8[s]")}, "dtype datetime64.*numbers are needed"),
    "records": ({"x": np.zeros(20, dtype=[("a", "f8")])}, "numbers are needed"),
    "one dimension": ({"x": X[:, 0]}, r"shape \(20,\), but \(rows, columns\)"),
    "no dimension": ({"x": np.float64(3)}, r"shape \(\), but \(rows, columns\)"),
    "four dimensions": ({"x": X.reshape(5, 2, 3, 2)}, r"\(5, 2, 3, 2\), but"),
    "no rows": ({"x": X[:0]}, r"shape \(0, 3\)"),
    "no columns": ({"x": X[:, :0]}, r"shape \(20, 0\)"),
    "nine rows": ({"x": X[:9]}, "9 rows are too few.*at least 10"),
}


@pytest.mark.parametrize("ending", [".npy", ".npz"])
@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_arrays_that_cannot_be_trained_on_are_refused_by_name_and_cause(tmp_path: Path, case: str, ending: str) -> None:
    arrays, message = BAD_ARRAYS[case]
    with pytest.raises(DataError, match=message) as caught:
        load_user_file(saved(tmp_path / f"own{ending}", **arrays))
    assert "own" in str(caught.value)


@pytest.mark.parametrize("y", [np.arange(19), np.arange(20.0), np.arange(20).reshape(20, 1), np.array(["a"] * 20)])
def test_labels_must_be_one_whole_number_for_each_row_where_they_are_used(tmp_path: Path, y: np.ndarray) -> None:
    path = str(saved(tmp_path / "own.npz", x=X, y=y))
    assert load_data(Config(data=path)).y_train is None  # not used: they stop nothing
    for config in (Config(data=path, conditional=True), Config(data=path, leave_out=1)):
        with pytest.raises(DataError, match=r"own.npz: y must be 20 whole numbers"):
            load_data(config)


@pytest.fixture
def collected() -> Iterator[None]:
    """numpy.load leaves a broken zip file open; here it is closed, and not complained of, before the next test."""
    yield
    gc.collect()


UNCLOSED = "ignore::pytest.PytestUnraisableExceptionWarning"


def objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([[None, 1]] * 20, dtype=object))
    return file.getvalue()


@pytest.mark.usefixtures("collected")
@pytest.mark.filterwarnings(UNCLOSED)
@pytest.mark.parametrize("name", ["own.npy", "own.npz"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"1,2,3\n", b"PK\x03\x04 no zip", objects()])
def test_files_that_are_something_else_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=name) as caught:
        load_user_file(path)
    assert "\n" not in str(caught.value)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "own.npy"
    path.write_bytes(objects())
    with pytest.raises(DataError, match=r"Python objects, which are never unpickled; if you trust the file"):
        load_user_file(path)


@pytest.mark.usefixtures("collected")
@pytest.mark.filterwarnings(UNCLOSED)
@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, ending: str) -> None:
    whole = saved(tmp_path / f"whole{ending}", x=rows(12, 2), y=np.arange(12)).read_bytes()
    path = tmp_path / f"own{ending}"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="own"):
            load_user_file(path)


@pytest.mark.usefixtures("collected")
@pytest.mark.filterwarnings(UNCLOSED)
@pytest.mark.parametrize("how", ["npy", "savez", "savez_compressed"])
def test_a_flipped_bit_is_refused_or_harmless_but_never_a_crash(tmp_path: Path, how: str) -> None:
    path = tmp_path / f"own.{how[:3].replace('sav', 'npz')}"
    x = np.arange(24).reshape(12, 2) / 8
    np.save(path, x) if how == "npy" else getattr(np, how)(path, x=x, y=np.arange(12))
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 5):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(content))
        with contextlib.suppress(DataError):
            load_user_file(path)


def test_an_x_that_is_no_array_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("x", "1,2,3")
    with pytest.raises(DataError, match=r"own\.npz"):
        load_user_file(tmp_path / "own.npz")


def test_a_file_that_claims_more_than_memory_holds_is_refused(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d, 9), }" % 10**14  # beyond any address space
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    (tmp_path / "own.npy").write_bytes(b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match=r"own\.npy"):
        load_user_file(tmp_path / "own.npy")


def test_an_npz_file_without_x_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds a \(20, 3\) float64, b \(20, 3\) float64, but the data must be called x"
    ):
        load_user_file(saved(tmp_path / "own.npz", a=X, b=X))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file; if it has moved, name its folder"):
        load_user_file(tmp_path / "none.npy")
    with pytest.raises(DataError, match="is a folder, not a file"):
        load_user_file(tmp_path)


# ------------------------------------------------------------------------------------------ black and white; the digest


def grey(values: list[float]) -> Dataset:
    x = np.array([values] * 2)
    return Dataset("grey", x, x)


def test_threshold_makes_a_half_white_to_one() -> None:
    binary = grey([0.0, 0.4999, 0.5, 1.0]).thresholded()
    assert binary.x_test.tolist() == [[0, 0, 1, 1]] * 2
    assert binary.is_binary()
    digits = load_digits()
    assert np.array_equal(digits.thresholded().x_test, digits.x_test >= 8)


def test_binary_means_nothing_but_0_and_1() -> None:
    assert grey([0.0, 1.0]).is_binary()
    assert not grey([0.0, 0.5]).is_binary()
    assert not load_digits().is_binary()
    assert Dataset("bytes", np.array([[0, 255]], np.uint8), np.array([[255]], np.uint8), scale=1 / 255).is_binary()


def test_binarize_threshold_changes_the_rows_and_dynamic_leaves_them_to_the_batches() -> None:
    threshold, dynamic, none = (load_data(Config(binarize=how)) for how in ("threshold", "dynamic", "none"))
    assert threshold.is_binary()
    assert dynamic.digest() == none.digest() != threshold.digest()


def test_binarize_is_refused_outside_0_to_1(tmp_path: Path) -> None:
    path = saved(tmp_path / "own.npy", x=np.full((20, 3), 200, np.uint8))
    for how in ("threshold", "dynamic"):
        with pytest.raises(DataError, match=r"\[200, 200\], but --binarize needs \[0, 1\]"):
            load_data(Config(data=str(path), binarize=how))


def test_the_digest_sees_every_value_the_type_the_shape_and_the_scale() -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    other = x.copy()
    other[3, 2] += 1
    digests = [
        Dataset("d", x, x).digest(),
        Dataset("d", other, x).digest(),
        Dataset("d", x, other).digest(),
        Dataset("d", x.astype(np.float64), x).digest(),
        Dataset("d", x.reshape(2, 6), x.reshape(2, 6)).digest(),
        Dataset("d", x, x, scale=0.5).digest(),
    ]
    assert len(set(digests)) == len(digests)
    assert Dataset("another name", x.copy(), x.copy()).digest() == digests[0]


# ---------------------------------------------------------------------------------------------- the real published sets


def published_folder(name: str) -> Path:
    """Where the real files lie; the test that asks is skipped if they are not there."""
    root = Path(os.environ.get("TINYVAE_TEST_DATA") or Path(__file__).parents[2] / "shared")
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not at hand: name a folder that holds it by TINYVAE_TEST_DATA")
    return folder


def test_mnist_is_read_from_a_folder_that_holds_it() -> None:
    mnist = load("mnist", published_folder("mnist"))
    assert (mnist.x_train.shape, mnist.x_test.shape, mnist.image_shape) == ((60_000, 784), (10_000, 784), (28, 28))
    assert mnist.range() == (0.0, 1.0)
    assert mnist.y_train is not None
    assert mnist.y_test is not None
    assert np.bincount(mnist.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert round(mnist.x_train.mean() / 255, 4) == 0.1307  # the mean and deviation that everybody normalizes by
    assert round(mnist.x_train.std() / 255, 4) == 0.3081


def test_binarized_mnist_is_read_from_a_folder_that_holds_it_gzipped() -> None:
    binarized = load("binarized-mnist", published_folder("binarized_mnist"))
    assert (binarized.x_train.shape, binarized.x_test.shape) == ((50_000, 784), (10_000, 784))
    assert binarized.image_shape == (28, 28)
    assert binarized.is_binary()
    assert binarized.y_train is None
    # Drawn from the grey pixels as probabilities, so about as white as they are. A row's share of ones varies by less
    # than 0.1 from row to row, so the mean of 50,000 differs from MNIST's 0.1307 by less than Z 0.1 / sqrt(50,000).
    assert abs(binarized.x_train.mean() - 0.1307) < Z * 0.1 / np.sqrt(50_000) + 5e-5

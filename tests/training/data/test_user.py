"""The data sets: what ships, what is drawn, what is downloaded, and what a user brings."""

import contextlib
import gc
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyvae.errors import DataError
from tinyvae.training.config import Config
from tinyvae.training.data import load
from tinyvae.training.data.user import load_user_file
from tinyvae.training.run import load_data


def saved(path: Path, **arrays: Any) -> Path:
    """A .npy file of x alone, or an .npz file of all the arrays."""
    if path.suffix == ".npy":
        np.save(path, arrays["x"])
    else:
        np.savez(path, **arrays)
    return path


def rows(n: int = 20, columns: int = 3) -> np.ndarray:
    return np.arange(n * columns).reshape(n, columns) / (n * columns)


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
    "an infinity": ({"x": np.where(X[4, 1] == X, -np.inf, X)}, "x holds infinite values .1 of 20 rows, .* row 4"),
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


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_a_nan_was_not_observed_and_a_line_says_how_many(tmp_path: Path, ending: str) -> None:
    x = np.where(X[4, 1] == X, np.nan, X)
    data = load_user_file(saved(tmp_path / f"own{ending}", x=x))
    assert sum(int(np.isnan(rows).sum()) for rows in data.chunks()) == 1
    assert any("NaN" in note for note in data.notes)


@pytest.mark.parametrize("meaning", ["pixels", "counts"])
def test_bytes_are_what_the_likelihood_takes_them_for(tmp_path: Path, meaning: str) -> None:
    x = np.arange(60, dtype=np.uint8).reshape(20, 3)
    path = str(saved(tmp_path / "own.npy", x=x))
    data = load_data(Config(data=path, likelihood="bernoulli" if meaning == "pixels" else "poisson"))
    assert data.range() == pytest.approx((0, 59 / 255) if meaning == "pixels" else (0, 59))
    assert data.x_train.dtype == np.uint8


@pytest.mark.parametrize("y", [np.arange(20.0), np.array(["b", "a"] * 10), np.arange(20)[:, None], np.arange(20) > 9])
def test_labels_of_any_kind_keep_their_rows(tmp_path: Path, y: np.ndarray) -> None:
    data = load_user_file(saved(tmp_path / "own.npz", x=X, y=y))
    assert data.label_problem == ""
    assert set(data.label_values()) == set(np.ravel(y).tolist())
    for part in data.parts():
        assert part.y is not None
        assert np.array_equal(part.y, np.ravel(y)[part.rows])


@pytest.mark.parametrize("y", [np.arange(19), np.arange(40).reshape(20, 2), np.full(20, np.inf)])
def test_labels_must_be_one_for_each_row_where_they_are_used(tmp_path: Path, y: np.ndarray) -> None:
    path = str(saved(tmp_path / "own.npz", x=X, y=y))
    assert load_data(Config(data=path)).y_train is None  # not used: they stop nothing
    for config in (Config(data=path, conditional=True), Config(data=path, leave_out="1")):
        with pytest.raises(
            DataError, match=r"y must be 20 (whole numbers|labels)|y has no label in 20 of 20 rows|^labels must be one"
        ):
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


def test_a_missing_file_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file; if it has moved, name its folder"):
        load_user_file(tmp_path / "none.npy")
    with pytest.raises(DataError, match="holds no image"):
        load_user_file(tmp_path)

"""Arrays in .npy and .npz files, as `find` hands them over: in place, in any layout, by any name."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from stored_arrays import npy, zipped
from strategies import SEEDS, sizes

from tinyvae.errors import DataError
from tinyvae.training.data import memory
from tinyvae.training.data.found import find
from tinyvae.training.data.readers import layout
from tinyvae.training.data.readers.sparse import _AT_ONCE

IN_PLACE = ("uint8", "bool", "float32", "float64")
CONVERTED = ("float16", "longdouble", "int8", "uint16", "int64", ">f4", ">f8", ">i2")


def saved(path: Path, *arrays: np.ndarray, **named: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, arrays[0])
    else:
        np.savez(path, *arrays, **named)  # pyright: ignore[reportArgumentType] - its stub takes names for options
    return path


# ------------------------------------------------------------------------------------------------ layouts and types


@given(seed=SEEDS, n=sizes(3, 2, 9), dtype=st.sampled_from((*IN_PLACE, *CONVERTED)),
       ending=st.sampled_from(["npy", "npz"]),
       how=st.sampled_from(["flat", "grey", "grey first", "grey last", "colour first", "colour last"]),
       fortran=st.booleans(), chunk=st.integers(1, 2000))  # fmt: skip
def test_every_layout_and_type_comes_as_rows_in_the_order_height_width_channel(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: tuple[int, ...], dtype: str, ending: str, how: str,
    fortran: bool, chunk: int,
) -> None:  # fmt: skip
    rows, h, w = n[0], n[1] + 4, n[2] + 4  # no side is 1, 3 or 4, which can be channels
    image = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 100, (rows, h, w, 3)).astype(dtype)
    grey = image[..., 0]
    stored, rows_of, shape = {
        "flat": (grey.reshape(rows, -1), grey, None),
        "grey": (grey, grey, (h, w)),
        "grey first": (grey[:, None], grey, (h, w)),
        "grey last": (grey[..., None], grey, (h, w)),
        "colour first": (np.moveaxis(image, -1, 1), image, (h, w, 3)),
        "colour last": (image, image, (h, w, 3)),
    }[how]
    path = tmp_path_factory.mktemp("a") / f"own.{ending}"
    saved(path, np.asfortranarray(stored) if fortran else np.ascontiguousarray(stored))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK", chunk)
        found = find(path)
    x = found.train.x
    assert (found.name, found.image_shape, found.train.y, found.notes) == ("own", shape, None, ())
    expected = rows_of.reshape(rows, -1)
    assert x.dtype == layout.kept_as(np.dtype(dtype))
    assert x.dtype.isnative
    assert np.array_equal(x, expected)
    if ending == "npy" and dtype in IN_PLACE and not fortran and how != "colour first":
        assert isinstance(x.base if not isinstance(x, np.memmap) else x, np.memmap)
        assert not x.flags.writeable


AMBIGUOUS = [(9, 1, 5, 1), (9, 1, 5, 3), (9, 3, 5, 1), (9, 3, 5, 3), (9, 4, 5, 3), (9, 3, 5, 4), (9, 1, 1, 1),
             (9, 4, 5, 4), (9, 2, 5, 5), (9, 5, 5, 2), (9,), (), (2, 2, 2, 2, 2), (0, 3), (3, 0)]  # fmt: skip


@pytest.mark.parametrize("shape", AMBIGUOUS)
def test_a_shape_that_could_be_two_kinds_of_images_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"own\.npy: x has shape .* is needed") as caught:
        find(saved(tmp_path / "own.npy", np.zeros(shape)))
    assert "\n" not in str(caught.value)


def test_a_damaged_bool_is_no_pixel(tmp_path: Path) -> None:
    path = saved(tmp_path / "own.npy", np.zeros((9, 4), bool))
    with path.open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"\x07")
    with pytest.raises(DataError, match=r"own\.npy: is not a readable \.npy file \(a bool is 7\)"):
        find(path)


def test_long_doubles_beyond_float64_are_refused_and_infinity_is_not_called_so(tmp_path: Path) -> None:
    x = np.ones((9, 4), np.longdouble)
    x[5, 2] = np.longdouble("1e400") if np.finfo(np.longdouble).max > np.finfo(float).max else np.inf
    words = "beyond float64" if np.isfinite(x[5, 2]) else "infinite"
    with pytest.raises(DataError, match=words):
        find(saved(tmp_path / "own.npy", x))
    x[5, 2] = np.inf
    with pytest.raises(DataError, match="holds infinite values"):
        find(saved(tmp_path / "own.npy", x))


# ---------------------------------------------------------------------------------------------- what is not observed


@given(
    seed=SEEDS, n=sizes(2, 2, 12), chunk=st.integers(1, 300), dtype=st.sampled_from(["float32", "float64", "float16"])
)
def test_missing_numbers_stay_and_are_counted_whatever_the_chunks(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: tuple[int, ...], chunk: int, dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n).astype(dtype)
    x[rng.random(n) < 0.3] = np.nan
    x[rng.random(len(x)) < 0.2] = np.nan
    x[:, rng.random(x.shape[1]) < 0.2] = np.nan
    x[0, 0] = 1  # something is there
    path = saved(tmp_path_factory.mktemp("a") / "own.npy", x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK", chunk)
        found = find(path)
    assert np.array_equal(found.train.x, x, equal_nan=True)
    missing, notes = np.isnan(x), "\n".join(found.notes)
    assert (f"{missing.sum()} of {x.size} numbers are missing" in notes) == missing.any()
    empty = np.flatnonzero(missing.all(axis=0))
    named = f"no row has a number in column{'s' * (len(empty) > 1)} {', '.join(map(str, empty))}:"
    assert (named in notes) == (0 < len(empty) <= 10)
    empty = np.flatnonzero(missing.all(axis=1))
    assert (f"{len(empty)} rows have no number at all: {', '.join(map(str, empty[:10]))}" in notes) == (len(empty) > 0)


@given(seed=SEEDS, bad=st.sampled_from([np.inf, -np.inf]), chunk=st.integers(1, 300))
def test_an_infinite_number_is_named_beside_missing_ones(
    tmp_path_factory: pytest.TempPathFactory, seed: int, bad: float, chunk: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20, 5))
    x[rng.random(x.shape) < 0.2] = np.nan
    row, column = rng.integers(0, 20), rng.integers(0, 5)
    x[row, column] = bad
    path = saved(tmp_path_factory.mktemp("a") / "own.npz", x)
    words = rf"arr_0 holds infinite values \(1 of 20 rows, the first is row {row}; in column {column}\)"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK", chunk)
        with pytest.raises(DataError, match=words) as caught:
            find(path)
    names: dict[str, Any] = {"np": np, "x": x}
    exec(str(caught.value).partition("make them NaN: ")[2], names)
    assert np.isinf(find(saved(path, names["x"])).train.x).sum() == 0


def test_a_file_of_nothing_but_missing_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no number at all"):
        find(saved(tmp_path / "own.npy", np.full((20, 3), np.nan)))


# ------------------------------------------------------------------------------------------------- names in an archive

X, Y = np.arange(240.0).reshape(40, 6), np.arange(40) % 3
TEST, Y_TEST, VALID = X[:7] + 1, Y[:7] + 1, X[:5] + 2
NAMED: dict[str, dict[str, np.ndarray]] = {
    "x y": {"x": X, "y": Y},
    "capitals": {"X": X, "Y": Y},
    "images labels": {"images": X, "labels": Y},
    "imgs target": {"imgs": X, "target": Y},
    "data target": {"data": X, "target": Y},
    "features class": {"features": X, "class": Y},
    "x beside images": {"images": X + 9, "x": X, "y": Y},
    "x beside others": {"x": X, "weights": np.ones(40), "y": Y, "b": X},
    "unnamed": {"arr_0": X, "arr_1": Y},
    "unnamed, a column": {"arr_0": X, "arr_1": Y[:, None]},
    "of any name": {"spectra": X, "kind": Y},
    "of any name, labels first": {"kind": Y, "spectra": X},
}
PARTS: dict[str, dict[str, np.ndarray]] = {
    "x_train": {"x_train": X, "y_train": Y, "x_test": TEST, "y_test": Y_TEST, "x_valid": VALID},
    "X_train": {"X_train": X, "Y_train": Y, "X_test": TEST, "Y_test": Y_TEST, "X_val": VALID},
    "train_x": {"train_x": X, "train_y": Y, "test_x": TEST, "test_y": Y_TEST, "validation_x": VALID},
    "train_images": {"train_images": X, "train_labels": Y[:, None], "test_images": TEST,
                     "test_labels": Y_TEST[:, None], "val_images": VALID},
    "train": {"train": X, "train_labels": Y, "test": TEST, "test_labels": Y_TEST, "valid": VALID},
    "xtrain": {"xtrain": X, "ytrain": Y, "xtest": TEST, "ytest": Y_TEST, "xvalid": VALID},
    "in any order": {"y_test": Y_TEST, "x_val": VALID, "x_test": TEST, "y_train": Y, "x_train": X},
}  # fmt: skip


@pytest.mark.parametrize("case", NAMED)
def test_rows_and_labels_are_known_by_their_names(tmp_path: Path, case: str) -> None:
    found = find(saved(tmp_path / "own.npz", **NAMED[case]))
    assert list(found.parts()) == ["train"]
    assert np.array_equal(found.train.x, X)
    assert found.train.y is not None
    assert np.array_equal(found.train.y, Y)
    unused = set(NAMED[case]) - {"x", "y"} if "beside" in case else set()
    assert [note.partition("not used: ")[2].split(", ") for note in found.notes] == ([[*unused]] if unused else []) or (
        set(found.notes[0].partition("not used: ")[2].split(", ")) == unused
    )


@pytest.mark.parametrize("case", PARTS)
def test_a_files_own_parts_are_kept(tmp_path: Path, case: str) -> None:
    found = find(saved(tmp_path / "own.npz", **PARTS[case]))
    assert found.valid is not None
    assert found.test is not None
    for part, x, y in [(found.train, X, Y), (found.test, TEST, Y_TEST), (found.valid, VALID, None)]:
        assert np.array_equal(part.x, x)
        assert (part.y is None) if y is None else np.array_equal(part.y, y)  # pyright: ignore
    assert found.notes == ()


UNCLEAR: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "two tables": ({"a": X, "b": X}, r"holds a \(40, 6\) float64, b \(40, 6\) float64, but the data must be called x"),
    "two of one role": ({"images": X, "data": X}, "must be called x"),
    "four unnamed": ({"arr_0": X, "arr_1": Y, "arr_2": X, "arr_3": Y}, "must be called x"),
    "all and a part": ({"x": X, "x_test": TEST}, "holds both x, all rows, and parts of them .x_test."),
    "nothing to train on": ({"x_test": TEST, "y_test": Y_TEST}, "there are no rows to train on, x_train"),
    "labels alone": ({"y": Y}, r"holds y \(40,\) int64, but the data must be called x"),
    "parts of two widths": ({"x_train": X, "x_test": X[:, :5]}, "its parts differ in the shape of a row"),
    "parts of two shapes": ({"x_train": X.reshape(40, 2, 3), "x_test": X.reshape(40, 3, 2)}, "differ in the shape"),
    "nothing": ({}, "holds nothing"),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_an_archive_that_leaves_a_choice_says_what_it_holds(tmp_path: Path, case: str) -> None:
    arrays, words = UNCLEAR[case]
    with pytest.raises(DataError, match=words) as caught:
        find(saved(tmp_path / "own.npz", **arrays))
    assert "\n" not in str(caught.value)


def test_labels_stop_no_rows(tmp_path: Path) -> None:
    objects = np.array([None] * 40)
    for y, words in [(objects, "not object"), (Y[:9], "must be 40 labels"), (Y + 1j, "complex128")]:
        found = find(saved(tmp_path / "own.npz", x=X, y=y))
        assert found.train.y is None
        assert words in found.train.label_problem
    content = (tmp_path / "own.npz").read_bytes()
    np.savez(tmp_path / "good.npz", x=X)
    with pytest.raises(DataError, match="never unpickled"):
        find(saved(tmp_path / "own.npz", x=np.array([[None, 1]] * 40)))
    assert content  # nothing of it was run: its reader refuses objects by their header


# -------------------------------------------------------------------------------------------------------- sparse


@given(seed=SEEDS, n=sizes(2, 1, 9), blocks=sizes(2, 1, 4), kind=st.sampled_from(["csr", "csc", "coo", "bsr", "dia"]),
       dtype=st.sampled_from(["float64", "float32", "int64", "int8", "bool", "uint16"]), array=st.booleans(),
       packed=st.booleans(), at_once=st.integers(1, 20))  # fmt: skip
def test_a_sparse_matrix_of_scipy_becomes_its_dense_numbers(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: tuple[int, ...], blocks: tuple[int, ...], kind: str,
    dtype: str, array: bool, packed: bool, at_once: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    dense = (
        rng.integers(0, 99, (n[0] * blocks[0], n[1] * blocks[1])) * (rng.random((n[0] * blocks[0], 1)) < 0.6)
    ).astype(dtype)
    if dtype == "float64":
        dense += (dense != 0) * rng.random()  # more digits than float32 has
    made = scipy.sparse.csr_array(dense) if array else scipy.sparse.csr_matrix(dense)
    made = made.asformat(kind) if kind != "bsr" else made.tobsr(blocksize=blocks)
    path = tmp_path_factory.mktemp("a") / "own.npz"
    scipy.sparse.save_npz(path, made, compressed=packed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinyvae.training.data.readers.sparse._AT_ONCE", at_once)
        x = find(path).train.x
    assert np.array_equal(x, dense)
    assert x.dtype == (np.float32 if np.array_equal(dense.astype(np.float32), dense) else np.float64)


def test_entries_given_twice_are_added_as_scipy_does(tmp_path: Path) -> None:
    coo = scipy.sparse.coo_matrix(([1.0, 2.0, 4.0], ([0, 0, 2], [1, 1, 0])), shape=(3, 2))
    scipy.sparse.save_npz(tmp_path / "own.npz", coo)
    assert np.array_equal(find(tmp_path / "own.npz").train.x, coo.toarray())
    assert _AT_ONCE > 1


CSR: dict[str, Any] = {"format": b"csr", "shape": np.array([3, 4]), "data": np.ones(3), "indices": np.array([0, 3, 1]),
                       "indptr": np.array([0, 1, 2, 3])}  # fmt: skip
BROKEN_SPARSE: dict[str, dict[str, Any]] = {
    "a column too far": {"indices": np.array([0, 4, 1])},
    "a column below 0": {"indices": np.array([0, -1, 1])},
    "a row below 0": {"format": b"coo", "row": np.array([0, -1, 1]), "col": np.array([0, 1, 2])},
    "a row too far": {"format": b"coo", "row": np.array([0, 3, 1]), "col": np.array([0, 1, 2])},
    "rows that go back": {"indptr": np.array([0, 2, 1, 3])},
    "rows past the end": {"indptr": np.array([0, 1, 2, 9])},
    "rows too few": {"indptr": np.array([0, 3])},
    "no whole numbers": {"indptr": np.array([0.0, 1, 2, 3])},
    "fewer values": {"data": np.ones(2)},
    "values in a table": {"data": np.ones((3, 2))},
    "objects": {"data": np.array([None] * 3)},
    "another format": {"format": b"lil"},
    "a format that is none": {"format": np.arange(3)},
    "three dimensions": {"shape": np.array([3, 4, 5])},
    "no columns": {"shape": np.array([3, 0])},
    "more than any memory": {"shape": np.array([3, 10**14])},
    "blocks that do not fill": {"format": b"bsr", "data": np.ones((3, 2, 2))},
    "a block too far": {"format": b"bsr", "data": np.ones((3, 1, 2)), "indices": np.array([0, 2, 1])},
    "strange diagonals": {"format": b"dia", "offsets": np.array([0])},
    "coo without rows": {"format": b"coo"},
}


@pytest.mark.parametrize("case", BROKEN_SPARSE)
def test_a_broken_sparse_matrix_is_one_line(tmp_path: Path, case: str) -> None:
    np.savez(tmp_path / "own.npz", **(CSR | BROKEN_SPARSE[case]))
    with pytest.raises(DataError, match=r"own\.npz") as caught:
        find(tmp_path / "own.npz")
    assert "\n" not in str(caught.value)
    np.savez(tmp_path / "own.npz", **CSR)
    assert find(tmp_path / "own.npz").train.x.sum() == 3


def test_a_sparse_matrix_that_would_not_fit_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scipy.sparse.save_npz(tmp_path / "own.npz", scipy.sparse.csr_matrix((30_000, 30_000), dtype=np.float32))
    monkeypatch.setattr(memory, "available", lambda: 1e9)
    with pytest.raises(DataError, match=r"not enough memory: about 3\.6 GB are needed"):
        find(tmp_path / "own.npz")


# -------------------------------------------------------------------------------------------------------- memory

LIMITED = """
import resource, sys, pathlib, numpy as np
import tinyvae.training.data.readers.arrays
from tinyvae.training.data.found import find
from tinyvae.errors import DataError
used = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + {room}, used + {room}))
try:
    found = find(pathlib.Path(sys.argv[1]))
except DataError as error:
    sys.exit(str(error))
x = found.train.x
print(x.shape, x.dtype, x[[5, -1]].sum(), len(found.notes))
with open("/proc/self/status") as status:  # ru_maxrss would be that of the process which started this one
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def under_a_limit(path: Path, room: int, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"{before}\n{LIMITED.format(room=room)}"
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False,
                          env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})  # fmt: skip


def holes(path: Path, rows: int, descr: str) -> Path:
    """A true .npy file of (rows, 100) zeros, of which the disk holds only the header."""
    header = npy(f"({rows}, 100)", descr)
    path.write_bytes(header)
    os.truncate(path, len(header) + np.dtype(descr).itemsize * 100 * rows)
    return path


@pytest.mark.sweeps
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_DATA") or sys.platform != "linux", reason="Linux limits data so")
@pytest.mark.parametrize("descr", ["<f8", "<f4", "|u1", "|b1"])
def test_a_file_larger_than_the_memory_allowed_is_read_where_it_is(tmp_path: Path, descr: str) -> None:
    """400 MB (1-byte types: 100 MB) with 80 MB of room: a chunk is 16 MB, and three of them are looked at."""
    rows = {"<f8": 500_000, "<f4": 1_000_000}.get(descr, 1_000_000)
    room = 80_000_000 if descr[1] == "f" else 40_000_000
    done = under_a_limit(holes(tmp_path / "own.npy", rows, descr), room)
    assert done.stdout.startswith(f"({rows}, 100) "), done.stderr
    if descr[1] == "f":  # pages that were looked at are given back: 400 MB never lie in the process
        assert int(done.stdout.split()[-1]) < 200_000  # kB
    converted = under_a_limit(holes(tmp_path / "own.npy", rows, descr.replace("<", ">").replace("|u1", "|i1")), room)
    if descr != "|b1":  # what must be converted does not fit, and says so
        assert "not enough memory" in converted.stderr
        assert converted.stderr.count("\n") == 1


def test_a_file_is_read_only_where_it_is_looked_at(tmp_path: Path) -> None:
    """8 MB under a limit of 3: what is mapped is no data of the process."""
    path = holes(tmp_path / "own.npy", 10_000, "<f8")
    done = under_a_limit(path, 3_000_000, "from tinyvae.training.data.readers import layout; layout.CHUNK = 1 << 16")
    assert done.stdout.startswith("(10000, 100) float64 0.0 0\n"), done.stderr


def test_what_is_packed_is_no_more_than_it_claims(tmp_path: Path) -> None:
    (tmp_path / "own.npz").write_bytes(zipped("spectra.npy", npy("(100000000000, 9)", follows=800)))
    with pytest.raises(DataError, match="7,200,000,000,000 bytes, but"):
        find(tmp_path / "own.npz")

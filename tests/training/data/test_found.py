"""The one front: what is asked for must be there, and a file, and read without running anything."""

import os
import pickle
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS

from tinyvae.errors import DataError
from tinyvae.training.data.convert import is_path
from tinyvae.training.data.found import find
from tinyvae.training.data.readers import READERS, ending_of
from tinyvae.training.data.readers.labels import SHARE, stored_labels

SOON = 5.0  # seconds, for what would wait for ever


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# ------------------------------------------------------------------------------------------------------- endings


@pytest.mark.parametrize("ending", READERS)
def test_an_ending_is_known_in_any_case_and_every_reader_is_there(ending: str) -> None:
    for name in (f"own{ending}", f"OWN{ending.upper()}", f"a.b{ending}"):
        assert ending_of(Path(name)) == ending
        assert is_path(name)
    assert not is_path(ending)
    assert not is_path("own" + ending[1:])
    assert Path(find.__code__.co_filename).with_name("readers").joinpath(f"{READERS[ending].file}.py").is_file()


def test_what_is_not_read_is_told_how_to_convert_it() -> None:
    Path("own.h5").touch()
    with pytest.raises(DataError, match=r"own\.h5: is in a format that is not read; in Python: import h5py"):
        find(Path("own.h5"))
    with pytest.raises(DataError, match="there is no such file"):
        find(Path("own.csv"))


@pytest.mark.parametrize("ending", READERS)
def test_nothing_but_a_file_is_opened(ending: str) -> None:
    os.mkfifo(f"pipe{ending}")
    Path(f"zeros{ending}").symlink_to("/dev/zero")
    Path(f"folder{ending}").mkdir()
    Path(f"link{ending}").symlink_to("nowhere")
    began = time.monotonic()
    for name, words in [
        ("pipe", "is a pipe"),
        ("zeros", "is a device"),
        ("folder", "is a folder"),
        ("link", "is a link"),
    ]:
        with pytest.raises(DataError, match=words):
            find(Path(name + ending))
    assert time.monotonic() - began < SOON


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("ending", READERS)
def test_nothing_is_ever_unpickled(ending: str) -> None:
    path = Path(f"own{ending}")
    trap = np.array([[Trap(), 1.0]] * 20, dtype=object)
    contents = [pickle.dumps(Trap()), pickle.dumps(pd.DataFrame({"a": [1.0, 2.0]}))]
    if ending == ".npy":
        np.save("trap.npy", trap)
        contents.append(Path("trap.npy").read_bytes())
    if ending == ".npz":
        np.savez("trap.npz", x=trap)
        contents.append(Path("trap.npz").read_bytes())
        np.savez("trap.npz", format=trap[:1, 0], shape=trap[0], data=trap[0], indices=trap[0], indptr=trap[0])
        contents.append(Path("trap.npz").read_bytes())
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"own") as caught:
            find(path)
        assert "\n" not in str(caught.value)
    assert not Path("sprung").exists()


# -------------------------------------------------------------------------------------------------------- labels

KINDS = {
    "whole": lambda rng, n: rng.integers(-5, 9, n),
    "bytes": lambda rng, n: rng.integers(0, 9, n).astype(np.uint8),
    "big-endian": lambda rng, n: rng.integers(0, 900, n).astype(">i4"),
    "bools": lambda rng, n: rng.random(n) < 0.5,
    "whole floats": lambda rng, n: rng.integers(1, 4, n).astype(float),
    "few floats": lambda rng, n: rng.choice([0.5, 1.5], n),
    "words": lambda rng, n: rng.choice(["cat", "dog", "K\xf6ln"], n),
}


@given(
    seed=SEEDS,
    n=st.integers(4, 30),
    kind=st.sampled_from(sorted(KINDS)),
    shape=st.sampled_from(["flat", "column", "row"]),
)
def test_labels_come_flat_and_as_they_are(seed: int, n: int, kind: str, shape: str) -> None:
    y = KINDS[kind](np.random.default_rng(seed), n)
    stored = {"flat": y, "column": y[:, None], "row": y[None]}[shape]
    got, problem = stored_labels(stored, n, "y")
    assert problem == ""
    assert got is not None
    assert got.shape == (n,)
    assert got.dtype == y.dtype.newbyteorder("=")
    assert np.array_equal(got, y)


@given(
    seed=SEEDS, n=st.integers(2, 20), k=st.integers(2, 6), dtype=st.sampled_from(["uint8", "float64", "bool", "int64"])
)
def test_one_hot_labels_are_where_the_one_is_and_nothing_else_is_one_hot(seed: int, n: int, k: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    hot = np.eye(k)[y].astype(dtype)
    got, _ = stored_labels(hot, n, "y")
    assert got is not None
    assert np.array_equal(got, y)
    for bad in (1, 0):  # two ones, or none
        wrong = hot.copy()
        wrong[rng.integers(0, n), (y[0] + 1) % k if bad else slice(None)] = bad
        if (wrong.astype(float).sum(axis=1) == 1).all():
            continue
        assert stored_labels(wrong, n, "y")[0] is None
    if dtype == "float64":
        assert stored_labels(0.5 * hot, n, "y")[0] is None


UNUSABLE = {
    "other length": (np.arange(19), "y must be 20 labels, one for each row of x, not int64 .19,"),
    "NaN": (
        np.where(np.arange(20) == 3, np.nan, 1.0),
        "y has no label in 1 of 20 rows, the first is row 3 .nan.;",
    ),
    "infinite": (np.where(np.arange(20) == 3, np.inf, 1.0), "the first is row 3 .inf."),
    "measurements": (np.arange(20) / 7, "20 different numbers in 20 rows: those are measurements, not labels"),
    "scores": (np.arange(60).reshape(20, 3) / 7, "if the largest of a row is its class: y = y.argmax"),
    "complex": (np.ones(20, complex), "not complex128"),
    "dates": (np.arange(20).astype("M8[D]"), r"y = y.astype\(str\)"),
    "no number": (np.float64(3), r"not float64 \(\)"),
    "records": (np.zeros(20, dtype=[("a", "f8")]), "must be 20 labels"),
    "bytes in another coding": (np.array([b"K\xf6ln"] * 20), "no UTF-8 text; y = np.char.decode"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_labels_that_cannot_be_used_say_why(case: str) -> None:
    y, words = UNUSABLE[case]
    got, problem = stored_labels(y, 20, "y")
    assert got is None
    assert re.search(words, problem), problem
    np.savez("own.npz", x=np.zeros((20, 3)), y=y)
    part = find(Path("own.npz")).train
    assert (part.y, part.label_problem) == (None, f"own.npz: {problem}")


@given(n=st.integers(4, 40), different=st.integers(1, 40))
def test_floats_are_classes_if_each_occurs_so_often(n: int, different: int) -> None:
    y = (np.arange(n) % different + 0.5) / 3
    got, _ = stored_labels(y, n, "y")
    assert (got is not None) == (SHARE * min(n, different) <= n)


def test_text_in_bytes_becomes_text() -> None:
    got, _ = stored_labels(np.array(["K\xf6ln".encode(), b"Bonn"]), 2, "y")
    assert got is not None
    assert got.tolist() == ["K\xf6ln", "Bonn"]

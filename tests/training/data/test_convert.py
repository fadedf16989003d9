"""Files of other formats get the line of Python that makes a .npy file of each, and it does."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from remedies import SMALL, UNIT
from running import run

from tinyvae.errors import DataError
from tinyvae.training.data.convert import how_to_convert
from tinyvae.training.data.user import load_user_file


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pickled(path: str) -> None:
    with Path(path).open("wb") as file:
        pickle.dump(UNIT, file)


def zipped_npy(path: str) -> None:
    with gzip.open(path, "wb") as file:
        np.save(file, UNIT)  # pyright: ignore[reportArgumentType] - any file will do


FORMATS = {
    "own.mat": lambda path: scipy.io.savemat(path, {"x": UNIT}),
    "own.pkl": pickled,
    "own.npy.gz": zipped_npy,
    "pickle.npy": pickled,
    "own.json": lambda path: Path(path).write_text(str(UNIT.tolist())),
}


@pytest.mark.parametrize("name", FORMATS)
def test_another_format_gets_the_line_that_converts(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    FORMATS[name](name)
    before = set(Path.cwd().iterdir())
    run("train", "--data", name, *SMALL, "--out", "run")
    err = capsys.readouterr().err.strip()
    assert err.count("\n") == 0
    line = err.partition("in Python: ")[2].removesuffix(" (see tinyvae train --help)")
    exec(line, {})
    (made,) = set(Path.cwd().iterdir()) - before
    data = load_user_file(made)
    assert (data.data_dim, data.image_shape) == (6, None)


@pytest.mark.parametrize("name", ["a.h5", "a.hdf5", "a.pt", "a.xlsx", "a.safetensors", "a.bmp", "a.feather"])
def test_the_line_for_formats_whose_libraries_are_not_at_hand_is_python(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_bytes(b"?")
    assert run("train", "--data", name, "--out", "run") == 2
    err = capsys.readouterr().err
    compile(err.partition("in Python: ")[2].removesuffix(" (see tinyvae train --help)\n"), name, "exec")


def test_a_file_that_is_read_under_its_own_ending_is_told_the_name() -> None:
    for content, name in [(b"PAR1", "own.parquet"), (b"a,b\n1,2\n", "own.csv")]:
        Path("own.npy").write_bytes(content)
        with pytest.raises(DataError, match=rf"let its name end so: {name}$"):
            load_user_file(Path("own.npy"))
    assert how_to_convert(Path("a/one.png")) == "a data set is a folder of images: name the folder, a"


def test_the_published_files_by_their_own_names_are_told_how_they_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in [
        ("t10k-images-idx3-ubyte.gz", "--data mnist"),
        ("binarized_mnist_test", "binarized-mnist"),
    ]:
        Path(name).write_bytes(b"?")
        run("train", "--data", name, "--out", "run")
        assert f"{words} (or fashion-mnist) --data-dir ." in (err := capsys.readouterr().err) or words in err


def test_a_missing_file_is_first_of_all_missing(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("no.npy", "no.csv", "no.npz", "no.parquet"):
        assert run("train", "--data", name, "--out", "run") == 2
        assert f"--data {name}: there is no such file" in capsys.readouterr().err

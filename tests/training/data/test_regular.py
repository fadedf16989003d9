"""Reading ends, and takes what it must: no pipe is waited for, no device read, no claim of a file believed."""

import gzip
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import run

from tinyvae.errors import DataError
from tinyvae.training import data
from tinyvae.training.data import published
from tinyvae.training.data.user import load_user_file

SOON = 5.0  # seconds, for what would take for ever or fill the memory


# --------------------------------------------------------------------------------------------------- what is no file


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to(path.with_name("pipe"))


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name must be short
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path.name)
    finally:
        os.chdir(here)


NO_FILES: dict[Callable[[Path], None], str] = {
    pipe: "is a pipe, not a file",
    link_to_pipe: "is a pipe, not a file",
    link_to_zeros: "is a device, not a file",
    unix_socket: "is a socket, not a file",
    Path.mkdir: "is a folder, not a file",
    link_to_itself: "Too many levels of symbolic links",
    link_to_nothing: "is a link to a file that is not there",
}


@pytest.mark.parametrize("ending", [".npy", ".npz"])
@pytest.mark.parametrize("make", NO_FILES, ids=lambda make: make.__name__)
def test_a_users_data_must_be_a_file(
    tmp_path: Path, make: Callable[[Path], None], ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"own{ending}"
    make(path)
    began = time.monotonic()
    with pytest.raises(DataError, match=NO_FILES[make]):
        load_user_file(path)
    assert run("train", "--data", path, "--out", tmp_path / "run") == 2
    assert time.monotonic() - began < SOON
    assert NO_FILES[make] in capsys.readouterr().err


@pytest.mark.parametrize(("name", "file"), [("mnist", "train-images-idx3-ubyte.gz"),
                                            ("binarized-mnist", "binarized_mnist_train.amat"),
                                            ("binarized-mnist", "binarized_mnist_train.amat.gz")])  # fmt: skip
@pytest.mark.parametrize("make", [pipe, link_to_pipe, link_to_zeros, unix_socket, Path.mkdir])
def test_a_published_file_must_be_a_file(tmp_path: Path, make: Callable[[Path], None], name: str, file: str) -> None:
    make(tmp_path / file)
    began = time.monotonic()
    with pytest.raises(DataError, match=rf"{file}: {NO_FILES[make]}"):
        data.load(name, tmp_path)
    assert time.monotonic() - began < SOON


def test_a_name_that_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for path, words in [
        (tmp_path / ("n" * 300 + ".npy"), "File name too long"),
        (tmp_path / "file" / "own.npy", "Not a directory"),
    ]:
        assert run("train", "--data", path, "--out", tmp_path / "run") == 2
        assert words in capsys.readouterr().err
    for folder in (tmp_path / ("n" * 300), tmp_path / "file" / "below"):
        assert run("train", "--data", "mnist", "--data-dir", folder, "--out", tmp_path / "run") == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "cannot be written" in err


# ----------------------------------------------------------------------------------------- more than a file should hold


@pytest.mark.parametrize("file", ["binarized_mnist_train.amat.gz", "binarized_mnist_train.amat"])
def test_of_a_file_that_unpacks_without_an_end_no_more_is_read_than_the_published_one_has(
    tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 1 << 20
    source = published.Source(
        (), tuple(published.Published(p.file, p.hash, size) for p in published.BINARIZED_MNIST.files)
    )
    monkeypatch.setattr(published, "BINARIZED_MNIST", source)
    if file.endswith(".gz"):
        member = gzip.compress(bytes(10_000_000))
        (tmp_path / file).write_bytes(600 * member)  # 6 GB of zeros
    else:
        (tmp_path / file).touch()
        os.truncate(tmp_path / file, 10**12)  # a TB that takes no room
    read: list[int] = []
    original = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda f, n=-1: read.append(n) or original(f, n))
    began = time.monotonic()
    with pytest.raises(DataError, match=r"is not the published file \(it holds more than the 1,048,576 bytes"):
        data.load("binarized-mnist", tmp_path)
    assert time.monotonic() - began < SOON
    assert sum(read) <= size + (1 << 20) + 1

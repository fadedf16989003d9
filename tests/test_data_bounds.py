"""Reading ends, and takes what it must: no pipe is waited for, no device read, no claim of a file believed."""

import gzip
import io
import os
import resource
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_commands import run

from tinyvae.errors import DataError
from tinyvae.training import data
from tinyvae.training.data import memory, published
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


def npy(shape: str, descr: str = "<f8", version: int = 1, pad: int = 0, follows: int = 0) -> bytes:
    """A .npy file with this header and so many zeros."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode() + b" " * pad
    length = len(header) + 1
    return (
        b"\x93NUMPY"
        + struct.pack("<BBH" if version == 1 else "<BBI", version, 0, length)
        + header
        + b"\n"
        + bytes(follows)
    )


def zipped(name: str, content: bytes, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def lying_size(archive: bytes, size: int) -> bytes:
    """The .npz file whose table of contents gives its one array another size."""
    at = archive.rindex(b"PK\x01\x02")
    return archive[: at + 24] + struct.pack("<I", size) + archive[at + 28 :]


CLAIMS = {
    "terabytes.npy": (npy("(100000000000, 9)", follows=800), "cut short: .* 7,200,000,000,000 bytes, but 800"),
    "beyond counting.npy": (npy(f"({10**30}, 9)", follows=800), "is cut short"),
    "less than nothing.npy": (npy("(-10, 9)", follows=720), r"its header names the shape \(-10, 9\)"),
    "a header of megabytes.npy": (npy("(10, 9)", version=2, pad=5_000_000, follows=720), "its header is far too long"),
    "brackets.npy": (b"\x93NUMPY\x01\0" + struct.pack("<H", 5000) + b"(" * 5000, "its header cannot be read"),
    "format 9.npy": (npy("(10, 9)", version=9, follows=720), r"its format version, \(9, 0\), is none"),
    "a hundred dimensions.npy": (npy("(" + "1, " * 100 + ")", follows=8), r"x has shape"),
    "terabytes.npz": (zipped("x.npy", npy("(100000000000, 9)", follows=800)), "7,200,000,000,000 bytes, but"),
    "another size.npz": (lying_size(zipped("x.npy", npy("(20, 5)", follows=800)), 4 * 10**9), "more than can be in it"),
    "lzma.npz": (zipped("x.npy", npy("(20, 5)", follows=800), zipfile.ZIP_LZMA), "packed in another way"),
    "bzip2.npz": (zipped("x.npy", npy("(20, 5)", follows=800), zipfile.ZIP_BZIP2), "packed in another way"),
    "a long header.npz": (zipped("x.npy", npy("(10, 9)", version=2, pad=5_000_000, follows=720)), "header is far"),
}  # fmt: skip


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_file_claims_is_held_against_its_size(tmp_path: Path, name: str) -> None:
    content, message = CLAIMS[name]
    path = tmp_path / name
    path.write_bytes(content)
    began = time.monotonic()
    with pytest.raises(DataError, match=message) as caught:
        load_user_file(path)
    assert time.monotonic() - began < SOON
    assert "\n" not in str(caught.value)


def test_a_header_or_a_table_of_contents_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    header = tmp_path / "header.npy"
    header.write_bytes(b"\x93NUMPY\x02\0\xff\xff\xff\xff")
    os.truncate(header, 5 * 10**9)
    with pytest.raises(DataError, match="its header is far too long"):
        load_user_file(header)
    table = tmp_path / "table.npz"  # its end says, in zip64, that 49 GB of contents stand before it
    with table.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(5 * 10**10)
        end = file.seek(0, 2)
        file.write(struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 49 * 10**9, 10**9))
        file.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1))
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    began = time.monotonic()
    with pytest.raises(DataError, match="table of contents claims to be 49,000,000,000 bytes"):
        load_user_file(table)
    assert time.monotonic() - began < SOON


# --------------------------------------------------------------------------------------------------------------- memory


def sparse(path: Path, rows: int) -> Path:
    """A true .npy file of (rows, 100) zeros, of which the disk holds only the header."""
    header = npy(f"({rows}, 100)")
    path.write_bytes(header)
    os.truncate(path, len(header) + 800 * rows)
    return path


def test_more_than_the_memory_there_is_is_called_so_before_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1e9)
    words = r"own\.npy: x, \(3750000, 100\) float64: not enough memory: about 3.0 GB are needed, and 1.0 GB are free"
    with pytest.raises(DataError, match=words):
        load_user_file(sparse(tmp_path / "own.npy", 3_750_000))


def test_memory_that_runs_out_is_called_so(tmp_path: Path) -> None:
    """3 GB under a limit of 2.5 GB, as `ulimit -v 2500000` sets it: in a process of its own."""
    path = sparse(tmp_path / "own.npy", 3_750_000)
    limit = 2_500_000 * 1024
    code = "import sys; from tinyvae.commands import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "train", "--data", str(path), "--backend", "numpy", "--kernels", "numpy",
               "--out", str(tmp_path / "run")]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "not enough memory: about 3.0 GB are needed" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_memory_that_runs_out_at_any_allocation_is_never_called_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "own.npy", np.zeros((20, 3)))
    np.savez(tmp_path / "own.npz", x=np.zeros((20, 3)))

    def fails(*args: object, **options: object) -> None:
        raise MemoryError

    for name in ("own.npy", "own.npz"):
        for where in ("lib.format.read_array", "isfinite"):
            with monkeypatch.context() as patch:
                patch.setattr(np.lib.format if "." in where else np, where.rpartition(".")[2], fails)
                with pytest.raises(DataError, match="not enough memory"):
                    load_user_file(tmp_path / name)

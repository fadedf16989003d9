"""The arrays of a file: what a header claims is held against the file's size, before anything is made."""

import os
import struct
import time
import zipfile
from pathlib import Path

import pytest
from stored_arrays import npy, zipped

from tinyvae.errors import DataError
from tinyvae.training.data.user import load_user_file

SOON = 5.0  # seconds, for what would take for ever or fill the memory


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

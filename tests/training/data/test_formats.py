"""Published files: the two formats and every way to damage them, and the download from mirrors that misbehave."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from stored_arrays import idx

from tinyvae.errors import DataError
from tinyvae.training.data.formats import read_amat, read_idx

# ------------------------------------------------------------------------------------------------------------------ IDX

IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["images.gz", "images"])
def test_an_idx_file_is_read_zipped_or_not(tmp_path: Path, name: str) -> None:
    a = read_idx(written(tmp_path / name, idx(IMAGES)), (4, 3, 2))
    assert a.dtype == np.uint8
    assert np.array_equal(a, IMAGES)
    labels = read_idx(written(tmp_path / name, idx(IMAGES[:, 0, 0])), (4,))
    assert np.array_equal(labels, IMAGES[:, 0, 0])


BAD_IDX = {
    "no zeros in front": (idx(IMAGES, zeros=1), "the header is not"),
    "floats": (idx(IMAGES, kind=0x0D), "the header is not"),
    "signed bytes": (idx(IMAGES, kind=0x09), "the header is not"),
    "two dimensions": (idx(IMAGES, dimensions=2), "the header is not"),
    "another shape of the same size": (idx(IMAGES.reshape(4, 2, 3)), "of 4 x 3 x 2 unsigned bytes"),
    "fewer images": (idx(IMAGES[:3]), "the header is not"),
    "little-endian sizes": (idx(IMAGES)[:4] + struct.pack("<3I", 4, 3, 2) + IMAGES.tobytes(), "the header is not"),
    "nothing": (b"", "the header is not"),
    "half a header": (idx(IMAGES)[:9], "the header is not"),
    "a byte too few": (idx(IMAGES)[:-1], "fewer than the 24 bytes"),
    "a byte too many": (idx(IMAGES) + b"\0", "more than the 24 bytes"),
}


@pytest.mark.parametrize("case", BAD_IDX)
def test_an_idx_file_that_is_not_exactly_as_published_is_refused(tmp_path: Path, case: str) -> None:
    content, message = BAD_IDX[case]
    with pytest.raises(DataError, match=message) as caught:
        read_idx(written(tmp_path / "images.gz", content), (4, 3, 2))
    assert "images.gz" in str(caught.value)


def test_a_file_that_unpacks_to_far_more_than_it_should_is_not_unpacked_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda f, size=-1: asked.append(size) or read(f, size))
    with pytest.raises(DataError, match="more than the 24 bytes"):
        read_idx(written(tmp_path / "images.gz", idx(IMAGES) + bytes(10_000_000)), (4, 3, 2))
    assert min(asked) >= 0  # never "all there is"
    assert sum(asked) == 16 + 24 + 1


def test_a_gzip_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "images.gz", idx(IMAGES))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"images\.gz"):
            read_idx(path, (4, 3, 2))


def test_a_wrong_checksum_inside_the_gzip_file_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path / "images.gz", idx(IMAGES))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the CRC stands 8 bytes before the end
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"not an undamaged gzip file \(CRC.*delete it to have it downloaded again"):
        read_idx(path, (4, 3, 2))


def test_no_single_flipped_bit_in_the_packed_data_goes_unseen(tmp_path: Path) -> None:
    path = written(tmp_path / "images.gz", idx(IMAGES))
    whole = path.read_bytes()
    for bit in range(8 * 10, 8 * (len(whole) - 4)):  # after gzip's own header (time, system), up to the length
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(content))
        try:
            a = read_idx(path, (4, 3, 2))
        except DataError:
            continue
        assert np.array_equal(a, IMAGES), bit  # bits that pad the last block mean nothing


# ---------------------------------------------------------------------------------------------------------------- .amat

BITS = np.random.default_rng(0).integers(0, 2, (7, 5)).astype(np.uint8)
TEXT = "".join(" ".join(map(str, row)) + "\n" for row in BITS).encode()


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
@pytest.mark.parametrize("name", ["bits.amat", "bits.amat.gz"])
def test_an_amat_file_is_read_zipped_or_not_in_chunks_of_any_size(tmp_path: Path, name: str, chunk: int) -> None:
    x = read_amat(written(tmp_path / name, TEXT), 7, 5, chunk)
    assert x.dtype == np.uint8
    assert np.array_equal(x, BITS)


BAD_AMAT = {
    "a comma": (TEXT.replace(b" ", b",", 1), "a row between 0 and 3 is not 5 zeros and ones"),
    "a 2": (b"2" + TEXT[1:], "a row between 0 and 3"),
    "a 2 in the last chunk": (TEXT[:-2] + b"2\n", "a row between 6 and 7"),
    "a minus": (b"-" + TEXT[1:], "is not 5 zeros and ones"),
    "a NUL": (b"\0" + TEXT[1:], "is not 5 zeros and ones"),
    "a longer row": (TEXT[:9] + b" 1" + TEXT[9:], "is not 5 zeros and ones"),
    "Windows line ends": (TEXT.replace(b"\n", b"\r\n"), "is not 5 zeros and ones"),
    "no last newline": (TEXT[:-1], "ends before row 7"),
    "a row too few": (TEXT[:-10], "ends before row 7"),
    "nothing": (b"", "ends before row 7"),
    "a row too many": (TEXT + TEXT[:10], "goes on after row 7"),
}


@pytest.mark.parametrize("name", ["bits.amat", "bits.amat.gz"])
@pytest.mark.parametrize("case", BAD_AMAT)
def test_an_amat_file_that_is_not_exactly_as_published_is_refused(tmp_path: Path, case: str, name: str) -> None:
    content, message = BAD_AMAT[case]
    with pytest.raises(DataError, match=message) as caught:
        read_amat(written(tmp_path / name, content), 7, 5, chunk=3)
    assert name in str(caught.value)

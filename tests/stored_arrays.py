"""Files of arrays, byte by byte: headers that claim what is not there, and published formats."""

import io
import struct
import zipfile

import numpy as np


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


def idx(a: np.ndarray, zeros: int = 0, kind: int = 8, dimensions: int | None = None) -> bytes:
    """An IDX file, as http://yann.lecun.com/exdb/mnist/ describes it."""
    n = a.ndim if dimensions is None else dimensions
    return struct.pack(">HBB", zeros, kind, n) + struct.pack(f">{a.ndim}I", *a.shape) + a.tobytes()

"""Philox4x32-10 in NumPy, from the paper (Salmon et al. 2011), and the noise that the kernels make of it."""

import numpy as np


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Four random words for each row of `counter` (n, 4)."""
    c = [counter[:, i].astype(np.uint64) for i in range(4)]
    k0, k1 = key
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
        c = [(b >> shift) ^ c[1] ^ np.uint64(k0), b & low, (a >> shift) ^ c[3] ^ np.uint64(k1), a & low]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack(c, axis=1).astype(np.uint32)


def words(state: np.ndarray, stream: int, size: int) -> np.ndarray:
    """The words of elements 0 .. size - 1, rounded up to fours: (n, 4)."""
    counter = np.zeros((-(-size // 4), 4), np.uint32)
    counter[:, 0] = np.arange(len(counter))
    counter[:, 1] = state[0]
    counter[:, 2] = stream
    return philox(counter, (int(state[1]), int(state[2])))


def uniforms(state: np.ndarray, stream: int, size: int) -> np.ndarray:
    """Multiples of 2^-24 in [0, 1), exact in float32."""
    return ((words(state, stream, size).ravel()[:size] >> 8) * 2.0**-24).astype(np.float32)


def normals(state: np.ndarray, stream: int, size: int) -> np.ndarray:
    """Box and Muller's, in float64 from numbers that are rounded to float32 as the kernels round them."""
    u = (words(state, stream, size).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
    u = u.astype(np.float64).reshape(-1, 2, 2)  # pairs
    radius, turns = np.sqrt(-2 * np.log(u[..., 0])), u[..., 1]
    z = np.stack([radius * cos_of_turns(turns), radius * cos_of_turns(turns - 0.25)], axis=-1)
    return z.reshape(-1)[:size]


def cos_of_turns(turns: np.ndarray) -> np.ndarray:
    """cos(2 pi turns). Near its zeros it is a sine of a small angle, so that no digits are lost."""
    nearest = np.round(2 * turns - 0.5)  # number of the zero at turns = (nearest + 0.5) / 2
    return np.where(nearest % 2 == 0, -1, 1) * np.sin(2 * np.pi * (turns - (nearest + 0.5) / 2))

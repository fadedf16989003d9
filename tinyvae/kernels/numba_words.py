"""The words of a formula as Numba compiles them, in float32 (`exp32`) and in float64 (`exp64`).

A loop that calls the C library's exp stays scalar. Written out, LLVM makes vector instructions of it:

    e^x = 2^k e^r,  k = x / log 2 rounded, so |r| <= log(2) / 2, and e^r = 1 + r + r^2/2! + ... + r^7/7! + 5e-9
    log x = k log 2 + log f,  x = 2^k f with f in [sqrt(1/2), sqrt(2)], and log f = 2 artanh(s), s = (f - 1) / (f + 1),
    artanh s = s + s^3/3 + ... + s^11/11 + 2e-10 for |s| <= 0.172

In ulps, over all of float32: exp 1.1, expm1 1.6, log 1.9, log1p 2.1, tanh 2.5 (measured, with fused multiply-add). NaN,
infinity and subnormal numbers are what they are in the C library.

All in one file, because Numba compiles a function anew when its own file has changed, and looks at no other.
"""

import math
from typing import Any

import numpy as np
from numba import njit

# NaN and infinity mean what they mean: a training run that diverges must be seen to. And sums stay in their order.
# Inlined: a loop of calls stays scalar.
exact = njit(fastmath={"contract"}, error_model="numpy", nogil=True, forceinline=True)

ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
LOG2_E = np.float32(1 / math.log(2))
LN2_HIGH = np.float32(0.693359375)  # log 2 in two parts: the first has few bits, so k * LN2_HIGH is exact
LN2_LOW = np.float32(math.log(2) - 0.693359375)
LOW, HIGH = np.float32(-104), np.float32(89)  # e^x is 0 below and infinite above, in float32
ROUND = np.float32(1.5 * 2**23)  # adding it and taking it away rounds to a whole number
T3, T4, T5, T6, T7 = (np.float32(1 / math.factorial(n)) for n in (3, 4, 5, 6, 7))
L3, L5, L7, L9, L11, L13 = (np.float32(1 / n) for n in (3, 5, 7, 9, 11, 13))
ROOT_HALF_BITS = np.int32(0x3F3504F3)  # of sqrt(1/2)
SMALLEST, TINY = np.float32(2**-126), np.float32(2**23)
INFINITY, NAN = np.float32(np.inf), np.float32(np.nan)


@exact
def where(condition: Any, a: Any, b: Any) -> Any:
    """A choice."""
    return a if condition else b


@exact
def _power_of_two(k: Any) -> Any:
    bits = np.int32((k + 127) << 23)  # of a float32: the exponent, 127 more than k, in front of 23 bits
    return bits.view(np.float32)


@exact
def _split(x: Any) -> Any:
    """q, s1, s2 with e^x = (1 + q) s1 s2, s1 and s2 powers of two: their product alone could overflow."""
    x = min(max(x, LOW), HIGH)  # NaN stays NaN, and so does r
    k = (x * LOG2_E + ROUND) - ROUND
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    q = r + r * r * (HALF + r * (T3 + r * (T4 + r * (T5 + r * (T6 + r * T7)))))
    whole = np.int32(k)
    half = np.int32(whole >> 1)
    return q, _power_of_two(half), _power_of_two(whole - half)


@exact
def exp32(x: Any) -> Any:
    """e^x."""
    q, s1, s2 = _split(x)
    return (s1 + s1 * q) * s2


@exact
def expm132(x: Any) -> Any:
    """e^x - 1, without the digits that are lost near 0."""
    q, s1, s2 = _split(x)
    s = s1 * s2  # infinite only where e^x is
    y = s * q + (s - ONE)
    if x > HIGH - ONE:
        y = (s1 + s1 * q) * s2
    return y


@exact
def _exponent(x: Any) -> Any:
    """k with x / 2^k in [sqrt(1/2), sqrt(2)), of a normal x > 0."""
    return np.int32(np.int32(np.float32(x).view(np.int32) - ROOT_HALF_BITS) >> 23)


@exact
def _one_over_power_of_two(k: Any) -> Any:
    half = np.int32(k >> 1)
    return _power_of_two(-half) * _power_of_two(half - k)  # 2^-128 has no bits of its own: it is subnormal


@exact
def _log_of(k: Any, f: Any) -> Any:
    """k log 2 + log(1 + f)."""
    s = f / (TWO + f)
    w = s * s
    k = np.float32(k)
    log_f = TWO * (s + s * w * (L3 + w * (L5 + w * (L7 + w * (L9 + w * L11)))))
    return k * LN2_HIGH + (log_f + k * LN2_LOW)


@exact
def log32(x: Any) -> Any:
    """log x; -infinity at 0, NaN below."""
    small = x < SMALLEST
    x_ = where(small, x * TINY, x)
    k = _exponent(x_)
    y = _log_of(where(small, k - np.int32(23), k), x_ * _one_over_power_of_two(k) - ONE)
    return where(x > ZERO, where(x < INFINITY, y, x), where(x == ZERO, -INFINITY, NAN))


@exact
def log1p32(x: Any) -> Any:
    """log(1 + x), with 1 + f = (1 + x) / 2^k taken from x: 1 + x would lose the digits of a small x."""
    k = _exponent(ONE + x)
    s = _one_over_power_of_two(k)
    y = _log_of(k, x * s + (s - ONE))
    return where(x > -ONE, where(x < INFINITY, y, x), where(x == -ONE, -INFINITY, NAN))


@exact
def log1p_unit32(x: Any) -> Any:
    """log(1 + x) for 0 <= x <= 1: 2 artanh(x / (2 + x)), with a term more than above."""
    s = x / (TWO + x)
    w = s * s
    return TWO * (s + s * w * (L3 + w * (L5 + w * (L7 + w * (L9 + w * (L11 + w * L13))))))


@exact
def tanh32(a: Any) -> Any:
    """1 - e^(-2|a|) over 1 + e^(-2|a|), with the sign of a."""
    e = expm132(-TWO * abs(a))
    y = -e / (e + TWO)
    return y if a > 0 else -y


@exact
def sqrt32(x: Any) -> Any:
    """The square root."""
    return np.sqrt(x)


@exact
def exp64(x: Any) -> Any:
    """e^x."""
    return math.exp(x)


@exact
def expm164(x: Any) -> Any:
    """e^x - 1."""
    return math.expm1(x)


@exact
def log64(x: Any) -> Any:
    """log x."""
    return np.log(x)


@exact
def log1p64(x: Any) -> Any:
    """log(1 + x)."""
    return np.log1p(x)


@exact
def log1p_unit64(x: Any) -> Any:
    """log(1 + x)."""
    return np.log1p(x)


@exact
def tanh64(x: Any) -> Any:
    """tanh x."""
    return math.tanh(x)


@exact
def sqrt64(x: Any) -> Any:
    """The square root."""
    return np.sqrt(x)


@exact
def maximum(a: Any, b: Any) -> Any:
    """The larger; NaN if one is."""
    return a if a > b or a != a else b


@exact
def minimum(a: Any, b: Any) -> Any:
    """The smaller; NaN if one is."""
    return a if a < b or a != a else b

"""The words that Numba compiles: in ulps, over all magnitudes of float32, and what they make of infinity and NaN."""

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpmath import mp
from strategies import ULP, sampled

numba = pytest.importorskip(
    "numba", reason="Numba is not installed, so its kernels were not tested: python -m pip install 'tinyvae[numba]'"
)
from tinyvae.kernels import numba_words  # noqa: E402 - it imports Numba

SMALLEST = np.finfo(np.float32).tiny  # below it numbers are subnormal, and have fewer digits
# word -> its truth in float64, where it is defined, and by how many ulps it may be off: a quarter above what is
# measured with fused multiply-add, which not every machine has. Every tolerance counts on ULP.
WORDS: dict[str, tuple[Any, float, float, float]] = {
    "exp": (np.exp, -np.inf, np.inf, 1.3),
    "expm1": (np.expm1, -np.inf, np.inf, 2.0),
    "log": (np.log, -np.inf, np.inf, 2.4),
    "log1p": (np.log1p, -np.inf, np.inf, 2.6),
    "log1p_unit": (np.log1p, 0, 1, 2.4),
    "tanh": (np.tanh, -np.inf, np.inf, 3.2),
    "sqrt": (np.sqrt, -np.inf, np.inf, 0.51),
}
EACH = pytest.mark.parametrize("name", WORDS)


def every_float32(low: float, high: float) -> np.ndarray:
    """A million numbers, spread evenly over all bit patterns, NaN among them, and the ones where things happen."""
    patterns = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    special = [
        0,
        -0.0,
        1e-45,
        -1e-45,
        SMALLEST,
        -SMALLEST,
        1,
        -1,
        np.inf,
        -np.inf,
        np.nan,
        2.5e38,
        3.4028235e38,
        -103.98,
    ]
    near = np.linspace(max(low, -120), min(high, 120), 200_001, dtype=np.float32)
    a = np.concatenate([patterns, near, np.array(special, np.float32), np.float32(1 - 2.0 ** -np.arange(1, 25))])
    return a[np.isnan(a) | ((a >= low) & (a <= high))]


def mapped(f: Any, a: np.ndarray) -> np.ndarray:
    @numba.njit
    def loop(a: np.ndarray, out: np.ndarray) -> None:
        for i in range(a.size):
            out[i] = f(a[i])

    out = np.full_like(a, 7)
    loop(a, out)
    return out


def check(module: Any, name: str) -> None:
    truth, low, high, most = WORDS[name]
    a = every_float32(low, high)
    with np.errstate(all="ignore"):
        expected = truth(a.astype(np.float64))
        rounded = expected.astype(np.float32)
    got = mapped(getattr(module, f"{name}32"), a)
    assert np.array_equal(np.isnan(got), np.isnan(rounded)), "NaN"
    infinite = np.isinf(got) | np.isinf(rounded)
    assert np.array_equal(got[infinite], rounded[infinite]), f"infinite at {a[infinite][:9]}"
    normal = np.isfinite(rounded) & (np.abs(expected) >= SMALLEST)
    ulps = np.abs(got[normal] - expected[normal]) / np.spacing(np.abs(rounded[normal])).astype(np.float64)
    assert ulps.max() <= most, f"{ulps.max():.2f} ulp at {a[normal][ulps.argmax()]!r}"
    tiny = np.abs(expected) < SMALLEST
    assert np.abs(got[tiny] - expected[tiny]).max(initial=0) <= 2 * np.finfo(np.float32).smallest_subnormal


@EACH
def test_a_word_is_right_to_a_few_ulps_from_the_smallest_to_the_largest_number(name: str) -> None:
    check(numba_words, name)
    assert WORDS[name][3] <= ULP


@EACH
def test_a_word_in_float64_is_the_c_librarys(name: str) -> None:
    truth, low, high, _ = WORDS[name]
    with np.errstate(all="ignore"):
        a = every_float32(low, high)[::97].astype(np.float64)
        expected = truth(a)
    got = mapped(getattr(numba_words, f"{name}64"), a)
    assert np.array_equal(np.isfinite(got), np.isfinite(expected))
    finite = np.isfinite(expected)
    assert (np.abs(got[finite] - expected[finite]) <= ULP * np.spacing(np.abs(expected[finite]))).all()
    assert np.array_equal(got[~finite], expected[~finite], equal_nan=True)


@pytest.mark.parametrize("x", [-103.5, -87.3, -1e-3, 1e-40, 1e-7, 0.3466, 0.35, 12.5, 88.72])
def test_numpys_own_float64_is_no_worse_a_truth_than_mpmaths(x: float) -> None:
    x = float(np.float32(x))
    with mp.workdps(90):
        for f, g in [(np.exp, mp.exp), (np.expm1, mp.expm1), (np.tanh, mp.tanh)]:
            assert abs(float(f(x)) - float(g(mp.mpf(x)))) <= 1e-12 * abs(float(f(x)))
        if x > -1:
            assert abs(float(np.log1p(x)) - float(mp.log(1 + mp.mpf(x)))) <= 1e-12 * abs(float(np.log1p(x)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_larger_and_the_smaller_of_two_keep_nan(dtype: Any) -> None:
    a, b = (m.ravel() for m in np.meshgrid(*2 * [np.array([np.nan, -np.inf, -1, 0, 2, np.inf], dtype)]))
    for word in ("maximum", "minimum"):
        f = getattr(numba_words, word)
        pairs = mapped_pairs(f, a, b)
        assert np.array_equal(pairs, getattr(np, word)(a, b), equal_nan=True)


def mapped_pairs(f: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    @numba.njit
    def loop(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        for i in range(a.size):
            out[i] = f(a[i], b[i])

    out = np.full_like(a, 7)
    loop(a, b, out)
    return out


# -------------------------------------------------------------------------------------------------------- planted bugs

SOURCE = Path(str(numba_words.__file__)).read_text(encoding="utf-8")
# what is wrong, the line, what stands there instead, the word that must be found wrong
BUGS = [
    ("two terms of e^r are missing", "(T5 + r * (T6 + r * T7))", "T5", "exp"),
    ("log 2 in one part", "(x - k * LN2_HIGH) - k * LN2_LOW", "x - k * np.float32(LN2_HIGH + LN2_LOW)", "exp"),
    ("NaN is lost", "x = min(max(x, LOW), HIGH)", "x = max(min(HIGH, x), LOW) if x == x else ZERO", "exp"),
    ("e^x ends early", "np.float32(-104), np.float32(89)", "np.float32(-87), np.float32(88)", "exp"),
    ("e^x - 1 by way of e^x", "y = s * q + (s - ONE)", "y = (s + s * q) - ONE", "expm1"),
    ("2^128 in one part", "if x > HIGH - ONE:", "if x > HIGH:", "expm1"),
    ("1 / 2^128 is 0", "return _power_of_two(-half) * _power_of_two(half - k)",
     "return HALF * _power_of_two(np.int32(1) - k)", "log"),
    ("subnormal numbers have no exponent", "small = x < SMALLEST", "small = x < ZERO", "log"),
    ("log 0 is NaN", "where(x == ZERO, -INFINITY, NAN))", "NAN)", "log"),
    ("1 + x loses the digits of x", "_log_of(k, x * s + (s - ONE))", "_log_of(k, (ONE + x) * s - ONE)", "log1p"),
    ("a term of the unit's log is missing", "(L9 + w * (L11 + w * L13))", "(L9 + w * L11)", "log1p_unit"),
    ("tanh has no sign", "return y if a > 0 else -y", "return y", "tanh"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "name"), sampled([bug[1:] for bug in BUGS], 3, several=True), ids=[bug[0] for bug in BUGS]
)
def test_a_wrong_line_is_found(old: str, new: str, name: str) -> None:
    assert SOURCE.count(old) == 1, "the line is not there, or not once"
    bugged = types.ModuleType("bugged_words")
    exec(compile(SOURCE.replace(old, new), "bugged_words", "exec"), bugged.__dict__)
    with pytest.raises(AssertionError, match=r"ulp|NaN|infinite|<="):
        check(bugged, name)

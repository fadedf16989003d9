"""Wrong lines planted in the source of the Numba kernels, each with the name of the test that must fail under it."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import test_kernels

pytest.importorskip(
    "numba", reason="Numba is not installed, so its kernels were not tested: python -m pip install 'tinyvae[numba]'"
)
import test_numba_kernels

from tinyvae.kernels import numba_fused

SOURCE = Path(str(numba_fused.__file__)).read_text(encoding="utf-8")

# (what is wrong, the line, what stands there instead, the test that must notice)
BUGS = [
    ("the bias is forgotten", "row[j] = max(row[j] + b[j], ZERO)", "row[j] = max(row[j], ZERO)", "test_dense_forward"),
    ("db misses the last row", "        for j in range(d.size):\n            db[j] += d[j]",
     "        for j in range(d.size if i + 1 < dy.shape[0] else 0):\n            db[j] += d[j]", "test_dense_backward"),
    ("tanh's slope has the wrong sign", "d[j] *= ONE - out[j] * out[j]", "d[j] *= ONE + out[j] * out[j]",
     "test_dense_backward"),
    ("the noise is scaled by the variance", "mu[j] + exp(HALF * logvar[j]) * eps", "mu[j] + exp(logvar[j]) * eps",
     "test_latent_forward_and_backward"),
    ("the KL's gradient is lost", "dmu[j] = dz[i, j] + dkl[j] * mu[j]", "dmu[j] = dz[i, j]",
     "test_latent_forward_and_backward"),
    ("sigmoid of a negative logit", "((ONE if row[j] >= 0 else e) / (ONE + e)", "(ONE / (ONE + e)",
     "test_bernoulli_loss"),
    ("the last column is not summed", "        total = ZERO\n        for j in range(row.size):\n            e = exp",
     "        total = ZERO\n        for j in range(row.size - 1):\n            e = exp", "test_bernoulli_loss"),
    ("a shared logvar gets a mean", "dlogvar += HALF * dnll * (count", "dlogvar += HALF * dnll / x.shape[0] * (count",
     "test_gaussian_loss"),
    ("v takes g and not g^2", "C2 * (g[i] * g[i] - v[i])", "C2 * (g[i] - v[i])", "test_adam_step"),
    ("Adam leaves the last number", "for i in range(p.size):", "for i in range(p.size - 1):", "test_adam_step"),
    ("pixels are not scaled", "x[i, j] = np.float32(row[j]) * scale", "x[i, j] = np.float32(row[j])", "test_gather"),
    ("a tie counts", "ONE if u[i, j] < x[i, j] else ZERO", "ONE if u[i, j] <= x[i, j] else ZERO", "test_binarize"),
    ("two terms of e^r are missing", "(T5 + r * (T6 + r * T7))", "T5", "exp"),  # without the last, it is within 4 ulp
    ("log 2 in one part", "(x - k * LN2_HIGH) - k * LN2_LOW", "x - k * np.float32(LN2_HIGH + LN2_LOW)", "exp"),
    ("NaN is lost", "x = min(max(x, LOW), HIGH)", "x = max(min(HIGH, x), LOW) if x == x else ZERO", "nan"),
]  # fmt: skip


def check(name: str) -> None:
    """Run the named test, or that of a function's accuracy, or of its NaN."""
    if name == "nan":
        test_numba_kernels.test_nan_stays_nan_so_that_a_diverging_run_is_seen("exp")
    elif name == "exp":
        test_numba_kernels.test_a_function_is_right_to_the_ulps_that_every_tolerance_counts_on("exp")
    else:
        getattr(test_kernels, name)()


@pytest.mark.parametrize(("old", "new", "killer"), [bug[1:] for bug in BUGS], ids=[bug[0] for bug in BUGS])
def test_the_named_test_notices_the_bug(
    old: str, new: str, killer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SOURCE.count(old) == 1, "the line is not there, or not once"
    file = tmp_path / "bugged_kernels.py"
    file.write_text(SOURCE.replace(old, new), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("bugged_kernels", file)
    assert spec is not None
    assert spec.loader is not None
    bugged: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bugged_kernels", bugged)
    spec.loader.exec_module(bugged)
    monkeypatch.setitem(test_kernels.FILES, "numba", bugged)
    monkeypatch.setattr(test_numba_kernels, "numba_fused", bugged)
    try:
        check(killer)
        noticed = False
    except (AssertionError, ExceptionGroup) as failure:  # Hypothesis may find several ways to fail
        noticed = not isinstance(failure, ExceptionGroup) or failure.split(AssertionError)[1] is None
    assert noticed, f"{killer} does not notice"

"""`tinyvae gradcheck`: its verdict, its table, its exit code."""

import re
from importlib import import_module
from typing import Any

import pytest
from running import run

from tinyvae.checking import models
from tinyvae.checking.finite_differences import Check
from tinyvae.checking.models import ARCHITECTURES
from tinyvae.commands import gradcheck

CHECKERS = {
    "operations": "check_operations", "activations": "activation_checks", "layers": "layer_checks",
    "objectives": "objective_checks", "models": "check_models",
}  # fmt: skip


def test_gradcheck_finds_every_gradient_right(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On some of the models: tests/checking/test_models.py checks each of them."""
    few = ARCHITECTURES[::15]
    monkeypatch.setattr(models, "CASES", few)
    assert run("gradcheck", "--seed", "3") == 0
    out = capsys.readouterr().out
    total = re.search(r"all (\d+) gradients agree with finite differences\n$", out)
    assert total
    assert int(total[1]) == len(re.findall(r" ok *\n", out))
    assert all(out.count(f"  {case.name}: encoder.0.weight ") == 2 for case in few if not case.model.get("conv"))
    assert "WRONG" not in out
    assert "cannot tell" not in out


def groups(checks: list[Check]) -> Any:
    """In the place of all groups: one, of these."""
    return lambda kernels, seed: [("operations", iter(checks))]


def test_a_wrong_gradient_is_a_failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Check("dense, dW", error=0.1, tolerance=1e-6, passed=False)
    monkeypatch.setattr(gradcheck, "_groups", groups([wrong]))
    assert run("gradcheck") == 1
    assert "1 of 1 gradients are WRONG: dense, dW" in capsys.readouterr().out


def test_a_gradient_that_the_check_cannot_judge_is_no_success(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Check("dense, dW", error=1e-9, tolerance=1e-6, passed=True)
    blind = Check("dense, db", error=0.1, tolerance=9.0, passed=False, note="at [0, 1]: a kink", blind=True)
    wrong = Check("dense, dx", error=0.1, tolerance=1e-6, passed=False)
    for checks, lines in [
        ([right, blind], ["of 1 of 2 gradients the check cannot tell: dense, db"]),
        ([right, blind, wrong], [
            "1 of 3 gradients are WRONG: dense, dx", "of 1 of 3 gradients the check cannot tell: dense, db",
        ]),
    ]:  # fmt: skip
        monkeypatch.setattr(gradcheck, "_groups", groups(checks))
        assert run("gradcheck") == 1
        out = capsys.readouterr().out
        assert re.search(r"dense, db +1\.0e-01 +9\.0e\+00 +cannot tell at \[0, 1\]: a kink", out)
        assert out.splitlines()[-len(lines) :] == lines
        assert ("WRONG" in out) == (wrong in checks)


@pytest.mark.parametrize("module", ["operations", "activations", "layers", "objectives", "models"])
def test_a_wrong_gradient_of_any_group_is_found(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each group is asked: a check that fails in it alone fails the command."""
    wrong, right = (Check(name, error=0.1, tolerance=1e-6, passed=name == "right") for name in ("wrong", "right"))
    for of, name in CHECKERS.items():
        found = wrong if of == module else right
        monkeypatch.setattr(import_module(f"tinyvae.checking.{of}"), name, lambda *given, found=found: iter([found]))
    assert run("gradcheck", "--kernels", "reference") == 1
    assert f"1 of {len(CHECKERS)} gradients are WRONG: wrong" in capsys.readouterr().out

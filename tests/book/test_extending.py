"""docs/extending: each file runs and passes its contract, the page shows what they say, and faults in them are seen."""

import importlib.util
import re
import runpy
from pathlib import Path
from types import ModuleType

import pytest

from tinyvae.checking.contracts import check_activation, check_layer, check_likelihood, check_objective
from tinyvae.formula import Formula

DOCS = Path(__file__).parents[2] / "docs"
FILES = sorted((DOCS / "extending").glob("*.py"))
PAGE = (DOCS / "extending.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_file_runs_as_it_stands(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(file), run_name="__main__")
    assert capsys.readouterr().out.startswith("Losses(loss=")
    assert f"extending/{file.name}" in PAGE


def test_the_page_names_every_file_and_quotes_what_stands_there() -> None:
    assert sorted(re.findall(r"\(extending/(\w+\.py)\)", PAGE)) == [file.name for file in FILES]
    quoted = re.findall(r"```python\n(@formula.*?)```", PAGE, re.DOTALL)
    assert len(quoted) == 1
    text = re.sub(r'\n    """[^"]*"""', "", (DOCS / "extending" / "softsign.py").read_text(encoding="utf-8"))
    assert quoted[0].strip() in text


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / "extending" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wrong_slope_in_the_activation_is_seen() -> None:
    m = loaded("softsign")
    wrong = Formula(lambda dy, y: dy * (1 - abs(y)), m.softsign_forward, ("a",), inputs=("dy", "y"), name="wrong")
    with pytest.raises(AssertionError):
        check_activation(m.softsign_forward, wrong)


def test_a_wrong_slope_and_a_wrong_constant_in_the_likelihood_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    m = loaded("student_t")
    right = m.student_nll.function
    monkeypatch.setattr(m.student_nll, "function", lambda location, freedom, x: right(location, freedom, x) + 0.05)
    with pytest.raises(AssertionError):
        check_likelihood(m.StudentT())
    m = loaded("student_t")
    slope = m.student_dlocation.function
    monkeypatch.setattr(m.student_dlocation, "function", lambda *given: 1.001 * slope(*given))
    with pytest.raises(AssertionError):
        check_likelihood(m.StudentT())


def test_a_wrong_partial_in_the_objective_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    m = loaded("capacity")
    monkeypatch.setattr(m, "kl_backward", lambda dkl, mu, logvar: (dkl * mu, dkl * logvar))
    with pytest.raises(AssertionError):
        check_objective(m.Capacity(capacity=2.0))


def test_a_wrong_gradient_in_the_layer_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    m = loaded("gated")
    monkeypatch.setattr(m.gated_backward, "function", lambda dy, u, v: (dy * v, dy * u * v))
    with pytest.raises(AssertionError):
        check_layer(m.Gated(5, 3))

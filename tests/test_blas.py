"""OpenBLAS is told what suits the CPU: by commands or when asked to, before NumPy loads, never against the user."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyvae
from tinyvae import blas
from tinyvae.commands import keeps_blas

AVX512 = "fpu sse2 avx2 avx512f avx512dq avx512bw avx512vl"
REST = {"OPENBLAS_THREAD_TIMEOUT": "18"}
BOTH = {"OPENBLAS_CORETYPE": "SkylakeX", **REST}


def python(*arguments: str, **environ: str) -> str:
    """The output of a new interpreter, without any setting for OpenBLAS but those given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    done = subprocess.run(
        [sys.executable, *arguments], env={**clean, **environ}, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def pretend(vendor: str, flags: str) -> None:
        file = tmp_path / "cpuinfo"
        one = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: Test 9000\nflags\t\t: {flags}\n"
        file.write_text(f"{one}\n{one.replace(vendor, 'Other')}")
        monkeypatch.setattr(blas, "CPU_INFO", file)

    return pretend


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("AuthenticAMD", AVX512, BOTH),
        ("GenuineIntel", AVX512, REST),  # OpenBLAS finds Intel's by itself
        *(("AuthenticAMD", AVX512.replace(f" {missing}", ""), REST) for missing in sorted(blas.AVX512)),
        ("AuthenticAMD", "", REST),
    ],
)
def test_kernels_are_chosen_only_where_the_cpu_can_run_them(cpu, vendor: str, flags: str, expected: object) -> None:
    cpu(vendor, flags)
    assert blas.choose({}) == expected
    assert blas.cpu_model() == "Test 9000"


def test_a_system_that_does_not_describe_its_cpu_gets_no_kernels(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(blas, "CPU_INFO", tmp_path / "nothing")
    assert blas.choose({}) == REST
    assert blas.cpu_features() == set()


@given(st.dictionaries(st.sampled_from([*BOTH, "OPENBLAS_NUM_THREADS", "HOME"]), st.text(max_size=3)))
def test_what_the_user_set_is_never_touched(environ: dict[str, str]) -> None:
    assert blas.choose(environ).keys() & environ.keys() == set()


def test_set_up_does_nothing_once_numpy_is_loaded() -> None:
    importlib.import_module("numpy")
    environ: dict[str, str] = {}
    blas.set_up(environ)
    assert environ == {}
    assert blas.summary() is None


@pytest.mark.parametrize(
    ("kernels", "environ", "missing"),
    [
        ("Haswell", {}, "OPENBLAS_CORETYPE=SkylakeX OPENBLAS_THREAD_TIMEOUT=18"),
        ("SkylakeX", {}, "OPENBLAS_THREAD_TIMEOUT=18"),  # it has found them by itself
        ("SkylakeX", {"OPENBLAS_THREAD_TIMEOUT": "20"}, None),
        ("Haswell", {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_THREAD_TIMEOUT": "20"}, None),  # as the user wants it
        ("Haswell", {"OPENBLAS_THREAD_TIMEOUT": "20"}, "OPENBLAS_CORETYPE=SkylakeX"),
    ],
)
def test_who_trains_without_a_command_is_told_what_is_missing(
    cpu, monkeypatch: pytest.MonkeyPatch, kernels: str, environ: dict[str, str], missing: str | None
) -> None:
    cpu("AuthenticAMD", AVX512)
    monkeypatch.setattr(blas, "loaded", lambda: blas.OpenBLAS(kernels, 2, ""))
    line = missing and f"blas: NumPy was loaded without {missing}; begin with: {blas.FIRST_LINE}"
    assert blas.hint(environ) == line
    monkeypatch.setattr(blas, "loaded", lambda: None)  # another BLAS: nothing that it would heed
    assert blas.hint({}) is None


def test_the_first_line_that_is_told_gives_a_script_what_the_command_has() -> None:
    show = "print({n: v for n, v in os.environ.items() if n.startswith('OPENBLAS_')}, blas.hint(), sep='\\n')"
    early = python("-c", f"import os; {blas.FIRST_LINE}; import numpy, tinyvae.model.vae; {show}").splitlines()
    assert early == [str(blas.choose({})), "None"]
    late = python("-c", f"import os, numpy; {blas.FIRST_LINE}; {show}").splitlines()
    if late[1] != "None":  # another BLAS
        assert late[0] == "{}"  # too late: nothing is changed, and the line says so
        assert late[1].endswith(f"OPENBLAS_THREAD_TIMEOUT=18; begin with: {blas.FIRST_LINE}")
    assert f"`{blas.FIRST_LINE}`" in (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.parametrize("use", ["", "tinyvae.VAE(4, (3,), 2);"])
def test_importing_the_library_changes_nobodys_environment(use: str) -> None:
    python("-c", f"import os; before = dict(os.environ); import tinyvae; {use} assert dict(os.environ) == before")


@pytest.mark.parametrize("module", ["tinyvae", "tinyvae.blas", "tinyvae.commands", "tinyvae.train"])
def test_numpy_is_not_loaded_before_a_command_has_set_blas_up(module: str) -> None:
    assert python("-c", f"import sys, {module}; print('numpy' in sys.modules)") == "False\n"


def test_training_says_in_one_line_what_it_set_and_can_be_told_not_to(tmp_path: Path) -> None:
    def train(name: str, *options: str, **environ: str) -> list[str]:
        command = ["-m", "tinyvae.train", "--epochs", "1", "--no-figures", "--backend", "numpy", "--out"]
        output = python(*command, str(tmp_path / name), *options, **environ)
        return [line for line in output.splitlines() if line.startswith("blas:")]

    (line,) = train("a")
    assert "OPENBLAS_THREAD_TIMEOUT=18" in line
    assert ("OPENBLAS_CORETYPE=SkylakeX" in line) == ("OPENBLAS_CORETYPE" in blas.choose({}))
    (line,) = train("b", OPENBLAS_CORETYPE="Haswell")
    assert "CORETYPE" not in line
    assert train("c", "--keep-blas") == train("d", "--keep") == []
    assert train("e", OPENBLAS_CORETYPE="", OPENBLAS_THREAD_TIMEOUT="20") == []


@pytest.mark.parametrize(
    ("line", "keeps"),
    [
        ("train", False),
        ("train --keep-blas", True),
        ("train --kee", True),
        ("train --keep-blas=1", False),
        ("train --kernels numpy --seed 3", False),
    ],
)
def test_keep_blas_is_read_as_the_parser_will_read_it(line: str, keeps: bool) -> None:
    assert keeps_blas(line.split()) is keeps


def test_what_openblas_says_of_itself_is_what_it_was_told() -> None:
    ask = "import numpy; from tinyvae import blas; print(blas.loaded())"
    if python("-c", ask) == "None\n":
        pytest.skip("NumPy did not bring an OpenBLAS of its own here")
    found = python("-c", ask, OPENBLAS_NUM_THREADS="1")
    assert "threads=1," in found
    if "x86" in os.uname().machine:
        assert "kernels='Nehalem'" in python("-c", ask, OPENBLAS_CORETYPE="Nehalem")  # every x86-64 CPU can run these


def test_the_names_that_type_checkers_see_are_those_that_python_finds() -> None:
    tree = ast.parse(Path(str(tinyvae.__file__)).read_text())
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING")
    seen = {
        alias.asname: (f"tinyvae.{alias.name}", None) if node.module == "tinyvae" else (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == tinyvae._HOME
    for name, (module, original) in seen.items():
        assert getattr(tinyvae, str(name)).__name__ == (original or module)
        assert name in dir(tinyvae)
    with pytest.raises(AttributeError, match="module 'tinyvae' has no attribute 'vae'"):
        _ = tinyvae.vae  # pyright: ignore[reportAttributeAccessIssue] - that it is missing is what is tested

"""docs/export.md: its Python runs as written on the run that its commands make, and its table names the parameters."""

import re
from pathlib import Path

import numpy as np
import pytest
from running import run

import tinyvae

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
ONNX, TORCH = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line.split()[3:] for line in PAGE.splitlines() if line.startswith("python -m tinyvae ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's commands have been, with a run of one epoch."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        for argv in COMMANDS:
            quick = ["--epochs", "1", "--no-figures", "--quiet", "--backend", "numpy"] if argv[0] == "train" else []
            assert run(*argv, *quick) == 0
    return folder


def test_the_commands_are_those_of_a_run_and_its_export() -> None:
    assert [argv[0] for argv in COMMANDS] == ["train", "export"]


def test_the_files_run_as_the_page_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    found: dict[str, np.ndarray] = {}
    exec(compile(ONNX, "docs/export.md", "exec"), found)
    printed = capsys.readouterr().out.strip()
    assert f"prints `{printed}`" in PAGE
    mu, _ = tinyvae.load("runs/digits").encode(found["x"])
    np.testing.assert_allclose(found["mu"], mu, atol=1e-5)


def test_the_weights_load_in_pytorch_as_the_page_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="PyTorch is none of the tests' packages: pip install -e '.[bench]'")
    monkeypatch.chdir(folder)
    exec(compile(TORCH, "docs/export.md", "exec"), {"__name__": "page"})
    printed = capsys.readouterr().out.split()
    assert len(printed) == 3
    assert all(float(difference) <= 1e-5 for difference in printed)  # of numbers near 1, sums of 128 terms in float32


def test_the_table_names_the_parameters() -> None:
    sizes = {"data": 7, "hidden": 5, "latent": 3, "2 latent": 6}
    model = tinyvae.VAE(sizes["data"], (sizes["hidden"],), sizes["latent"])
    found: dict[str, tuple[int, ...]] = {}
    for weight, bias, into, out, size in re.findall(
        r"^\| `(\S+weight)`, `(\S+bias)` \| \(([\w ]+), ([\w ]+)\), \(([\w ]+),\)", PAGE, re.MULTILINE
    ):
        found |= {weight: (sizes[into], sizes[out]), bias: (sizes[size],)}
    assert found == {name: a.shape for name, a in model.params.items()}

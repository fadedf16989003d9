"""Pictures are the same whatever the environment says: another backend, settings files, an unwritable folder."""

import ast
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from figure_data import dataset, history, model_for
from matplotlib.figure import Figure
from test_architecture_floors import FILES, imports, name_of

import tinyvae
from tinyvae import kernels
from tinyvae.errors import TinyvaeError
from tinyvae.training import drawing, figures
from tinyvae.uses import pictures, two_sample

DRAW = """
import hashlib
from pathlib import Path
from tinyvae.training import figures
from tinyvae.training.metrics import Row
rows = [Row(e, 0.1, 9 - e, 7.0, 2.0, 9.5 - e, 7.5, 2.0, 2) for e in range(1, 4)]
figures.save_figure(figures.loss_curves(rows), Path("picture.png"))
print(hashlib.sha256(Path("picture.png").read_bytes()).hexdigest())
import matplotlib
print(str(dict.__getitem__(matplotlib.rcParams, "backend")).lower())
"""
ODD = (
    "text.usetex: True\nfigure.dpi: 30\nsavefig.bbox: tight\naxes.facecolor: red\nno.such.key: 1\nlines.linewidth: x\n"
)


def drawn(folder: Path, **environment: str) -> tuple[str, str]:
    """The picture that a new process draws there, as a digest, and the backend that the user asked for."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MPL", "MATPLOTLIB", "DISPLAY"))}
    root = str(Path(tinyvae.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", DRAW], cwd=folder, env={**clean, "PYTHONPATH": root, **environment},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 0
    digest, backend = done.stdout.splitlines()
    return digest, backend


def test_no_setting_of_the_environment_changes_a_picture(tmp_path: Path) -> None:
    for name in ("plain", "odd", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "odd" / "matplotlibrc").write_text(ODD)
    expected, _ = drawn(tmp_path / "plain")
    assert drawn(tmp_path / "odd", MPLBACKEND="nonsense")[0] == expected
    settings = str(tmp_path / "odd" / "matplotlibrc")  # as a folder for the cache, it cannot be written
    assert drawn(tmp_path / "elsewhere", MATPLOTLIBRC=settings, MPLCONFIGDIR=settings, MPLBACKEND="TkAgg") == (
        expected,
        "tkagg",
    )


STYLE: Any = {
    "text.usetex": True, "axes.facecolor": "black", "text.color": "white", "savefig.facecolor": "black",
    "figure.dpi": 20, "savefig.bbox": "tight", "font.size": 20, "lines.linewidth": 5, "figure.autolayout": True,
    "axes.spines.top": False, "image.interpolation": "bicubic", "axes.grid": True, "xtick.direction": "in",
}  # fmt: skip


def every_figure() -> Iterator[Figure]:
    for kind in ("images", "vectors", "plane"):
        data = dataset(kind)
        model, conditional = model_for(data), tinyvae.VAE(data.data_dim, (4,), 2, classes=3)
        x, shape = data.x_valid, data.image_shape
        given = np.where(x > 0.5, x, np.nan)
        yield pictures.restoration(x, given, x, shape, "restored")
        yield figures.sheet(x, shape, "rows")
        yield from (draw(model, data) for draw in (figures.reconstructions, figures.interpolation))
        yield figures.latent_space(model, data)
        yield figures.samples(model, shape, 4, 0)
        yield figures.manifold(model, shape)
        if kind == "images":
            yield figures.labels(conditional, data)
    yield figures.loss_curves(history(3))
    yield figures.data_and_samples(model_for(dataset("plane")), dataset("plane"), 0)


def test_no_style_of_the_session_changes_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 10)
    x = dataset("plane").x_train

    def saved(name: str) -> list[bytes]:
        paths = [tmp_path / f"{name}-loss.png", tmp_path / f"{name}-overlay.png"]
        figures.save_figure(figures.loss_curves(history(3)), paths[0])
        two_sample.save_overlay(paths[1], x, x[::-1])
        return [path.read_bytes() for path in paths]

    expected = saved("plain")
    with matplotlib.rc_context(STYLE):
        before = dict(matplotlib.rcParams)
        assert saved("styled") == expected
        for figure in every_figure():
            assert figure.axes
            for axes in figure.axes:
                assert axes.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
                assert not axes.title.get_usetex()
        assert dict(matplotlib.rcParams) == before  # the user's own plots keep it


@pytest.mark.parametrize("name", [r"$\frac$", "日本"])
def test_a_name_in_a_title_is_only_text(name: str, tmp_path: Path) -> None:
    x = np.linspace(0, 1, 12).reshape(2, 6)
    figure = pictures.restoration(x, x, x, (3, 2), f"Test rows of {name}")
    figures.save_figure(figure, tmp_path / "a.png")  # warnings are errors here
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_matplotlib_has_one_door() -> None:
    importers = {name_of(file) for file in FILES if any(m.split(".")[0] == "matplotlib" for m, _ in imports(file))}
    assert importers == {"training/drawing.py"}
    for file in FILES:
        assert "pyplot" not in {getattr(node, "attr", "") for node in ast.walk(ast.parse(file.read_text()))}


def test_a_matplotlib_that_does_not_load_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise UnicodeDecodeError("utf-8", b"\xfc", 0, 1, "invalid start byte")

    monkeypatch.setattr(drawing.importlib, "import_module", broken)
    with pytest.raises(TinyvaeError, match=r"no pictures: matplotlib does not load .UnicodeDecodeError: .*start byte"):
        drawing._loaded()


def test_want_of_memory_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(name: str) -> None:
        raise MemoryError

    monkeypatch.setattr(drawing.importlib, "import_module", full)  # the module itself: Numba is let in by it too
    kernels.numba_problem.cache_clear()
    for attempt in (drawing._loaded, kernels.numba_problem):
        with pytest.raises(MemoryError):
            attempt()


def test_pictures_are_drawn_beside_a_thread_that_uses_the_model(tmp_path: Path) -> None:
    data = dataset("images")
    model, enough = model_for(data), threading.Event()
    expected = figures.samples(model, (3, 2), 4, 0).axes[0].get_images()[0].get_array()

    def use() -> None:
        while not enough.is_set():
            model.encode(data.x_valid)

    thread = threading.Thread(target=use)
    thread.start()
    found = [figures.samples(model, (3, 2), 4, 0).axes[0].get_images()[0].get_array() for _ in range(5)]
    enough.set()
    thread.join()
    assert expected is not None
    for picture in found:
        np.testing.assert_array_equal(picture, expected)

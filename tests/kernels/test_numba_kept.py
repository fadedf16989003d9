"""Compiled loops are kept where nobody else can write, are found by the next process, and never stop a run."""

import errno
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import sampled

numba = pytest.importorskip(
    "numba", reason="Numba is not installed, so its kernels were not tested: python -m pip install 'tinyvae[numba]'"
)
from tinyvae.formula import formula  # noqa: E402 - Numba may not be there
from tinyvae.kernels import numba_kept  # noqa: E402
from tinyvae.kernels.numba_loops import NumbaKernels  # noqa: E402
from tinyvae.loop import Loop  # noqa: E402

posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes are POSIX's")
kept_folder = numba_kept.kept_folder.__wrapped__  # which forgets


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder that is its owner's alone, whatever the mask of this process."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    tmp_path.chmod(0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path.resolve()


# ----------------------------------------------------------------------------------------------------------- the folder


def test_the_folder_is_made_for_its_owner_alone(home: Path) -> None:
    folder = kept_folder()
    assert folder is not None
    assert folder == home / ".cache" / "tinyvae-loops"
    if hasattr(os, "getuid"):
        assert [p.stat().st_mode & 0o777 for p in (folder, folder.parent)] == [0o700, 0o700]
    assert list(folder.iterdir()) == []
    assert kept_folder() == folder


def test_the_environment_says_where(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert kept_folder() == home / "xdg" / "tinyvae-loops"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(home / "numba"))
    assert kept_folder() == home / "numba" / "tinyvae-loops"
    monkeypatch.chdir(home)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "relative")  # of the moment when it is first asked for
    assert kept_folder() == home / "relative" / "tinyvae-loops"


@posix
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_that_others_can_write_to_is_not_used_nor_repaired(mode: int, home: Path) -> None:
    folder = kept_folder()
    assert folder is not None
    folder.chmod(mode)
    assert kept_folder() is None
    assert folder.stat().st_mode & 0o7777 == mode  # what lies in it may be anybody's
    folder.chmod(0o755)
    assert kept_folder() == folder  # others may read


@posix
@pytest.mark.parametrize("level", [".cache", "."])
def test_a_folder_above_that_others_can_write_to_is_not_used(level: str, home: Path) -> None:
    assert kept_folder() is not None
    (home / level).chmod(0o775)
    assert kept_folder() is None
    (home / level).chmod(0o1777)  # nobody else can rename what is in it
    assert kept_folder() is not None


@posix
def test_nothing_is_made_where_it_would_not_be_used(home: Path) -> None:
    home.chmod(0o777)
    assert kept_folder() is None
    assert list(home.iterdir()) == []


@posix
def test_a_link_in_the_folders_place_is_not_followed_and_links_above_are_looked_behind(home: Path) -> None:
    (home / "elsewhere").mkdir(mode=0o700)
    (home / ".cache").mkdir(mode=0o700)
    (home / ".cache" / "tinyvae-loops").symlink_to(home / "elsewhere")
    assert kept_folder() is None
    (home / ".cache" / "tinyvae-loops").unlink()
    (home / ".cache").rmdir()
    (home / ".cache").symlink_to(home / "elsewhere")
    assert kept_folder() == home / "elsewhere" / "tinyvae-loops"
    (home / "elsewhere").chmod(0o777)
    assert kept_folder() is None


@posix
def test_a_folder_of_another_owner_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept_folder() is not None
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    assert kept_folder() is None


@pytest.mark.parametrize("at", ["above", "folder"])
def test_a_file_in_the_way_is_no_error(at: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if at == "above":
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(home / "file"))
        (home / "file").write_text("")
    else:
        (home / ".cache").mkdir(mode=0o700)
        (home / ".cache" / "tinyvae-loops").write_text("")
    assert kept_folder() is None


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_folder_that_cannot_be_written_to_is_no_error(
    number: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise OSError(number, os.strerror(number))

    assert kept_folder() is not None
    with monkeypatch.context() as m:
        m.setattr(tempfile, "TemporaryFile", fails)
        assert kept_folder() is None
    monkeypatch.setattr(Path, "mkdir", fails)
    assert kept_folder() is None


def test_without_a_home_there_is_no_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert kept_folder() is None


# --------------------------------------------------------------------------------------------------------- what is kept

SCRIPT = """
import numpy as np
from tinyvae.kernels.numba_kept import announce_compilation
announce_compilation(lambda kept: print("compiling", kept))
from tinyvae.formula import exp, formula
from tinyvae.kernels.contract import Window
from tinyvae.kernels.numba_loops import NumbaKernels
from tinyvae.loop import Loop
k = NumbaKernels("float32")
x = np.arange(16, dtype="f4").reshape(1, 16)
print(k.map(LOOP, a=x[:, :2]).tolist())
print(k._patches_again(x, Window(4, 4, 1, 2, 2, 0)).sum())
"""
LOOP = "Loop([formula(lambda a: a * 2 + 1)])"
RIGHT = ["[[1.0, 3.0]]", "120.0"]


def start(folder: Any, loop: str = LOOP) -> "subprocess.Popen[str]":
    environ = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-W", "error", "-c", SCRIPT.replace("LOOP", loop)]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(process: "subprocess.Popen[str]") -> list[str]:
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out.splitlines()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that the script leaves, whose loops the next process finds."""
    above = tmp_path_factory.mktemp("compiled")
    above.chmod(0o700)
    assert said(start(above)) == ["compiling True", *RIGHT]
    assert said(start(above)) == RIGHT
    return {p.name: p.read_bytes() for p in (above / "tinyvae-loops").iterdir()}


@pytest.fixture
def folder(home: Path, compiled: dict[str, bytes]) -> Path:
    """A copy of them."""
    found = home / "tinyvae-loops"
    found.mkdir(mode=0o700)
    for name, content in compiled.items():
        (found / name).write_bytes(content)
    return found


def test_all_that_is_kept_lies_in_the_folder(compiled: dict[str, bytes]) -> None:
    kinds = sorted(Path(name).suffix for name in compiled)
    assert kinds == [".nbc", ".nbc", ".nbi", ".nbi"]  # the loop, and the patches of the package's own
    assert not any(b"lambda" in content for content in compiled.values())


@pytest.mark.parametrize(
    "torn", sampled([lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"\x80\x05N."], 3),
    ids=["cut", "empty", "another pickle"],
)  # fmt: skip
def test_a_torn_file_is_compiled_again_and_mended(torn: Callable[[bytes], bytes], folder: Path) -> None:
    for path in (*folder.glob("loop_*.nbi"), *folder.glob("_patches_*.nbc")):  # the index of one, the code of the other
        path.write_bytes(torn(path.read_bytes()))
    assert said(start(folder.parent)) == ["compiling True", *RIGHT]
    assert said(start(folder.parent)) == RIGHT


def test_code_for_other_operands_under_the_same_number_is_not_run(folder: Path) -> None:
    """Two processes that compile a loop for two kinds of operands at once may write both under one number."""
    (code,), (of_others,) = folder.glob("loop_*.nbc"), folder.glob("_patches_*.nbc")
    code.write_bytes(of_others.read_bytes())
    assert said(start(folder.parent)) == ["compiling True", *RIGHT]
    assert said(start(folder.parent)) == RIGHT


def test_processes_that_compile_at_once_are_all_right(home: Path) -> None:
    processes = [start(home) for _ in range(2)]
    for process in processes:
        assert [line for line in said(process) if not line.startswith("compiling")] == RIGHT
    assert said(start(home)) == RIGHT


def test_two_texts_are_two_files(folder: Path) -> None:
    assert said(start(folder.parent, LOOP.replace("1", "5"))) == ["compiling True", "[[5.0, 7.0]]", RIGHT[1]]
    assert said(start(folder.parent)) == RIGHT


def test_without_a_folder_all_is_compiled_in_memory() -> None:
    assert said(start(os.devnull)) == ["compiling False", *RIGHT]


@posix
@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_a_pickle_in_a_folder_that_others_can_write_to_is_never_read(mode: int, folder: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "gone off",))

    for path in folder.glob("*.nbi"):
        path.write_bytes(pickle.dumps(Bomb()))
    folder.chmod(mode)
    assert said(start(folder.parent)) == [f"compiling {mode == 0o700}", *RIGHT]
    assert (tmp_path / "gone off").exists() == (mode == 0o700)  # in a folder of the owner's alone it is the owner's


def test_a_full_disk_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    if numba_kept.kept_folder() is None:
        pytest.skip("this machine has no folder in which loops are kept")
    tried: list[Any] = []

    def full(self: Any, sig: Any, data: Any) -> None:
        tried.append(sig)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numba.core.caching.FunctionCache.save_overload", full)
    salt = float(np.random.default_rng().random())  # a loop that was never compiled
    made = NumbaKernels("float32").map(Loop([formula(lambda a: a * salt)]), a=np.ones((1, 2), np.float32))
    assert made[0, 0] == np.float32(salt)
    assert tried


@pytest.mark.sweeps
def test_compiling_is_announced_by_the_command_once(home: Path) -> None:
    small = ["--epochs", "1", "--hidden", "4", "--latent", "2", "--no-figures", "--kernels", "numba"]
    for run, folder, said in [
        ("first", home / "compiled", ["once: they are kept for the next run"]),
        ("second", home / "compiled", []),
        ("third", os.devnull, ["at every run: there is no folder that only you can write to"]),
    ]:
        command = [sys.executable, "-m", "tinyvae.train", *small, "--out", str(home / run)]
        environ = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        assert re.findall(r"compiling the kernels \(([^;)]*)", done.stdout) == said

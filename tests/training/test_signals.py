"""Signals: the step is finished, the run saved, the exit code says which. Twice, or while importing: at once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from running import run

import tinyvae
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training.signals import StopRequest

BATCHES = 5  # of an epoch: 54 rows in batches of 12, the last of 6
SMALL = ["--hidden", "6", "--latent", "2", "--batch-size", "12", "--backend", "numpy", "--no-figures"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pixels.npy"
    np.save(path, np.random.default_rng(0).uniform(0, 1, (60, 9)).astype(np.float32))
    return path


def steps(out: Path) -> list[int]:
    return [int(path.name[5:14]) for path in checkpoints.saved_steps(out)]


# ---------------------------------------------------------------------------------------------------- while it trains


def start(data: Path, out: Path, *more: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tinyvae", "train", "--data", str(data), *SMALL, "--epochs", "100000"]
    return subprocess.Popen(
        [*before, *command, "--out", str(out), *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_checkpoint(out: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not checkpoints.saved_steps(out):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_exits_with_its_code(
    data: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "run"
    process = start(data, out, "--checkpoint-every", "1")
    wait_for_checkpoint(out, process)
    process.send_signal(number)
    output, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert error == ""
    assert output.endswith(f"stopped and saved; go on with: tinyvae train --resume {out}\n")
    assert checkpoints.read_last(out)[1] == []


def test_a_run_killed_in_mid_epoch_resumes_to_the_same_end(data: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(data, killed, "--checkpoint-every", "3")
    wait_for_checkpoint(killed, process)
    process.kill()
    process.communicate()
    done = checkpoints.read_last(killed)[0].run["state"]["epoch"]
    epochs = str(done + 5)
    assert run("train", "--resume", killed, "--epochs", epochs, "--no-figures", "--quiet") == 0
    assert run("train", "--data", data, *SMALL, "--quiet", "--epochs", epochs, "--out", whole) == 0
    np.testing.assert_array_equal(tinyvae.load(killed).params.flat, tinyvae.load(whole).params.flat)
    assert not list((killed / checkpoints.FOLDER).glob(".*"))  # leftovers of the killed process are gone


def test_a_terminal_that_goes_away_even_twice_finishes_the_step_and_saves(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(data, out, "--checkpoint-every", "1")
    wait_for_checkpoint(out, process)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (129, "")
    assert not list(out.rglob(".*"))
    assert run("train", "--resume", out, "--no-figures", "--quiet", "--epochs", str(steps(out)[-1] // BATCHES + 1)) == 0


def test_under_nohup_a_run_outlives_its_terminal(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(data, out, "--checkpoint-every", "1", before=("nohup",))
    wait_for_checkpoint(out, process)
    process.send_signal(signal.SIGHUP)
    last = steps(out)[-1]
    deadline = time.monotonic() + 60
    while steps(out)[-1] < last + 3 * BATCHES:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


# --------------------------------------------------------------------------------------------- twice, and at the start

SECOND = """
import os, signal, sys, time
from tinyvae.training.metrics import Evaluation
from tinyvae.training.signals import StopRequest
from tinyvae.training.engine import Engine
with StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.received == signal.SIGTERM
    os.kill(os.getpid(), signal.{second})
    time.sleep(30)
"""


@pytest.mark.parametrize(("second", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_second_signal_exits_at_once(second: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", SECOND.format(second=second)], timeout=20, check=False)
    assert done.returncode == code


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


IMPORTING = """
import os, signal, sys, threading
class Late:  # Ctrl-C comes while this module is looked for
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv.wanted:
            os.kill(os.getpid(), signal.SIGINT)
class Words(list):
    wanted = "{module}"
sys.argv = Words(["tinyvae", "gradcheck"])
sys.meta_path.insert(0, Late())
from tinyvae.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    "module", ["argparse", "tinyvae.commands", "numpy", "numpy.linalg", "rich.console", "tinyvae.model.vae"]
)
def test_ctrl_c_while_importing_is_one_line(module: str) -> None:
    script = IMPORTING.format(module=module)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "tinyvae: interrupted\n")

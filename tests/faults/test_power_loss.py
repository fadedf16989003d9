"""The power fails: what was saved must have been fsynced, its folder too, and the folder's folder."""

from pathlib import Path

import pytest
from injector import Call
from power_loss import Disk
from scenarios import RUNS, Bench, assert_right


def test_some_power_losses(bench: Bench) -> None:
    run = RUNS["fresh"]
    losses = list(bench.power_losses(run))
    worst = [loss for loss in losses if "1" not in loss.action]  # all that is not safe is lost
    assert_right(bench.trial(run, loss) for loss in (*losses[3::15], worst[len(worst) // 2], worst[-1]))


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["fresh", "resumed", "patience"])
def test_every_power_loss(bench: Bench, name: str) -> None:
    assert_right(bench.trial(RUNS[name], loss) for loss in bench.power_losses(RUNS[name]))


def test_the_model_of_a_disk(tmp_path: Path) -> None:
    """A file replaced by way of a temporary one: what can be there after each call."""
    disk, log, seen = Disk(tmp_path, {"f": b"old"}), tmp_path / "log", []
    (tmp_path / "log.1").write_bytes(b"new")
    f, t = str(tmp_path / "f"), str(tmp_path / "t")
    for call in [
        Call("open", "ok", t, ""),
        Call("write", "ok", t, ""),
        Call("fsync", "ok 1", t, ""),
        Call("rename", "ok", t, f),
        Call("fsync", "ok", str(tmp_path), ""),
        Call("write", "ok", f, ""),
        Call("unlink", "5", f, ""),
    ]:
        disk.do(call, log)
        seen.append([disk.after_power_loss(mixture) for mixture in disk.mixtures()])
    old, new = {"f": b"old"}, {"f": b"new"}
    assert seen == [
        [old, old | {"t": b""}],
        [old, old | {"t": b""}],
        [old, old | {"t": b"new"}],
        [old, new, old | {"t": b"new"}, new],  # in the second, the name t never came to the disk
        [new],
        [{"f": b""}],
        [{"f": b""}],  # it failed
    ]

"""A checkpoint is whole or refused, and a save that fails leaves the old one."""

import errno
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tinyvae
from tinyvae.errors import CheckpointError
from tinyvae.training import checkpoint as c
from tinyvae.training import files


def small_model(**options) -> tinyvae.VAE:
    return tinyvae.VAE(data_dim=3, hidden=(2,), latent_dim=1, **options)


def moments(model: tinyvae.VAE) -> dict[str, np.ndarray]:
    size = model.params.flat.size
    return {"adam.m": np.linspace(0, 1, size, dtype=model.dtype), "adam.v": np.ones(size, dtype=model.dtype)}


def everything(model: tinyvae.VAE) -> dict[str, np.ndarray]:
    return {**model.params, **moments(model)}


def save(path: Path, model: tinyvae.VAE, tensors: dict[str, np.ndarray], run: dict) -> None:
    c.save_checkpoint(path, model.architecture, model.dtype.name, tensors, run)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "step-000000001.safetensors"
    model = small_model(seed=1)
    save(path, model, everything(model), {"state": {"epoch": 3}})
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options", [{}, {"likelihood": "gaussian", "sigma": "predicted"}, {"tied": True, "activation": "elu"}]
)
def test_save_then_load_gives_the_same_model(tmp_path: Path, dtype: str, options: dict) -> None:
    model = small_model(dtype=dtype, seed=4, **options)
    tinyvae.save(model, tmp_path / "model.safetensors")
    again = tinyvae.load(tmp_path / "model.safetensors")
    assert again.architecture == model.architecture
    assert again.dtype == model.dtype
    assert again.params.flat.tobytes() == model.params.flat.tobytes()


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    model = small_model()
    for name in ("a", "b"):
        save(tmp_path / name, model, everything(model), {"state": {"epoch": 3, "batch": 1}})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_safetensors_readers_see_the_parameters_by_name(saved: Path) -> None:
    tensors = load_file(saved)
    assert tensors["encoder.0.weight"].shape == (3, 2)
    assert set(tensors) == {*small_model().params, "adam.m", "adam.v"}


def test_moments_and_run_state_come_back(saved: Path) -> None:
    checkpoint = c.read_checkpoint(saved)
    assert checkpoint.run == {"state": {"epoch": 3}}
    for name, value in moments(small_model()).items():
        np.testing.assert_array_equal(checkpoint.moments[name], value)


# ------------------------------------------------------------------------------------------------ damage on the disk


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        c.read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_a_flipped_bit_anywhere_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for i in range(len(content)):
        for bit in (i % 8, (i + 3) % 8):
            flipped = bytearray(content)
            flipped[i] ^= 1 << bit
            saved.write_bytes(flipped)
            refused(saved)


def test_a_file_cut_short_at_any_length_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for length in range(len(content)):
        saved.write_bytes(content[:length])
        refused(saved)


def test_trailing_bytes_are_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"\0")
    assert "damaged" in refused(saved)


def test_a_directory_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "nothing")


def test_a_header_that_asks_for_terabytes_is_refused_without_allocating_them(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.write_bytes(struct.pack("<Q", 1 << 42) + b"{}")
    assert "header claims 4,398,046,511,104 bytes" in refused(path)
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}, "__metadata__": {}})
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    refused(path)


def test_a_name_that_stands_twice_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + size].rstrip().decode()
    doubled = header[:-1] + ',"__metadata__":{}}'
    saved.write_bytes(struct.pack("<Q", len(doubled)) + doubled.encode() + content[8 + size :])
    refused(saved)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": np.zeros(3)}, path)
    assert "no tinyvae checkpoint" in refused(path)
    save_file({"a": np.zeros(3)}, path, metadata={"tinyvae": "what?"})
    refused(path)


def test_another_format_version_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    format = c.FORMAT
    monkeypatch.setattr(c, "FORMAT", "tinyvae 9")
    assert refused(saved).endswith(f"has format '{format}', but this version reads 'tinyvae 9'")


def rewritten(saved: Path, change) -> Path:
    """The checkpoint with other tensors, under a digest that is right: only the contents are wrong."""
    whole = c.read_checkpoint(saved)
    tensors = {**whole.params, **whole.moments}
    change(tensors)
    about = {"format": c.FORMAT, "architecture": whole.architecture.to_dict(), "dtype": whole.dtype, "run": whole.run}
    text = json.dumps(about, sort_keys=True)
    save_file(tensors, saved, metadata={c.METADATA: f"{text}\n{c._digest(text, tensors)}"})
    return saved


def spoil(name: str, make):
    return lambda tensors: tensors.update({name: make(tensors.get(name))})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("decoder.0.bias"), "missing ['decoder.0.bias']"),
        (spoil("decoder.7.bias", lambda _: np.zeros(2, np.float32)), "unknown ['decoder.7.bias']"),
        (spoil("encoder.0.weight", lambda a: np.ascontiguousarray(a.T)), "encoder.0.weight is float32 (2, 3)"),
        (spoil("encoder.0.weight", lambda a: a.astype(np.float64)), "encoder.0.weight is float64 (3, 2)"),
        (spoil("encoder.0.weight", lambda a: a * np.float32("nan")), "encoder.0.weight holds NaN"),
        (spoil("decoder.1.bias", lambda a: a + np.float32("inf")), "decoder.1.bias holds NaN or infinite"),
    ],
)
def test_tensors_that_do_not_fit_the_model_are_refused(saved: Path, change, said: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        tinyvae.load(rewritten(saved, change))
    assert said in str(caught.value)
    assert str(saved) in str(caught.value)


def test_moments_of_the_wrong_size_are_refused(saved: Path) -> None:
    whole = c.read_checkpoint(rewritten(saved, spoil("adam.m", lambda a: a[:-1])))
    with pytest.raises(CheckpointError, match=r"adam\.m is float32"):
        whole.check_training_state()


def test_the_newest_whole_checkpoint_is_found_and_the_damaged_one_named(tmp_path: Path) -> None:
    model = small_model()
    (tmp_path / c.FOLDER).mkdir()
    for step in (2, 30):
        save(c.step_path(tmp_path, step), model, everything(model), {"state": {"epoch": step}})
    for name in ("step-000000040.safetensors~", "step-99.safetensors", "step-0000000050.safetensors", "x-000000060.st"):
        (tmp_path / c.FOLDER / name).write_bytes(b"")  # not names of ours
    assert [path.name for path in c.saved_steps(tmp_path)] == [
        "step-000000002.safetensors",
        "step-000000030.safetensors",
    ]
    c.step_path(tmp_path, 30).write_bytes(b"")
    checkpoint, problems = c.read_last(tmp_path)
    assert checkpoint.run["state"]["epoch"] == 2
    assert len(problems) == 1
    assert "step-000000030" in problems[0]
    c.step_path(tmp_path, 2).write_bytes(b"")
    with pytest.raises(CheckpointError, match="no whole checkpoint is left"):
        c.read_last(tmp_path)


# --------------------------------------------------------------------------------------------------- saves that fail


@pytest.mark.parametrize("fault", ["write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    saved: Path, monkeypatch: pytest.MonkeyPatch, fault: str, code: int
) -> None:
    before = saved.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    def half(path, content):
        def write(file):
            file.write(content[:7])
            fail()

        files.write_atomically(path, write)

    if fault == "write":
        monkeypatch.setattr(files, "write_bytes", half)
    else:
        monkeypatch.setattr(files.os, fault, fail)
    model = small_model(seed=2)
    with pytest.raises(OSError, match=os.strerror(code)):
        save(saved, model, everything(model), {})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_file_system_that_really_refuses_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        tinyvae.save(small_model(), tmp_path / "nowhere" / "model.safetensors")


FILE_TOO_LARGE = """
import resource, signal, sys
from pathlib import Path
import tinyvae
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
    tinyvae.save(tinyvae.VAE(3, (2,), 1, seed=2), Path(sys.argv[1]))
except OSError as error:
    sys.exit(f"refused: {error.strerror}")
"""


def test_a_write_that_the_system_cuts_off_leaves_the_old_file(saved: Path) -> None:
    before = saved.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FILE_TOO_LARGE, str(saved)], capture_output=True, text=True, check=False
    )
    assert done.stderr == "refused: File too large\n"
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_nan_is_never_written_over_a_good_file(saved: Path) -> None:
    before, model = saved.read_bytes(), small_model()
    model.params["encoder.0.bias"][0] = np.nan
    with pytest.raises(CheckpointError, match=r"encoder\.0\.bias holds NaN"):
        tinyvae.save(model, saved)
    assert saved.read_bytes() == before


KILLED_AT = """
import os, signal, sys
from pathlib import Path
import tinyvae
from tinyvae.training import files

stage, path = int(sys.argv[1]), Path(sys.argv[2])
model, save = tinyvae.VAE(3, (2,), 1, seed=2), tinyvae.save
calls = 0

def deadly(module, name):
    original = getattr(module, name)
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == stage:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(module, name, call)

for module, name in [(files, "write_bytes"), (os, "fsync"), (os, "replace"), (os, "open"), (os, "close")]:
    deadly(module, name)
save(model, path)
"""


def test_a_save_killed_at_any_stage_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    old, new = small_model(seed=1), small_model(seed=2)
    outcomes = []
    for stage in range(1, 20):
        tinyvae.save(old, path)
        done = subprocess.run([sys.executable, "-c", KILLED_AT, str(stage), str(path)], check=False)
        found = tinyvae.load(path).params.flat.tobytes()
        assert found in (old.params.flat.tobytes(), new.params.flat.tobytes())
        outcomes.append((done.returncode, found == new.params.flat.tobytes()))
        files.remove_leftovers(tmp_path)
        assert list(tmp_path.iterdir()) == [path]
        if done.returncode == 0:
            break
    assert outcomes[0] == (-9, False)  # killed before the first byte
    assert (-9, True) in outcomes  # killed after the rename
    assert outcomes[-1] == (0, True)  # not killed: all stages have been tried

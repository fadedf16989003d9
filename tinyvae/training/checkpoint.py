"""Checkpoints: safetensors files, which PyTorch and JAX can read and in which nothing can be executed.

A model file holds the parameters by name, and as metadata the architecture. A training checkpoint also holds Adam's
moments and the state of the run. One digest covers the metadata and every tensor's name, dtype, shape and bytes: a file
that was changed anywhere is refused, with one line that names it and the cause.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as to_safetensors

from tinyvae.backend import to_host
from tinyvae.errors import CheckpointError
from tinyvae.model.vae import VAE
from tinyvae.training.files import write_atomically, write_bytes

FORMAT = "tinyvae 1"
METADATA = "tinyvae"  # the key of our entry in the file's metadata
MAX_HEADER = 10_000_000  # bytes; a header of 100 tensors takes about 10,000
MOMENTS = ("adam.m", "adam.v")

Tensors = dict[str, np.ndarray]


@dataclass
class Checkpoint:
    """A checkpoint in memory, verified: the parameters by name, Adam's moments (if any), architecture and run state."""

    path: Path
    architecture: dict[str, Any]
    dtype: str
    params: Tensors
    moments: Tensors  # empty in a model file
    run: dict[str, Any]  # empty in a model file

    def model(self, backend: str = "numpy", kernels: str | None = None, device: int = 0) -> VAE:
        """A VAE with these parameters."""
        try:
            model = VAE(**self.architecture, dtype=self.dtype, backend=backend, kernels=kernels, device=device)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{self.path}: describes no model that this version can build ({error})") from error
        self.copy_params_into(model)
        return model

    def copy_params_into(self, model: VAE) -> None:
        """Put the parameters into the model's buffer; names, shapes and dtypes must be exactly the model's own."""
        self._check_tensors(
            self.params, {name: tuple(shape) for name, shape in model.params.shapes.items()}, model.dtype
        )
        for name, value in self.params.items():
            model.params[name][...] = model.backend.asarray(value)

    def check_moments(self, size: int) -> None:
        """Adam's moments must be there, one number for each parameter."""
        self._check_tensors(self.moments, dict.fromkeys(MOMENTS, (size,)), np.dtype(self.dtype))

    def _check_tensors(self, found: Tensors, expected: Mapping[str, tuple[int, ...]], dtype: np.dtype) -> None:
        missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        if missing or extra:
            raise CheckpointError(f"{self.path}: tensors do not fit the model (missing {missing}, unknown {extra})")
        for name, shape in expected.items():
            a = found[name]
            if a.shape != shape or a.dtype != dtype:
                raise CheckpointError(
                    f"{self.path}: {name} is {a.dtype} {a.shape}, but the model needs {dtype} {shape}"
                )
            if not np.isfinite(a).all():
                raise CheckpointError(f"{self.path}: {name} holds NaN or infinite values")


def save(model: VAE, path: str | Path) -> None:
    """Write the model's parameters and architecture to `path`, atomically. Read it back with `load`.

    Raises OSError if the file cannot be written, CheckpointError if a parameter is NaN or infinite; an old file at
    `path` is then still whole.
    """
    save_checkpoint(Path(path), model, model.params, run={})


def load(path: str | Path, backend: str = "numpy", kernels: str | None = None, device: int = 0) -> VAE:
    """The model saved at `path`: a file written by `save`, a training checkpoint, or a run directory (its last one).

    Raises CheckpointError, naming the file and the cause, if it is missing, damaged or of another format.
    """
    path = Path(path)
    checkpoint = read_last(path)[0] if path.is_dir() else read_checkpoint(path)
    return checkpoint.model(backend, kernels, device)


def save_checkpoint(path: Path, model: VAE, tensors: Mapping[str, Any], run: dict[str, Any]) -> None:
    """Write tensors (parameters by name, and moments) and run state to `path`, atomically and durably.

    The architecture and dtype are the model's. Raises OSError if the file cannot be written, CheckpointError rather
    than store a NaN.
    """
    arrays = {name: np.ascontiguousarray(to_host(a)) for name, a in tensors.items()}
    for name, a in arrays.items():
        if not np.isfinite(a).all():
            raise CheckpointError(f"{path}: is not written, for {name} holds NaN or infinite values")
    about = {"format": FORMAT, "architecture": model.architecture.to_dict(), "dtype": model.dtype.name, "run": run}
    text = json.dumps(about, sort_keys=True)
    # one entry, because safetensors writes several in random order, and the same run shall give the same bytes
    content = to_safetensors(arrays, metadata={METADATA: f"{text}\n{_digest(text, arrays)}"})
    write_atomically(path, lambda temporary: write_bytes(temporary, content))


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`, its digest verified. Raises CheckpointError for anything else than a whole one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    text, _, digest = _metadata(path, content).rpartition("\n")
    try:
        about = json.loads(text)
        found = about["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is damaged (its description cannot be read)") from error
    if found != FORMAT:
        raise CheckpointError(f"{path}: has format {str(found)[:40]!r}, but this version reads {FORMAT!r}")
    try:
        tensors = parse_safetensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is damaged ({error})") from error
    if digest != _digest(text, tensors):
        raise CheckpointError(f"{path}: is damaged (its digest does not match its contents)")
    moments = {name: tensors.pop(name) for name in MOMENTS if name in tensors}
    try:
        return Checkpoint(path, about["architecture"], about["dtype"], tensors, moments, about["run"])
    except KeyError as error:
        raise CheckpointError(f"{path}: its description lacks {error}") from error


def _metadata(path: Path, content: bytes) -> str:
    """Our entry in a safetensors file's metadata: 8 bytes hold the header's length, then comes the header, as JSON."""
    if len(content) < 8:
        raise CheckpointError(f"{path}: is damaged (it holds {len(content)} bytes)")
    (size,) = struct.unpack("<Q", content[:8])
    if size > min(MAX_HEADER, len(content) - 8):
        raise CheckpointError(f"{path}: is damaged or cut short (its header claims {size:,} bytes)")
    try:
        header = json.loads(content[8 : 8 + size], object_pairs_hook=_no_duplicates)
        return str(header["__metadata__"][METADATA])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: is no tinyvae checkpoint, or is damaged ({type(error).__name__} in its header)"
        ) from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice")
    return table


def _digest(about: str, tensors: Tensors) -> str:
    h = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        h.update(f"\n{name} {tensors[name].dtype} {tensors[name].shape}\n".encode())
        h.update(tensors[name].tobytes())
    return h.hexdigest()


# ---------------------------------------------------------------------------------------- the checkpoints of one run

FOLDER = "checkpoints"
KEPT = 2  # the last ones; should the newest be damaged, there is one before it


def step_path(run: Path, step: int) -> Path:
    """Where the checkpoint of a step is kept."""
    return run / FOLDER / f"step-{step:09d}.safetensors"


def best_path(run: Path, epoch: int) -> Path:
    """Where the parameters of an epoch are kept that was the best so far."""
    return run / FOLDER / f"best-{epoch:06d}.safetensors"


def saved_steps(run: Path) -> list[Path]:
    """The checkpoints of a run, the oldest first; the best one is kept apart."""
    return sorted((run / FOLDER).glob("step-*.safetensors"))


def prune(run: Path) -> None:
    """Delete all but the last KEPT checkpoints, and all but the KEPT best ones, which these point to."""
    for path in (*saved_steps(run)[:-KEPT], *sorted((run / FOLDER).glob("best-*.safetensors"))[:-KEPT]):
        path.unlink(missing_ok=True)


def read_last(run: Path) -> tuple[Checkpoint, list[str]]:
    """The newest whole checkpoint of a run, and one line for each newer one that is damaged."""
    problems = []
    for path in reversed(saved_steps(run)):
        try:
            return read_checkpoint(path), problems
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(f"{run}: no whole checkpoint is left; {'; '.join(problems)}")
    raise CheckpointError(f"{run}: holds no checkpoint; was it written by 'tinyvae train --out {run}'?")

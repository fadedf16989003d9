"""Checkpoints: safetensors files, which PyTorch and JAX can read and in which nothing can be executed.

A model file holds the parameters by name, and as metadata the architecture. A training checkpoint also holds Adam's
moments and the state of the run. One digest covers the metadata and every tensor's name, dtype, shape and bytes: a
file that was changed anywhere is refused, with one line that names it and the cause. A digest is no signature: whoever
writes a file can make it fit. So nothing in a file is believed before its type and range are looked at.
"""

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as to_safetensors

from tinyvae.backend import to_host
from tinyvae.errors import CheckpointError
from tinyvae.model.description import Description
from tinyvae.model.labels import Label
from tinyvae.model.standard import Standard
from tinyvae.model.stored import described
from tinyvae.model.vae import VAE
from tinyvae.parts import UnknownPartError
from tinyvae.training import files
from tinyvae.training.fields import parse_json, show

FORMAT = "tinyvae 3"
EARLIER = ("tinyvae 1", "tinyvae 2")  # formats whose models are read, and whose runs are not gone on with
METADATA = "tinyvae"  # the key of our entry in the file's metadata
MAX_HEADER = 1_000_000  # bytes; a header of 100 tensors takes about 10,000
MOMENTS = ("adam.m", "adam.v")
BEST = "best"  # the parameters of the best epoch, (parameters,); absent where they are the checkpoint's own
STANDARD = ("data.mean", "data.std")  # of a model with standardized columns, (data,) each, float64
DTYPES = ("float32", "float64")

Tensors = dict[str, np.ndarray]


class UnreadableError(CheckpointError):
    """The disk, or a permission, stands between us and a checkpoint that may be whole."""


class StrangerError(CheckpointError):
    """A checkpoint is of a class that is not the package's own, and that nobody has handed over."""

    def __init__(self, path: Path, error: UnknownPartError) -> None:
        self.kind = error.kind
        super().__init__(f"{path}: is made with the {self.kind} {show(error.name)}, which is not the package's own")


@dataclass
class Checkpoint:
    """A checkpoint in memory, verified: the parameters by name, Adam's moments (if any), architecture and run state."""

    path: Path
    architecture: Description
    dtype: str
    params: Tensors
    moments: Tensors  # empty in a model file
    best: np.ndarray | None  # (parameters,), of the best epoch, where it is not the last
    run: dict[str, Any]  # empty in a model file
    format: str = FORMAT
    standard: Standard | None = None
    labels: tuple[Label, ...] | None = None

    def model(self, backend: str = "numpy", kernels: str | None = None, device: int = 0) -> VAE:
        """A VAE with these parameters."""
        self._check_tensors(
            self.params, self.architecture.shapes()
        )  # first, so that a model is no larger than its file
        model = VAE.of(self.architecture, dtype=self.dtype, backend=backend, kernels=kernels, device=device)
        self.copy_params_into(model)
        return model

    def best_model(self, backend: str = "numpy") -> VAE:
        """A VAE with the parameters of the best epoch, where this checkpoint has them; else with its own."""
        model = self.model(backend)
        if self.best is not None:
            self._check_tensors({BEST: self.best}, {BEST: (model.params.flat.size,)})
            model.params.flat[...] = model.backend.asarray(self.best)
        return model

    def copy_params_into(self, model: VAE) -> None:
        """Put the parameters into the model's buffer; names, shapes and dtypes must be exactly the model's own."""
        model.standard, model.labels = self.standard, self.labels
        if model.dtype.name != self.dtype:
            raise CheckpointError(f"{self.path}: holds {self.dtype} numbers, but the model needs {model.dtype}")
        self._check_tensors(self.params, model.params.shapes)
        for name, value in self.params.items():
            model.params[name][...] = model.backend.asarray(value)

    def check_training_state(self) -> None:
        """Adam's moments must be there, one number for each parameter; the best epoch's parameters likewise, if any."""
        size = sum(math.prod(shape) for shape in self.architecture.shapes().values())
        self._check_tensors(self.moments, dict.fromkeys(MOMENTS, (size,)))
        if (self.moments["adam.v"] < 0).any():
            raise CheckpointError(f"{self.path}: adam.v holds squares below 0")
        if self.best is not None:
            self._check_tensors({BEST: self.best}, {BEST: (size,)})

    def _check_tensors(self, found: Tensors, expected: Mapping[str, tuple[int, ...]]) -> None:
        missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        if missing or extra:
            raise CheckpointError(f"{self.path}: tensors do not fit the model (missing {missing}, unknown {extra})")
        for name, shape in expected.items():
            a = found[name]
            if a.shape != tuple(shape) or a.dtype != self.dtype:
                raise CheckpointError(
                    f"{self.path}: {name} is {a.dtype} {a.shape}, but the model needs {self.dtype} {tuple(shape)}"
                )
            if not np.isfinite(a).all():
                raise CheckpointError(f"{self.path}: {name} holds NaN or infinite values")


def save(model: VAE, path: str | Path) -> None:
    """Write the model's parameters and architecture to `path`, atomically. Read it back with `load`.

    Raises OSError if the file cannot be written, CheckpointError if a parameter is NaN or infinite; an old file at
    `path` is then still whole.
    """
    with model.lock:  # another thread may train it
        params = {name: to_host(a).copy() for name, a in model.params.items()}
    save_checkpoint(Path(path), model.architecture, model.dtype.name, params, {}, model.standard, model.labels)


def load(
    path: str | Path, backend: str = "numpy", kernels: str | None = None, device: int = 0, known: Sequence[type] = ()
) -> VAE:
    """The model saved at `path`: a file written by `save`, a training checkpoint, or a run directory (its last one).

    known: classes of likelihoods and layers that are not the package's own. Without them a model made of such is
    refused: a file never makes code run.

    Raises CheckpointError, naming the file and the cause, if it is missing, damaged or of another format.
    """
    path = Path(path)
    try:
        checkpoint = read_last(path, known)[0] if path.is_dir() else read_checkpoint(path, known)
    except StrangerError as error:
        raise CheckpointError(f"{error}; hand its class over: load(path, known=[Mine])") from error
    return checkpoint.model(backend, kernels, device)


def save_checkpoint(
    path: Path, architecture: Description, dtype: str, tensors: Mapping[str, Any], run: dict[str, Any],
    standard: Standard | None = None, labels: Sequence[Label] | None = None,
) -> None:  # fmt: skip
    """Write tensors (parameters by name, moments, the best) and run state to `path`, atomically and durably.

    Raises OSError if the file cannot be written, CheckpointError rather
    than store a NaN.
    """
    if standard is not None:
        tensors = {**tensors, **dict(zip(STANDARD, (standard.mean, standard.std), strict=True))}
    arrays = {name: np.ascontiguousarray(to_host(a)) for name, a in tensors.items()}
    for name, a in arrays.items():
        if not np.isfinite(a).all():
            raise CheckpointError(f"{path}: is not written, for {name} holds NaN or infinite values")
    about = {"format": FORMAT, "architecture": architecture.to_dict(), "dtype": dtype, "run": run}
    if labels is not None:
        about["labels"] = list(labels)
    text = json.dumps(about, sort_keys=True)
    # one entry, because safetensors writes several in random order, and the same run shall give the same bytes
    files.write_bytes(path, to_safetensors(arrays, metadata={METADATA: f"{text}\n{_digest(text, arrays)}"}))


def read_checkpoint(path: Path, known: Sequence[type] = ()) -> Checkpoint:
    """The checkpoint at `path`, its digest verified.

    Raises CheckpointError for anything else than a whole one, of which StrangerError if it needs a class that is not
    in `known`.
    """
    try:
        content = files.read_regular(path, limit=_memory())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file") from error
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    text, _, digest = _metadata(path, content).rpartition("\n")
    try:
        about = parse_json(text)
        found = about["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is damaged (its description cannot be read)") from error
    if found not in (FORMAT, *EARLIER):
        raise CheckpointError(f"{path}: has format {show(found)}, but this version reads {FORMAT!r}")
    try:
        tensors = parse_safetensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is damaged ({error})") from error
    if digest != _digest(text, tensors):
        raise CheckpointError(f"{path}: is damaged (its digest does not match its contents)")
    moments = {name: tensors.pop(name) for name in MOMENTS if name in tensors}
    best = tensors.pop(BEST, None)
    found_standard = [tensors.pop(name) for name in STANDARD if name in tensors]
    try:
        architecture, dtype, run = _described(about, known)
        standard = _standard(found_standard, architecture.data_dim)
        labels = _labels(about.get("labels"), architecture.classes)
    except UnknownPartError as error:
        raise StrangerError(path, error) from error
    except ValueError as error:
        raise CheckpointError(f"{path}: describes no model that this version can build ({error})") from error
    return Checkpoint(path, architecture, dtype, tensors, moments, best, run, found, standard, labels)


def _labels(found: Any, classes: int) -> tuple[Label, ...] | None:
    """Raises ValueError for anything but None, or as many names as the model has classes, ascending and of one kind."""
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != classes or len({type(v) for v in found}) != 1:
        raise ValueError(f"labels must be a list of {classes} names of one kind")
    if not isinstance(found[0], (str, int, float)) or found != sorted(set(found)):
        raise ValueError("labels must be strings or numbers, ascending")
    return tuple(found)


def _standard(found: list[np.ndarray], data_dim: int) -> Standard | None:
    """Raises ValueError for anything but nothing, or two numbers for each column."""
    if not found:
        return None
    if len(found) != 2 or any(a.shape != (data_dim,) or a.dtype != np.float64 for a in found):
        raise ValueError(f"{' and '.join(STANDARD)} must be {data_dim} numbers each")
    return Standard(*found)


def _described(about: dict[str, Any], known: Sequence[type]) -> tuple[Description, str, dict[str, Any]]:
    """The parts of a description, of the right types. Raises ValueError for any others."""
    if set(about) - {"labels"} != {"format", "architecture", "dtype", "run"}:
        raise ValueError(f"it has {', '.join(sorted(about))[:80]}, not architecture, dtype, format and run")
    if about["dtype"] not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {show(about['dtype'])}")
    if not isinstance(about["run"], dict):
        raise ValueError(f"run must be a table of names, not {show(about['run'])}")
    if not isinstance(about["architecture"], dict):
        raise ValueError(f"architecture must be a table of names, not {show(about['architecture'])}")
    architecture = described(about["architecture"], known)
    return architecture, about["dtype"], about["run"]


def _memory() -> int:
    """Bytes of memory that this machine has: no file to be read whole can be larger."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _metadata(path: Path, content: bytes) -> str:
    """Our entry in a safetensors file's metadata: 8 bytes hold the header's length, then comes the header, as JSON."""
    if len(content) < 8:
        raise CheckpointError(f"{path}: is damaged (it holds {len(content)} bytes)")
    (size,) = struct.unpack("<Q", content[:8])
    if size > min(MAX_HEADER, len(content) - 8):
        raise CheckpointError(f"{path}: is damaged or cut short (its header claims {size:,} bytes)")
    try:
        return str(parse_json(content[8 : 8 + size])["__metadata__"][METADATA])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: is no tinyvae checkpoint, or is damaged ({type(error).__name__} in its header)"
        ) from error


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
    """The checkpoints of a run, the oldest first; the best ones are kept apart."""
    return [step_path(run, n) for n in saved_numbers(run, step_path)]


def saved_numbers(run: Path, path_of: Callable[[Path, int], Path]) -> list[int]:
    """The steps (or epochs, with `best_path`) whose files there are, in order; only names that `path_of` makes.

    Raises CheckpointError if the folder cannot be read.
    """
    try:
        names = os.listdir(run / FOLDER)  # noqa: PTH208 - Path.glob would hide that a folder cannot be read
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"{run / FOLDER}: cannot be read ({error.strerror or error})") from error
    numbers = {int(digits) for name in names for digits in re.findall(r"-(\d{6,18})\.", name)}
    return sorted(n for n in numbers if path_of(run, n).name in names)


def read_last(run: Path, known: Sequence[type] = ()) -> tuple[Checkpoint, list[str]]:
    """The newest whole checkpoint of a run, and one line for each newer one that is damaged.

    Raises CheckpointError if there is none, or if a newer one cannot be read at all: the fault may pass, and a class
    that is not known may be handed over.
    """
    problems = []
    for path in reversed(saved_steps(run)):
        try:
            return read_checkpoint(path, known), problems
        except UnreadableError as error:
            raise UnreadableError(f"{error}; if that lasts, move it away to use the one before") from error
        except StrangerError:
            raise
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(f"{run}: no whole checkpoint is left; {'; '.join(problems)}")
    began = (run / "config.json").exists()
    raise CheckpointError(
        f"{run}: holds no checkpoint; the run ended before its first: begin again with --out {run}"
        if began
        else f"{run}: holds no checkpoint; was it written by 'tinyvae train --out {run}'?"
    )

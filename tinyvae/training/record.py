"""What a training checkpoint says of its run. Read with suspicion: anybody may have written it."""

import math
import re
from dataclasses import dataclass

from tinyvae.errors import CheckpointError
from tinyvae.model.architecture import Architecture
from tinyvae.training.checkpoint import Checkpoint
from tinyvae.training.config import Config
from tinyvae.training.fields import from_json, show
from tinyvae.training.trainer import RunState


@dataclass(frozen=True)
class Record:
    """What a training checkpoint says of its run, looked at: every name, type and range, and whether they agree."""

    config: Config
    state: RunState
    image_shape: tuple[int, int] | None
    data_digest: str
    labels: tuple[int, ...] | None  # that the training rows of a conditional run have; None for others, and for older

    def __post_init__(self) -> None:
        if self.image_shape is not None and min(self.image_shape) < 1:
            raise ValueError(f"image_shape must be at least 1 x 1, not {self.image_shape}")
        if not re.fullmatch("[0-9a-f]{64}", self.data_digest):
            raise ValueError(f"data_digest must be 64 hexadecimal digits, not {show(self.data_digest)}")


def read_record(checkpoint: Checkpoint) -> Record:
    """What the checkpoint says of its run. Raises CheckpointError if that is nothing that this version wrote."""
    if "state" not in checkpoint.run:
        raise CheckpointError(f"{checkpoint.path}: is a model without the state of a run: it holds no configuration")
    try:
        record = from_json(Record, {"labels": None, **checkpoint.run}, "run")
        _check_agreement(record, checkpoint.architecture, checkpoint.dtype)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: holds no run of this version ({error})") from error
    checkpoint.check_training_state()
    return record


def _check_agreement(record: Record, a: Architecture, dtype: str) -> None:
    """Raises ValueError if the configuration is not that of the architecture, or is not resolved."""
    config, shape = record.config, record.image_shape
    config.check_resolved()
    if record.state.epoch > (config.epochs or 0):
        raise ValueError(f"epoch must be at most {config.epochs}, as in its configuration, not {record.state.epoch}")
    mirrored = config.decoder_hidden is None and a.decoder_hidden == a.hidden[::-1]
    same = {
        "dtype": (config.dtype, dtype),
        "hidden": (config.hidden, a.hidden),
        "decoder_hidden": (config.decoder_hidden, None if mirrored else a.decoder_hidden),
        "latent": (config.latent, a.latent_dim),
        "activation": (config.activation, a.activation),
        "likelihood": (config.likelihood, a.likelihood),
        "sigma": (config.sigma if config.likelihood == "gaussian" else None, a.sigma),
        "tied": (config.tied, a.tied),
        "conv": (config.conv, a.conv),
        "batch_norm": (config.batch_norm, a.batch_norm),
        "conditional": (config.conditional, a.classes > 0),
        "image_shape": (shape if a.conv else None, a.image_shape),
        "width of the images": (a.data_dim if shape is None else math.prod(shape), a.data_dim),
    }
    if record.labels is not None and not set(record.labels) <= set(range(a.classes)):
        raise ValueError(f"labels must lie in 0..{a.classes - 1}, not {show(record.labels)}")
    for name, (of_run, of_model) in same.items():
        if of_run != of_model:
            raise ValueError(f"{name} is {show(of_run)} in its run, but {show(of_model)} in its model")

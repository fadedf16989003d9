"""What a training checkpoint says of its run. Read with suspicion: anybody may have written it."""

import math
import re
from dataclasses import dataclass
from typing import Any

from tinyvae import parts
from tinyvae.errors import CheckpointError
from tinyvae.likelihoods import likelihood
from tinyvae.model.architecture import Architecture
from tinyvae.model.description import Description
from tinyvae.objectives import objective
from tinyvae.training.checkpoint import FORMAT, Checkpoint, StrangerError
from tinyvae.training.config import SPELLINGS, Config
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
    """What the checkpoint says of its run.

    Raises CheckpointError if that is nothing that this version wrote, StrangerError for an objective of a user's own.
    """
    if "state" not in checkpoint.run:
        raise CheckpointError(f"{checkpoint.path}: is a model without the state of a run: it holds no configuration")
    try:
        run = checkpoint.run if checkpoint.format == FORMAT else _of_format_1(checkpoint.run)
        record = from_json(Record, {"labels": None, **run}, "run")
        _check_agreement(record, checkpoint.architecture, checkpoint.dtype)
    except parts.UnknownPartError as error:
        raise StrangerError(checkpoint.path, error) from error
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: holds no run of this version ({error})") from error
    checkpoint.check_training_state()
    return record


def check_can_go_on(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError for the run of an earlier version: its steps were others, if only in their last digits."""
    if checkpoint.format != FORMAT:
        raise CheckpointError(
            f"{checkpoint.path}: was trained by an earlier version ({checkpoint.format}): its model can be loaded, "
            "evaluated and used, but the run cannot be gone on with; begin a new one"
        )


def _of_format_1(run: dict[str, Any]) -> dict[str, Any]:
    """Which said sigma beside the likelihood, and beta and the like beside the objective. Raises ValueError."""
    config = run.get("config")
    if not isinstance(config, dict):
        raise ValueError("config must be a table of names")
    config = dict(config)
    sigma, K = config.get("sigma"), config.get("importance")
    if sigma is not None:
        config["likelihood"] = f"{config.get('likelihood')}:sigma={sigma}"
    if K is not None:
        config["objective"] = f"{config.get('objective')}:draws={K}"
    else:
        options = [f"{name}={config.get(name, 0)}" for name in ("beta", "beta_warmup", "free_bits")]
        config["objective"] = f"{config.get('objective')}:{','.join(options)}"
    config["likelihood"] = parts.text_of(likelihood(str(config.get("likelihood"))))
    config["objective"] = parts.text_of(objective(str(config["objective"])))
    config.update(dict.fromkeys(SPELLINGS))
    return {**run, "config": config}


def _check_agreement(record: Record, a: Description, dtype: str) -> None:
    """Raises ValueError if the configuration is not that of the architecture, or is not resolved."""
    config, shape = record.config, record.image_shape
    config.check_resolved()
    if not isinstance(a, Architecture):
        raise ValueError("its model is made of layers one by one, which a run of this command never is")
    if record.state.epoch > (config.epochs or 0):
        raise ValueError(f"epoch must be at most {config.epochs}, as in its configuration, not {record.state.epoch}")
    mirrored = config.decoder_hidden is None and a.decoder_hidden == a.hidden[::-1]
    same = {
        "dtype": (config.dtype, dtype),
        "hidden": (config.hidden, a.hidden),
        "decoder_hidden": (config.decoder_hidden, None if mirrored else a.decoder_hidden),
        "latent": (config.latent, a.latent_dim),
        "activation": (config.activation, a.activation),
        "likelihood": (config.likelihood, parts.text_of(a.likelihood)),
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

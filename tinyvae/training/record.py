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
from tinyvae.training.checkpoint import EARLIER, FORMAT, Checkpoint, StrangerError
from tinyvae.training.config import ARRAYS, NO_VALID, SPELLINGS, Config
from tinyvae.training.engine import RunState
from tinyvae.training.fields import from_json, show

NEW_OPTIONS = {  # since the formats before this one, as these did without them
    "valid": NO_VALID, "standardize": "off", "weight_decay": 0.0, "label": None, "kinds": None,
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """What a training checkpoint says of its run, looked at: every name, type and range, and whether they agree."""

    config: Config
    state: RunState
    image_shape: tuple[int, ...] | None
    data_digest: str
    labels: tuple[Any, ...] | None  # that the training rows of a conditional run have; None for others, and for older
    scale: float = 1.0  # of bytes: a value is x scale
    table: dict[str, Any] | None = None  # how the columns of a table became numbers

    def __post_init__(self) -> None:
        if self.image_shape is not None and (min(self.image_shape) < 1 or len(self.image_shape) not in (2, 3)):
            raise ValueError(f"image_shape must be two or three numbers above 0, not {self.image_shape}")
        if not re.fullmatch("[0-9a-f]{64}", self.data_digest):
            raise ValueError(f"data_digest must be 64 hexadecimal digits, not {show(self.data_digest)}")


def read_record(checkpoint: Checkpoint) -> Record:
    """What the checkpoint says of its run.

    Raises CheckpointError if that is nothing that this version wrote, StrangerError for an objective of a user's own.
    """
    if "state" not in checkpoint.run:
        raise CheckpointError(f"{checkpoint.path}: is a model without the state of a run: it holds no configuration")
    try:
        run = _up_to_date(checkpoint)
        record = from_json(Record, {"labels": None, **run}, "run")
        _check_agreement(record, checkpoint.architecture, checkpoint.dtype, checkpoint.labels)
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


def _up_to_date(checkpoint: Checkpoint) -> dict[str, Any]:
    """What this version would have written. Raises ValueError."""
    run = checkpoint.run
    if checkpoint.format == FORMAT:
        return run
    if checkpoint.format == EARLIER[0]:
        run = _of_format_1(run)
    if not isinstance(run.get("config"), dict):
        raise ValueError("config must be a table of names")
    config = {**NEW_OPTIONS, **run["config"]}
    if type(config.get("leave_out")) is int:
        config["leave_out"] = str(config["leave_out"])
    return {"scale": 1.0, "table": None, **run, "config": config}


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


def _check_agreement(record: Record, a: Description, dtype: str, labels: Any) -> None:
    """Raises ValueError if the configuration is not that of the architecture, or is not resolved."""
    config, shape = record.config, record.image_shape
    config.check_resolved()
    if not isinstance(a, Architecture) and config.data != ARRAYS:
        raise ValueError("its model is made of layers one by one, which a run of this command never is")
    if record.state.epoch > (config.epochs or 0):
        raise ValueError(f"epoch must be at most {config.epochs}, as in its configuration, not {record.state.epoch}")
    own = a.options()
    if config.decoder_hidden is not None:  # said, though it may be the default
        own["decoder_hidden"] = getattr(a, "decoder_hidden", None)
    same = {
        "dtype": (config.dtype, dtype),
        **{name: (getattr(config, name), value) for name, value in own.items()},
        "image_shape": (shape if config.conv else None, getattr(a, "image_shape", None)),
        "width of the images": (a.data_dim if shape is None else math.prod(shape), a.data_dim),
    }
    if record.labels is not None and not set(record.labels) <= set(labels or range(a.classes)):
        raise ValueError(f"labels must be those of its model, not {show(record.labels)}")
    for name, (of_run, of_model) in same.items():
        if of_run != of_model:
            raise ValueError(f"{name} is {show(of_run)} in its run, but {show(of_model)} in its model")

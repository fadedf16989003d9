"""The options of training, each written once: its default, its bounds, and the sentence that explains it.

`tinyvae.fit`, `tinyvae.Trainer`, the command line, the JSON of a run and the messages of errors read them from here.
"""

import math
from collections.abc import Callable
from dataclasses import Field, asdict, dataclass, field, fields, replace
from numbers import Integral
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

import numpy as np

from tinyvae.objectives import objective as objective_named
from tinyvae.objectives.objective import Objective

BINARIZE = ("none", "threshold", "dynamic")
STANDARDIZE = ("auto", "on", "off")
SCHEDULES = ("constant", "cosine")
LARGEST = 10**12  # of any number given: what is larger is a slip, or does not fit a float
BATCH_SIZE = 128
STEPS = 5000  # about how many updates the default number of epochs makes


@dataclass(frozen=True)
class About:
    """What an option says of itself."""

    help: str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    least: float | None = None  # of a number, or of each of several
    above: float | None = None
    absent: str = ""  # what it means if it is not given


def option(default: Any, help: str, **about: Any) -> Any:
    """A field of a dataclass that is an option."""
    return field(default=default, metadata={"about": About(help, **about)})


def about(f: Field[Any]) -> About:
    """What a field says of itself."""
    return f.metadata["about"]


class Options:
    """The base of dataclasses whose fields are options: checked by what these say of themselves."""

    def named(self, name: str) -> str:
        """An option's name in messages."""
        return name

    def __post_init__(self) -> None:
        """Raises ValueError for a value of another type, or out of bounds."""
        hints = get_type_hints(type(self))
        for f in fields(self):  # pyright: ignore[reportArgumentType] - it is a dataclass
            value = getattr(self, f.name)
            if isinstance(value, np.generic):  # NumPy's numbers have no JSON
                value = value.item()
                object.__setattr__(self, f.name, value)
            if value is not None:
                self._check_kind(self.named(f.name), value, hints[f.name])
                self._check(self.named(f.name), value, about(f))

    def _check_kind(self, name: str, value: Any, hint: Any) -> None:
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if int in kinds and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise ValueError(f"{name} must be a whole number, not {shown(value)}")
        if callable(value) and float in kinds and not any(get_origin(kind) is Callable for kind in kinds):
            raise ValueError(f"{name} must be a number, not a function")
        if bool in kinds and not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, not {shown(value)}")

    def _check(self, name: str, value: Any, a: About) -> None:
        if a.choices is not None and value not in a.choices:
            raise ValueError(f"{name} must be one of {', '.join(a.choices)}, not {value}")
        if a.least is not None:
            numbers = _several(value)
            if not all(_is_number(n) and a.least <= n <= LARGEST for n in numbers):
                small = all(_is_number(n) and n < a.least for n in numbers)
                bounds = f"at least {a.least:g}" if small else f"from {a.least:g} to {LARGEST}"
                raise ValueError(f"{name} must be {bounds}, not {shown(value)}")
        if a.above is not None and not (callable(value) or _is_above(value, a.above)):
            raise ValueError(f"{name} must be above {a.above:g} and finite, not {value}")

    def changed(self, **values: Any) -> Self:
        """The same with other values."""
        return replace(self, **values)  # pyright: ignore[reportArgumentType, reportReturnType]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values. Raises ValueError for a value that has no text."""
        values = asdict(self)  # pyright: ignore[reportArgumentType]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _is_above(value: Any, bound: float) -> bool:
    return _is_number(value) and math.isfinite(value) and value > bound


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True)
class Training(Options):
    """How a model is trained. None: the default depends on the number of rows."""

    objective: str | Objective = option(
        "elbo", "what is minimized: a name with options, as in iwae:draws=5, or an objective", metavar="NAME[:OPTIONS]"
    )
    epochs: int | None = option(None, "passes over the data", metavar="N", least=1, absent=f"about {STEPS:,} steps")
    batch_size: int | None = option(None, "rows in a step", metavar="N", least=1, absent=str(BATCH_SIZE))
    lr: float | Callable[[float], float] = option(1e-3, "Adam's step size", metavar="LR", above=0.0)
    lr_schedule: str = option(
        "constant", "constant, or cosine: down towards 0 at the end of all epochs", choices=SCHEDULES
    )
    weight_decay: float = option(
        0.0, "shrink weight matrices by lr times this at every step, as AdamW; biases and the like are left alone",
        metavar="RATE", least=0,
    )  # fmt: skip
    clip_norm: float | None = option(
        None, "shorten a gradient that is longer than this", metavar="NORM", above=0.0, absent="no clipping"
    )
    accumulate: int = option(1, "batches whose gradients make one step", metavar="BATCHES", least=1)
    patience: int | None = option(
        None, "stop after so many epochs without a better validation loss", metavar="EPOCHS", least=1, absent="never"
    )
    binarize: str = option(
        "none", "grey pixels to black and white: threshold at 1/2 once, or dynamic: drawn anew with the pixel as the "
        "probability, at every step", choices=BINARIZE,
    )  # fmt: skip
    standardize: str = option(
        "auto", "real columns at mean 0 and standard deviation 1 inside the model, by the training rows; all that is "
        "said stays in the units of the data. on, off, or auto: on, but for images, bytes and a fixed sigma",
        choices=STANDARDIZE,
    )  # fmt: skip
    seed: int = option(0, "draws weights, order and noise: the same seed, the same run", metavar="N", least=0)
    checkpoint_every: int | None = option(
        None, "save after so many epochs", metavar="EPOCHS", least=1, absent="a twentieth of all epochs"
    )
    tf32: bool = option(
        False, "float32 products rounded to TF32 on a GPU: faster, 10 bits of mantissa; for the backend cupy"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.objective_part()
        if callable(self.lr) and self.lr_schedule != "constant":
            raise ValueError("lr_schedule does not go with a function as lr, which says all itself: leave it away")

    def objective_part(self) -> Objective:
        """The objective. Raises ValueError for one that there is not."""
        return objective_named(self.objective)

    def resolved(self, rows: int) -> Self:
        """With the defaults filled in, for a training set of `rows` rows."""
        batch_size = self.batch_size or BATCH_SIZE
        epochs = self.epochs or default_epochs(rows, batch_size)
        every = self.checkpoint_every or max(1, epochs // 20)
        return self.changed(batch_size=batch_size, epochs=epochs, checkpoint_every=every)

    def lr_at(self, epochs_done: float) -> float:
        """The step size after so many epochs, with fractions: a number, half a cosine to 0, or what a function says."""
        if callable(self.lr):
            return float(self.lr(epochs_done))
        if self.lr_schedule == "constant":
            return self.lr
        assert self.epochs is not None  # resolved
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(epochs_done / self.epochs, 1.0)))

    def says_the_same(self, other: "Training", name: str) -> bool:
        """Whether an option of this name is the same in both, however it is written."""
        if name == "objective":
            return self.objective_part() == other.objective_part()
        return getattr(self, name) == getattr(other, name)


def default_epochs(rows: int, batch_size: int) -> int:
    """Enough for about STEPS updates, between 10 and 500."""
    return min(max(round(STEPS / math.ceil(rows / batch_size)), 10), 500)


def shown(value: Any) -> str:
    """A value in a message: short, a list as it is typed."""
    text = " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def explained(f: Field[Any], default: str | None = None) -> str:
    """The option's help, with its default: a switch has none."""
    a = about(f)
    said = default or a.absent or ("" if f.default is False else shown(f.default))
    return f"{a.help} (default: {said})" if said else a.help

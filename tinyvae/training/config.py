"""Everything a run was asked to do: defaults, checks, and the form it is stored in."""

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from tinyvae import likelihoods, objectives, parts
from tinyvae.kernels import NAMES as KERNELS
from tinyvae.likelihoods import likelihood as likelihood_named
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.objectives import objective as objective_named
from tinyvae.objectives.objective import Objective
from tinyvae.ops.activations import ACTIVATIONS
from tinyvae.training.data.convert import how_to_convert, is_path
from tinyvae.training.data.dataset import MIN_ROWS
from tinyvae.training.data.regular import FOLDER, exists, problem

BINARIZE = ("none", "threshold", "dynamic")
SCHEDULES = ("constant", "cosine")
ACTIVATION_NAMES = tuple(name for name, a in ACTIVATIONS.items() if not a.identity)
SPELLINGS = {  # an option that is short for one of a part's: which part, and its option there
    "sigma": ("likelihood", "sigma"),
    "beta": ("objective", "beta"),
    "beta_warmup": ("objective", "beta_warmup"),
    "free_bits": ("objective", "free_bits"),
    "importance": ("objective", "draws"),
}
BACKENDS = ("auto", "numpy", "cupy")
DTYPES = ("float32", "float64")

LARGEST = 10**12  # of any number given: what is larger is a slip, or does not fit a float
STEPS_FOR_OWN_DATA = 5000  # about how many updates the default number of epochs makes on a user's own file


@dataclass(frozen=True)
class Config:
    """The options of `tinyvae train`, by their names there. None: not asked for, so the default of the data applies."""

    data: str = "digits"
    data_dir: str | None = None
    leave_out: int | None = None
    backend: str = "auto"
    kernels: str | None = None
    dtype: str = "float32"
    device: int = 0
    tf32: bool = False
    hidden: tuple[int, ...] | None = None
    decoder_hidden: tuple[int, ...] | None = None
    latent: int | None = None
    activation: str = "relu"
    tied: bool = False
    conv: tuple[int, ...] = ()
    batch_norm: bool = False
    conditional: bool = False
    likelihood: str | None = None
    sigma: str | None = None
    binarize: str = "none"
    beta: float | None = None
    beta_warmup: float | None = None
    free_bits: float | None = None
    objective: str = "elbo"
    importance: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float = 1e-3
    lr_schedule: str = "constant"
    clip_norm: float | None = None
    accumulate: int = 1
    patience: int | None = None
    seed: int = 0
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise ValueError(f"--{name.replace('_', '-')} must be one of {', '.join(choices)}, not {value}")
        for name, smallest in _AT_LEAST.items():
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else () if value is None else (value,)
            if any(not smallest <= n <= LARGEST for n in numbers):
                bounds = (
                    f"at least {smallest}" if all(n < smallest for n in numbers) else f"from {smallest} to {LARGEST}"
                )
                raise ValueError(f"--{name.replace('_', '-')} must be {bounds}, not {_show(value)}")
        for name in ("lr", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"--{name.replace('_', '-')} must be above 0 and finite, not {value}")
        self.objective_part()
        if self.likelihood is not None:
            self.likelihood_part()
        if self.tf32:
            self._check_tf32()
        if self.batch_norm and self.batch_size == 1:
            raise ValueError("--batch-norm needs the variance of a batch: make --batch-size larger than 1")
        if self.conditional and self.leave_out is not None:
            raise ValueError("--conditional does not go with --leave-out: a label never seen is none to ask for")

    def likelihood_part(self) -> Likelihood:
        """The likelihood, with what `sigma` says. Raises ValueError for one that there is not."""
        return self._part("likelihood")

    def objective_part(self) -> Objective:
        """The objective, with what beta and the like say. Raises ValueError for one that there is not."""
        return self._part("objective")

    def _part(self, kind: str) -> Any:
        text = self._with_spellings(kind)
        try:
            return _BY_NAME[kind](text)
        except parts.UnknownPartError as error:
            raise parts.UnknownPartError(kind, error.name, error.there, asked=f"--{kind}") from error
        except ValueError as error:
            about, _, rest = str(error).partition(" ")
            option = about.rpartition(":")[2]  # "elbo:beta", or beta
            short = [s for s in SPELLINGS if SPELLINGS[s] == (kind, option) and getattr(self, s) is not None]
            named = short[0].replace("_", "-") if short else kind
            raise ValueError(f"--{named} {rest}" if short or about == kind else f"--{kind} {text}: {error}") from error

    def _with_spellings(self, kind: str) -> str:
        text = getattr(self, kind)
        name = text.partition(":")[0]
        for short, (part, option) in SPELLINGS.items():
            value = getattr(self, short)
            if part != kind or value is None:
                continue
            flag, has = f"--{short.replace('_', '-')}", parts.options_of(_BY_NAME[kind](name))
            if option not in has:
                folder, base = _FOLDERS[kind]
                others = " or ".join(parts.having(folder, base, option))
                raise ValueError(
                    f"{flag} is no option of {name}, but of --{kind} {others}: ask for that, or leave it out"
                )
            if f"{option}=" in text.replace("-", "_"):
                raise ValueError(f"{flag} and --{kind} {text} both say {option}: leave one away")
            text += f"{',' if ':' in text else ':'}{option}={value}"
        return text

    def _check_tf32(self) -> None:
        """Only the captured step of the CUDA kernels rounds to TF32."""
        conflicts = {
            "--backend numpy": self.backend == "numpy",
            f"--kernels {self.kernels}": self.kernels not in (None, "fused", "cuda"),
            f"--dtype {self.dtype}": self.dtype != "float32",
            "--clip-norm": self.clip_norm is not None,
            "--accumulate": self.accumulate > 1,
            "--conv": bool(self.conv),
            "--batch-norm": self.batch_norm,
            "--conditional": self.conditional,
            f"--activation {self.activation}": ACTIVATIONS[self.activation].captured is None,
            f"--objective {parts.text_of(self.objective_part())}": not self.objective_part().captured,
        }
        if self.likelihood is not None:
            part = self.likelihood_part()
            conflicts[f"--likelihood {parts.text_of(part)}"] = not part.captured
        wrong = [option for option, conflict in conflicts.items() if conflict]
        if wrong:
            raise ValueError(f"--tf32 is for --backend cupy with its fused kernels, and does not go with {wrong[0]}")

    def resolved(self, rows: int) -> "Config":
        """With the defaults of the data filled in, for a training set of `rows` rows."""
        values: dict[str, Any] = asdict(self)
        name = self.data.partition(":")[0]
        defaults = {**_DEFAULTS, **_DEFAULTS_OF.get(name, {})}
        if name not in _DEFAULTS_OF:  # a user's own file
            batches = math.ceil(rows / (self.batch_size or defaults["batch_size"]))
            defaults["epochs"] = min(max(round(STEPS_FOR_OWN_DATA / batches), 10), 500)
        if self.conv:
            defaults["hidden"] = ()  # convolutions are the hidden layers
        usual = defaults.pop("likelihood")
        for option, default in defaults.items():
            if values[option] is None:
                values[option] = default
        asked = values["likelihood"] or usual.partition(":")[0]
        if asked == usual.partition(":")[0] and not _says(self, usual):
            asked = usual  # with the options that suit the data
        spelled = Config(**{**values, "likelihood": asked})
        values["likelihood"] = parts.text_of(spelled.likelihood_part())
        values["objective"] = parts.text_of(spelled.objective_part())
        values.update(dict.fromkeys(SPELLINGS))  # said by now
        if values["checkpoint_every"] is None:
            values["checkpoint_every"] = max(1, values["epochs"] // 20)
        return Config(**values)

    def check_resolved(self) -> None:
        """Raises ValueError unless this is what `resolved` returns, with the backend and kernels that were found."""
        needed = ["hidden", "latent", "likelihood", "epochs", "batch_size", "kernels", "checkpoint_every"]
        if any(getattr(self, short) is not None for short in SPELLINGS):
            raise ValueError("config spells an option of a part that has its own place")
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"config has no {missing[0]}")
        if self.backend == "auto" or self.kernels == "fused":
            raise ValueError(f"config does not say what it ran on: {self.backend}, {self.kernels}")
        check_two_gaussians(self.data)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def differences(self, given: dict[str, Any]) -> list[str]:
        """One line for each option in `given` whose value here is another."""
        found = []
        for name, value in given.items():
            here = getattr(self, name)
            if name in SPELLINGS:
                kind, option = SPELLINGS[name]
                here = getattr(_BY_NAME[kind](getattr(self, kind)), option, None)
            elif name in _BY_NAME:
                own = _BY_NAME[name](here)
                if value == here.partition(":")[0] or _BY_NAME[name](value) == own:
                    continue
            if here != value:
                found.append(f"--{name.replace('_', '-')} is {_show(here)} in the run, not {_show(value)}")
        return found


_BY_NAME: dict[str, Any] = {"likelihood": likelihood_named, "objective": objective_named}
_FOLDERS: dict[str, Any] = {"likelihood": (likelihoods, Likelihood), "objective": (objectives, Objective)}


def _says(config: Config, usual: str) -> bool:
    """Whether an option of the usual likelihood is given another value."""
    options = [item.partition("=")[0] for item in usual.partition(":")[2].split(",")]
    return any(
        SPELLINGS[name] == ("likelihood", o) and getattr(config, name) is not None
        for name in SPELLINGS
        for o in options
    )


_CHOICES = {
    "backend": BACKENDS,
    "kernels": KERNELS,
    "dtype": DTYPES,
    "activation": ACTIVATION_NAMES,
    "binarize": BINARIZE,
    "lr_schedule": SCHEDULES,
}
_AT_LEAST: dict[str, int] = {
    "device": 0, "hidden": 1, "decoder_hidden": 1, "latent": 1, "conv": 1, "importance": 1, "epochs": 1,
    "batch_size": 1, "accumulate": 1, "patience": 1, "seed": 0, "checkpoint_every": 1,
}  # fmt: skip
_DEFAULTS: dict[str, Any] = {
    "hidden": (400,), "latent": 20, "likelihood": "bernoulli", "epochs": 10, "batch_size": 128,
}  # fmt: skip
_DEFAULTS_OF: dict[str, dict[str, Any]] = {
    "digits": {"hidden": (128,), "latent": 8, "epochs": 300, "batch_size": 64},
    "mnist": {},
    "fashion-mnist": {},
    "binarized-mnist": {},
    "two-gaussians": {  # a learned sigma explains so few points alone, and z is left with nothing to say
        "hidden": (64, 64),
        "latent": 2,
        "likelihood": "gaussian:sigma=fixed:0.5",
        "epochs": 500,
        "batch_size": 50,
    },
}


def replaced(config: Config, values: dict[str, Any]) -> Config:
    """The configuration with other values."""
    return replace(config, **values)


def check_data_name(data: str, names: tuple[str, ...]) -> None:
    """Raises ValueError if `data` is neither a known name nor an existing .npy or .npz file."""
    path = Path(data)
    if is_path(data):
        wrong = problem(path)
        if wrong:
            images = f"; {how_to_convert(path)}" if wrong == FOLDER else ""
            raise ValueError(f"--data {data}: {wrong}{images}")
        return
    check_two_gaussians(data)
    if data in names or data.startswith("two-gaussians:"):
        return
    if data and exists(path):
        raise ValueError(f"--data {data}: is no .npy or .npz file, and no other is read; {how_to_convert(path)}")
    missing = f"--data {data}: there is no such file; " if path.suffix else ""
    raise ValueError(f"{missing}--data must be {', '.join(names)}, or the path of a .npy or .npz file, not {data!r}")


def check_two_gaussians(data: str) -> None:
    """Raises ValueError if `data` is "two-gaussians:N" without a number of points that can be drawn."""
    name, colon, points = data.partition(":")
    if name == "two-gaussians" and colon and not (points.isdecimal() and MIN_ROWS <= int(points) <= LARGEST):
        raise ValueError(f"--data two-gaussians:N needs a number of points N, at least {MIN_ROWS}, not {points!r}")


def _show(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


OPTIONS = tuple(field.name for field in fields(Config))

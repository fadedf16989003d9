"""Everything a run was asked to do: defaults, checks, and the form it is stored in."""

from dataclasses import dataclass, fields
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
from tinyvae.training.data.dataset import MIN_ROWS, check_share
from tinyvae.training.data.regular import FOLDER, exists, problem
from tinyvae.training.options import BATCH_SIZE, LARGEST, Training, default_epochs, explained, option, shown

DATA = ("digits", "mnist", "fashion-mnist", "binarized-mnist", "two-gaussians")
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
ARRAYS = "arrays"  # the name of data that was handed over in Python, and of rows held out of it
AUTO, NO_VALID = "auto", "none"  # of --valid


@dataclass(frozen=True)
class Config(Training):
    """The options of `tinyvae train`, by their names there. None: not asked for, so the default of the data applies."""

    objective: str = option(  # pyright: ignore[reportIncompatibleVariableOverride] - here it is text
        "elbo", f"what is minimized: {', '.join(objectives.names())}, with options as in iwae:draws=5; or "
        "./mine.py:Mine, a class of your own", metavar="NAME[:OPTIONS]",
    )  # fmt: skip
    data: str = option(
        "digits", f"{'|'.join(DATA)}|PATH: a .npy or .npz file of rows or images, a table (.csv, .tsv, "
        ".parquet), text of numbers (.txt, .amat), or a folder of PNG or JPEG. two-gaussians:N has N points (100)",
        metavar="NAME|PATH",
    )  # fmt: skip
    data_dir: str | None = option(
        None, "where published data sets lie or are downloaded to; a folder mnist in it counts for mnist, and so on",
        metavar="DIR", absent="your cache directory",
    )  # fmt: skip
    valid: str = option(
        "auto", "rows held out to tell the best epoch by: a share of the training rows, the PATH of a file of others, "
        "none, or auto: those that the data itself sets aside, else a tenth. The test rows are for tinyvae evaluate "
        "alone", metavar="auto|none|SHARE|PATH",
    )  # fmt: skip
    label: str | None = option(
        None, "of a table: the column that names each row's class", metavar="COLUMN", absent="none"
    )  # fmt: skip
    kinds: str | None = option(
        None, "of a table: kinds of columns that are not as they look, as in age=real,zip=category; real, count, "
        "binary, category, date, constant or identifier", metavar="COLUMN=KIND,...", absent="as they look",
    )  # fmt: skip
    leave_out: str | None = option(
        None, "train and test without the rows of this label (see tinyvae anomaly)", metavar="LABEL", absent=" "
    )
    hidden: tuple[int, ...] | None = option(None, "widths of the encoder's hidden layers", metavar="WIDTH", least=1)
    decoder_hidden: tuple[int, ...] | None = option(
        None, "widths of the decoder's hidden layers", metavar="WIDTH", least=1, absent="the encoder's, reversed"
    )
    latent: int | None = option(None, "dimensions of z", metavar="N", least=1)
    activation: str = option("relu", ", ".join(ACTIVATION_NAMES), metavar="NAME", choices=ACTIVATION_NAMES)
    tied: bool = option(False, "the decoder's weights are the encoder's, transposed")
    conv: tuple[int, ...] = option(
        (), "channels of convolutions, 4 x 4 with stride 2, before the encoder's dense layers; the decoder mirrors "
        "them by transposed convolutions; for images", metavar="CHANNELS", least=1,
        absent="none; with it, --hidden is none",
    )  # fmt: skip
    batch_norm: bool = option(False, "batch normalization in every hidden layer")
    conditional: bool = option(False, "the labels go into encoder and decoder: p(x|z, y), any label on demand")
    likelihood: str | None = option(
        None, f"p(x|z): {', '.join(likelihoods.names())}, with options as in gaussian:sigma=predicted; bernoulli and "
        "continuous-bernoulli are for x in [0, 1], discretized-logistic for pixels of 8 bits over 255, gaussian and "
        "laplace for real x, poisson and negative-binomial for counts, categorical:groups=3+4 for one-hot columns, "
        "mixed:columns='gaussian*2+bernoulli*1+categorical*4' for columns of all kinds, from left to right; or "
        "./mine.py:Mine, a class of your own", metavar="NAME[:OPTIONS]",
    )  # fmt: skip
    sigma: str | None = option(
        None, "short for that option of the Gaussian: fixed:VALUE, learned (one number), columns (one for each "
        "column), or predicted (one for each output)", metavar="HOW", absent="learned; two-gaussians: fixed:0.5",
    )  # fmt: skip
    beta: float | None = option(
        None, "short for that option of elbo and beta-tc: weight of the KL", metavar="B", absent="1"
    )  # fmt: skip
    beta_warmup: float | None = option(
        None, "short: let beta rise from 0 over so many epochs", metavar="EPOCHS", absent="0"
    )  # fmt: skip
    free_bits: float | None = option(
        None, "short: KL that each latent dimension has free of charge, in nats", metavar="NATS", absent="0"
    )
    importance: int | None = option(
        None, "short for the draws of --objective iwae, its K; a step costs about K times the decoder", metavar="K",
        least=1, absent="5",
    )  # fmt: skip
    backend: str = option(
        "auto", "numpy, cupy (an NVIDIA GPU), or auto: cupy where it works", choices=BACKENDS
    )  # fmt: skip
    kernels: str | None = option(
        None, "fused: the fastest that is installed of numba, numpy (and cuda, on a GPU), which can be asked for by "
        "name too; or reference: the readable formulas", choices=KERNELS, absent="fused",
    )  # fmt: skip
    dtype: str = option("float32", "float32 or float64", choices=DTYPES)
    device: int = option(0, "which GPU", metavar="N", least=0)

    def named(self, name: str) -> str:
        """As it is typed."""
        return f"--{name.replace('_', '-')}"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_valid(self.valid)
        kinds_of(self.kinds)
        if self.valid == ARRAYS and self.data != ARRAYS:
            raise ValueError("--valid arrays is for data that is handed over in Python")
        if self.patience is not None and self.valid == NO_VALID:
            raise ValueError("--patience goes by rows that are held out: it does not go with --valid none")
        if self.likelihood is not None:
            self.likelihood_part()
        if self.tf32:
            self._check_tf32()
        if self.batch_norm and self.batch_size == 1:
            raise ValueError("--batch-norm needs the variance of a batch: make --batch-size larger than 1")
        if self.conditional and self.leave_out is not None:
            raise ValueError("--conditional does not go with --leave-out: a label never seen is none to ask for")

    def likelihood_or_usual(self) -> Likelihood:
        """The likelihood, or the one that is usual for the data, where none is asked for."""
        name = self.data.partition(":")[0]
        usual = {**_DEFAULTS, **_DEFAULTS_OF.get(name, {})}["likelihood"]
        return self.likelihood_part() if self.likelihood is not None else likelihood_named(usual)

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
        for short, (part, own) in SPELLINGS.items():
            value = getattr(self, short)
            if part != kind or value is None:
                continue
            flag, has = f"--{short.replace('_', '-')}", parts.options_of(_BY_NAME[kind](name))
            if own not in has:
                folder, base = _FOLDERS[kind]
                others = " or ".join(parts.having(folder, base, own))
                raise ValueError(
                    f"{flag} is no option of {name}, but of --{kind} {others}: ask for that, or leave it out"
                )
            if f"{own}=" in text.replace("-", "_"):
                raise ValueError(f"{flag} and --{kind} {text} both say {own}: leave one away")
            text += f"{',' if ':' in text else ':'}{own}={value}"
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

    def resolved(self, rows: int, of_table: str | None = None) -> "Config":
        """With the defaults of the data filled in, for a training set of `rows` rows; of_table: the likelihood that
        suits its columns."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        name = self.data.partition(":")[0]
        defaults = {**_DEFAULTS, **_DEFAULTS_OF.get(name, {})}
        if name not in _DEFAULTS_OF:  # a user's own rows
            defaults["epochs"] = default_epochs(rows, self.batch_size or BATCH_SIZE)
        if self.conv:
            defaults["hidden"] = ()  # convolutions are the hidden layers
        usual = defaults.pop("likelihood")
        usual = usual if of_table is None else of_table
        for name, default in defaults.items():
            if values[name] is None:
                values[name] = default
        asked = values["likelihood"] or usual.partition(":")[0]
        if asked == usual.partition(":")[0] and not _says(self, usual):
            asked = usual  # with the options that suit the data
        spelled = self.changed(likelihood=asked)
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
        if self.lr is None and self.data != ARRAYS:  # where it is a function, which has no text
            raise ValueError("config has no lr")
        if self.backend == "auto" or self.kernels == "fused":
            raise ValueError(f"config does not say what it ran on: {self.backend}, {self.kernels}")
        check_two_gaussians(self.data)

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
                found.append(f"{self.named(name)} is {shown(here)} in the run, not {shown(value)}")
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


_DEFAULTS: dict[str, Any] = {
    "hidden": (400,), "latent": 20, "likelihood": "bernoulli", "epochs": 10, "batch_size": BATCH_SIZE,
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


def help_of(name: str) -> str:
    """What `tinyvae train --help` says of an option, with its defaults for each data set."""
    f = next(f for f in fields(Config) if f.name == name)
    if name not in _DEFAULTS:
        return explained(f).replace(" (default:  )", "")
    others = [f"{data}: {shown(own[name])}" for data, own in _DEFAULTS_OF.items() if name in own]
    if name == "epochs":
        others.append(f"a PATH: {explained(f).partition('default: ')[2].removesuffix(')')}")
    return explained(f, "; ".join([shown(_DEFAULTS[name]), *others]))


def kinds_of(text: str | None) -> dict[str, str]:
    """Column -> kind. Raises ValueError for text that is no such list."""
    pairs = [item.rpartition("=") for item in (text or "").split(",") if item]
    wrong = [name + equals + kind for name, equals, kind in pairs if not (name and equals and kind)]
    if wrong:
        raise ValueError(f"--kinds must be a list such as age=real,zip=category, not {wrong[0]!r}")
    return {name: kind for name, _, kind in pairs}


def check_valid(valid: str) -> None:
    """Raises ValueError unless it is a share, "none", or the name of a file."""
    try:
        share = float(valid)
    except ValueError:
        if valid in (AUTO, NO_VALID, ARRAYS) or is_path(valid):
            return
        raise ValueError(
            f"--valid must be auto, none, a share of the rows such as 0.1, or the path of a file, not {valid!r}"
        ) from None
    check_share("--valid", share)


def check_data_name(data: str) -> None:
    """Raises ValueError if `data` is neither a known name nor a file or folder that can be read."""
    path = Path(data)
    if is_path(data):
        wrong = problem(path)
        if wrong:
            raise ValueError(f"--data {data}: {wrong}")
        return
    check_two_gaussians(data)
    if data in DATA or data.startswith("two-gaussians:") or (data and problem(path) == FOLDER):
        return
    if data and exists(path):
        raise ValueError(f"--data {data}: is in a format that is not read; {how_to_convert(path)}")
    missing = f"--data {data}: there is no such file; " if path.suffix else ""
    raise ValueError(f"{missing}--data must be {', '.join(DATA)}, or the path of a file or folder, not {data!r}")


def check_two_gaussians(data: str) -> None:
    """Raises ValueError if `data` is "two-gaussians:N" without a number of points that can be drawn."""
    name, colon, points = data.partition(":")
    if name == "two-gaussians" and colon and not (points.isdecimal() and MIN_ROWS <= int(points) <= LARGEST):
        raise ValueError(f"--data two-gaussians:N needs a number of points N, at least {MIN_ROWS}, not {points!r}")


OPTIONS = tuple(field.name for field in fields(Config))

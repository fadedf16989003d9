"""A VAE as a scikit-learn transformer: for pipelines, grid searches and joblib. Needs scikit-learn 1.6 or newer.

    python -m pip install 'tinyvae[sklearn]'

This file checks, scales and converts; the model is `tinyvae.VAE` and the loop that trains it is `tinyvae train`'s.
"""

import math
import warnings
from numbers import Integral, Real
from typing import Any

import numpy as np

from tinyvae import blas
from tinyvae.backend import Array, to_host
from tinyvae.errors import BackendError, NonFiniteError
from tinyvae.model.estimates import log_likelihood
from tinyvae.model.vae import CHUNK, VAE
from tinyvae.objectives.elbo import ELBO
from tinyvae.training import streams
from tinyvae.training.data import Dataset
from tinyvae.training.engine import REMEDY as REMEDY_OF_COMMANDS
from tinyvae.training.engine import Engine, RunState
from tinyvae.training.metrics import Row
from tinyvae.training.options import Training, default_epochs

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_array, check_is_fitted, validate_data  # validate_data: new in 1.6
except ImportError as error:
    raise ImportError(
        f"tinyvae.sklearn needs scikit-learn 1.6 or newer ({error}): python -m pip install 'tinyvae[sklearn]'"
    ) from error

FLOATS: Any = (np.float64, np.float32)  # what X is taken as; anything else becomes the first
REMEDY = "try a smaller learning_rate, or for a Gaussian sigma='fixed:VALUE' or standardize=True"


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Trains a VAE on the rows of X; transforms a row to mu, the mean of q(z|x).

    latent_dim          dimensions of z: the columns that `transform` gives
    hidden              widths of the encoder's hidden layers; the decoder mirrors them
    activation          relu, tanh, sigmoid, softplus, elu or leaky-relu, after every hidden layer
    likelihood          "gaussian" (x real) or "bernoulli" (x in [0, 1])
    sigma               of the Gaussian: "learned" (one number), "columns" (one for each), "predicted" (one for each
                        number of x), "fixed:VALUE"; None: learned
    standardize         Gaussian only: train on (x - mean_) / scale_, as StandardScaler makes it. Sigma then counts
                        standard deviations of each column; what goes in and comes out keeps the units of X
    beta                weight of the KL: the loss is nll + beta * kl
    epochs              passes of `fit` over X (default: as many as make about 5,000 steps, from 10 to 500)
    batch_size          rows in a step
    learning_rate       of Adam
    importance_samples  draws of z for each row in `score_samples`
    backend, kernels    as in `tinyvae.VAE`: "numpy", "cupy" or "auto"; None: the fastest kernels that are installed
    random_state        None, a number or a RandomState: with the same number, `fit` gives the same weights, bit for bit
    verbose             print a line after every epoch, and before the first of a fit what would make it faster

    The model computes in the dtype of the X that it first sees: float32, or float64 for everything else.

    model_              the `tinyvae.VAE`. It sees standardized rows
    mean_, scale_       (features,): 0 and 1 where nothing is standardized
    loss_curve_         the training loss of every epoch, in nats for each row, with nll in the units of X
    n_features_in_      the columns of X; feature_names_in_: their names, where X has names

    Threads may share a fitted transformer, as they may share `model_`; a copy shares nothing with it.

    >>> import numpy as np
    >>> from tinyvae.sklearn import VAETransformer
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200, 1)) @ [[3.0, -2.0, 1.0]] + 0.1 * rng.standard_normal((200, 3))
    >>> vae = VAETransformer(latent_dim=1, hidden=(16,), epochs=200, learning_rate=0.01, random_state=0).fit(X)
    >>> Z = vae.transform(X)
    >>> Z.shape
    (200, 1)
    >>> bool(np.mean((X - vae.inverse_transform(Z)) ** 2) < 0.05 * X.var(axis=0).mean())
    True
    >>> vae.sample(5, random_state=1).shape
    (5, 3)
    """

    def __init__(
        self,
        latent_dim: int = 2,
        hidden: tuple[int, ...] = (64,),
        *,
        activation: str = "relu",
        likelihood: str = "gaussian",
        sigma: str | None = None,
        standardize: bool = True,
        beta: float = 1.0,
        epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        importance_samples: int = 100,
        backend: str = "numpy",
        kernels: str | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.activation = activation
        self.likelihood = likelihood
        self.sigma = sigma
        self.standardize = standardize
        self.beta = beta
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.importance_samples = importance_samples
        self.backend = backend
        self.kernels = kernels
        self.random_state = random_state
        self.verbose = verbose

    # --------------------------------------------------------------------------------------------------------- training

    def fit(self, X: Any, y: Any = None) -> "VAETransformer":
        """Train a new model for `epochs` epochs.  X (rows, features); y is ignored. -> self

        Raises ValueError for impossible parameters or data, BackendError if the backend cannot be used, NonFiniteError
        if training diverges: it is then not fitted.
        """
        self._check_parameters()
        X = self._validated(X, ensure_min_samples=2)
        self._begin(X)
        missing = blas.hint() if self.verbose and self.model_.backend.name == "numpy" else None
        if missing is not None:
            print(f"[VAETransformer] {missing}")
        return self._train(X, self.epochs or default_epochs(X.shape[0], self.batch_size))

    def partial_fit(self, X: Any, y: Any = None) -> "VAETransformer":
        """One epoch more, on these rows; y is ignored. Adam goes on where it was, after `fit` and after unpickling too.

        The first call makes the model: its parameters, dtype, mean_ and scale_ stay as that X makes them (let it have
        many rows). Raises as `fit`.
        """
        self._check_parameters()
        first = not hasattr(self, "model_")
        X = self._validated(X, reset=first)
        if first:
            self._begin(X)
        return self._train(X, 1)

    def _check_parameters(self) -> None:
        """Those that the model does not check itself. Raises ValueError."""
        _check_number("beta", self.beta, Real, 0)
        _check_number("batch_size", self.batch_size, Integral, 1)
        _check_number("importance_samples", self.importance_samples, Integral, 1)
        _check_number("learning_rate", self.learning_rate, Real, math.ulp(0.0))
        if self.epochs is not None:
            _check_number("epochs", self.epochs, Integral, 1)

    def _begin(self, X: np.ndarray) -> None:
        """A new model and a new scaling for X (rows, features)."""
        features = X.shape[1]
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        model = self._build(
            {
                "data_dim": features, "hidden": self.hidden, "latent_dim": self.latent_dim,
                "activation": self.activation, "likelihood": self.likelihood, "sigma": self.sigma,
            },
            X.dtype.name, seed,
        )  # fmt: skip
        mean, scale = np.zeros(features), np.ones(features)  # (features,) each
        if self.standardize and model.likelihood.scale_matters:
            with np.errstate(over="ignore", invalid="ignore"):  # looked at below
                scaler = StandardScaler().fit(X)
            mean, scale = np.asarray(scaler.mean_, np.float64), np.asarray(scaler.scale_, np.float64)
            if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
                raise ValueError("the variance of X overflows: divide X by a number that makes it smaller")
        model.architecture.check_values(X)  # before anything here is changed
        self.model_, self.mean_, self.scale_, self.loss_curve_ = model, mean, scale, []
        self._seed, self._epochs_done, self._updates = seed, 0, 0
        self._moments: tuple[Array, Array] | None = None  # Adam's m and v, (parameters,) each

    def _train(self, X: np.ndarray, epochs: int) -> "VAETransformer":
        """So many epochs more, on X (rows, features): `tinyvae train`'s loop, resumed where the last call left it."""
        x = self._standardized(X)
        until = self._epochs_done + epochs
        options = Training(
            epochs=until, batch_size=int(self.batch_size), lr=float(self.learning_rate), seed=self._seed,
            objective=ELBO(float(self.beta)),
        )  # fmt: skip
        listener = _Listener(self._log_scale(), bool(self.verbose))
        trainer = Engine(self.model_, Dataset("X", x), options, listener)
        trainer.state = RunState(epoch=self._epochs_done, updates=self._updates)
        if self._moments is not None:
            trainer.m[...], trainer.v[...] = (self.model_.backend.asarray(a) for a in self._moments)
        try:
            trainer.run()
            trainer.check_finite()
        except NonFiniteError as error:
            del self.model_, self._moments  # nothing is to be had from it, and no partial_fit mends it
            raise NonFiniteError(str(error).removesuffix(REMEDY_OF_COMMANDS) + REMEDY) from None
        self._epochs_done, self._updates = trainer.state.epoch, trainer.state.updates
        self._moments = trainer.m, trainer.v
        self.loss_curve_ += listener.losses
        return self

    def _build(self, architecture: dict[str, Any], dtype: str, seed: int = 0) -> VAE:
        return VAE(**architecture, dtype=dtype, backend=self.backend, kernels=self.kernels, seed=seed)

    # ---------------------------------------------------------------------------------------------- what it is good for

    def transform(self, X: Any) -> np.ndarray:
        """mu, the mean of q(z|x), of every row.  X (rows, features) -> (rows, latent_dim), in the model's dtype."""
        x = self._rows(X)
        return to_host(self.model_.encode(x)[0]).copy()  # a copy: mu is one half of a larger array

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """The mean of p(x|z), in the units of X.  Z (rows, latent_dim) -> (rows, features), in the model's dtype."""
        check_is_fitted(self)
        z = check_array(Z, dtype=FLOATS, input_name="Z")
        return self._in_units_of_X(self.model_.decode(z))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """New rows: draws of z from N(0, I), then of x from p(x|z), its noise included, so that `score` describes them.

        Without that noise: inverse_transform of normal numbers.
        -> (n_samples, features), in the units of X. The same number as random_state gives the same rows.
        """
        check_is_fitted(self)
        _check_number("n_samples", n_samples, Integral, 1)
        rng = np.random.default_rng(check_random_state(random_state).randint(2**31 - 1))
        return self._in_units_of_X(self.model_.sample(int(n_samples), rng, mean=False))

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x) of every row, in nats, estimated by importance sampling from q(z|x): see `tinyvae.log_likelihood`.

        It is the density in the units of X: log p(x) = log p((x - mean_) / scale_) - sum_j log scale_j.
        Every row meets the same draws of eps, and so does every call: the number of a row depends on nothing but the
        row, and a comparison of rows or of calls is not blurred by other draws. The price: the estimates' errors are
        alike too, and `score` does not average them out over the rows; raise importance_samples instead.
        For a Bernoulli on values between 0 and 1 it is minus a cross-entropy, and no likelihood.
        It lies below log p(x) on average, and far below it where q(z|x) misses the posterior. Which rows can be trusted
        `tinyvae.log_likelihood(estimator.model_, ...)` says, and `tinyvae.repair_log_likelihood` estimates the others.

        X (rows, features) -> (rows,)
        """
        x = self._rows(X)
        log_p = np.empty(x.shape[0])  # (rows,)
        for start in range(0, x.shape[0], CHUNK):  # as many rows as it takes at a time
            noise = _SameForEveryRow(np.random.default_rng([self._seed, streams.IMPORTANCE]).bit_generator)
            rows = slice(start, start + CHUNK)
            log_p[rows] = log_likelihood(self.model_, x[rows], int(self.importance_samples), noise).log_p
        return log_p - self._log_scale()

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`: higher is better, as a grid search wants it. y is ignored."""
        return float(self.score_samples(X).mean())

    # --------------------------------------------------------------------------------------------------------- plumbing

    def _rows(self, X: Any) -> np.ndarray:
        """X checked against what was fitted, and standardized."""
        check_is_fitted(self)
        return self._standardized(self._validated(X, reset=False))

    def _validated(self, X: Any, **how: Any) -> Any:
        """X as an array of FLOATS (rows, features); notes the names and number of its columns, or compares them."""
        return validate_data(self, X, dtype=FLOATS, **how)

    def _standardized(self, X: np.ndarray) -> np.ndarray:
        """X (rows, features) as the model sees it, in its dtype. Raises ValueError for what the likelihood forbids."""
        with np.errstate(over="ignore"):  # looked at below
            x = ((X - self.mean_) / self.scale_).astype(self.model_.dtype)  # (rows, features)
        self.model_.architecture.check_values(x)
        return x

    def _in_units_of_X(self, x: Array) -> np.ndarray:  # noqa: N802 - the name in scikit-learn
        """The inverse of `_standardized`."""
        return (to_host(x) * self.scale_ + self.mean_).astype(self.model_.dtype)

    def _log_scale(self) -> float:
        """log |det dx/dx'|, x' the standardized row: what a log density loses on the way back to the units of X."""
        return float(np.log(self.scale_).sum())

    @property
    def _n_features_out(self) -> int:  # from which the mixin names the columns
        return self.model_.architecture.latent_dim

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and joblib: parameters and Adam's moments, on the host; no buffers, kernels or data."""
        attributes: Any = super().__getstate__()
        state = {**attributes}
        if "model_" in state:
            model = self.model_
            state["model_"] = {
                "architecture": model.architecture,
                "dtype": model.dtype.name,
                "params": to_host(model.params.flat).copy(),  # (parameters,)
            }
            if self._moments is not None:
                state["_moments"] = tuple(to_host(a).copy() for a in self._moments)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The inverse. Where this machine lacks the backend or kernels that were asked for: NumPy, and a warning."""
        super().__setstate__({name: value for name, value in state.items() if name != "model_"})
        if "model_" not in state:
            return
        stored = state["model_"]
        try:
            model = VAE.of(stored["architecture"], stored["dtype"], self.backend, self.kernels)
        except (BackendError, ValueError) as error:
            warnings.warn(f"loaded with NumPy instead: {error}", UserWarning, stacklevel=2)
            model = VAE.of(stored["architecture"], stored["dtype"])
        model.params.flat[...] = model.backend.asarray(stored["params"])
        self.model_ = model


class _SameForEveryRow(np.random.Generator):
    """Draws that are the same for every row."""

    def standard_normal(self, shape: Any) -> np.ndarray:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(rows, latent), all rows alike."""
        return np.broadcast_to(super().standard_normal(shape[1:]), shape)


class _Listener:
    """Notes the loss of every epoch, in the units of X, and prints it where that is asked for."""

    def __init__(self, log_scale: float, verbose: bool) -> None:
        self.log_scale, self.verbose = log_scale, verbose
        self.losses: list[float] = []

    def batch(self, state: RunState, loss: float) -> None:
        """Nothing."""

    def epoch(self, row: Row) -> None:
        """An epoch is done."""
        self.losses.append(row.train_loss + self.log_scale)
        if self.verbose:
            print(f"[VAETransformer] epoch {row.epoch}: loss {self.losses[-1]:.4f}, kl {row.train_kl:.4f}")


def _check_number(name: str, value: Any, kind: type, smallest: float) -> None:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, kind) or not smallest <= value < math.inf:  # pyright: ignore
        wanted = "a whole number" if kind is Integral else "a finite number"
        bound = f"at least {smallest}" if smallest in (0, 1) else "above 0"
        raise ValueError(f"{name} must be {wanted}, {bound}, not {value!r}")

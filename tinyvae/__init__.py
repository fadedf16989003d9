"""tinyvae: a variational autoencoder with every layer, gradient and kernel written by hand.

    import tinyvae
    model = tinyvae.VAE(data_dim=784, hidden=(400,), latent_dim=20, seed=0)
    losses = model.loss_and_grad(x, eps)      # nats, means over the batch; gradients in model.grads

Folders are floors, and imports only go down: commands, sklearn, recipes, exercises, uses, training, checking, export,
model, objectives, likelihoods, layers, kernels, ops, parts, loop, formula, backend, blas, errors.

A name is imported when it is first used. So a command can set NumPy's BLAS up before NumPy is loaded (`tinyvae.blas`).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what there is; the table below says the same to Python
    from tinyvae import layers as layers
    from tinyvae import likelihoods as likelihoods
    from tinyvae import objectives as objectives
    from tinyvae.checking.finite_differences import gradcheck as gradcheck
    from tinyvae.errors import BackendError as BackendError
    from tinyvae.errors import CheckpointError as CheckpointError
    from tinyvae.errors import DataError as DataError
    from tinyvae.errors import ExportError as ExportError
    from tinyvae.errors import NonFiniteError as NonFiniteError
    from tinyvae.errors import TinyvaeError as TinyvaeError
    from tinyvae.errors import UsageError as UsageError
    from tinyvae.model.estimates import active_units as active_units
    from tinyvae.model.estimates import log_likelihood as log_likelihood
    from tinyvae.model.estimates import repair_log_likelihood as repair_log_likelihood
    from tinyvae.model.steering import every_label as every_label
    from tinyvae.model.steering import interpolate as interpolate
    from tinyvae.model.vae import VAE as VAE
    from tinyvae.model.vae import Losses as Losses
    from tinyvae.training.adam import Adam as Adam
    from tinyvae.training.checkpoint import load as load
    from tinyvae.training.checkpoint import save as save
    from tinyvae.training.data import load as load_data  # noqa: F401 - for users
    from tinyvae.training.trainer import Trainer as Trainer
    from tinyvae.training.trainer import fit as fit
    from tinyvae.uses.anomalies import anomaly_scores as anomaly_scores
    from tinyvae.uses.features import embed as embed
    from tinyvae.uses.restoring import denoise as denoise
    from tinyvae.uses.restoring import fill_in as fill_in

__version__ = "0.1.0"

_ERRORS = (
    "BackendError", "CheckpointError", "DataError", "ExportError", "NonFiniteError", "TinyvaeError", "UsageError",
)  # fmt: skip
_HOME = {  # name -> (module, name there; None: the module itself)
    "gradcheck": ("tinyvae.checking.finite_differences", "gradcheck"),
    **{name: ("tinyvae.errors", name) for name in _ERRORS},
    "active_units": ("tinyvae.model.estimates", "active_units"),
    "log_likelihood": ("tinyvae.model.estimates", "log_likelihood"),
    "repair_log_likelihood": ("tinyvae.model.estimates", "repair_log_likelihood"),
    "every_label": ("tinyvae.model.steering", "every_label"),
    "interpolate": ("tinyvae.model.steering", "interpolate"),
    "layers": ("tinyvae.layers", None),
    "likelihoods": ("tinyvae.likelihoods", None),
    "objectives": ("tinyvae.objectives", None),
    "VAE": ("tinyvae.model.vae", "VAE"),
    "Losses": ("tinyvae.model.vae", "Losses"),
    "Adam": ("tinyvae.training.adam", "Adam"),
    "load": ("tinyvae.training.checkpoint", "load"),
    "save": ("tinyvae.training.checkpoint", "save"),
    "load_data": ("tinyvae.training.data", "load"),
    "Trainer": ("tinyvae.training.trainer", "Trainer"),
    "fit": ("tinyvae.training.trainer", "fit"),
    "anomaly_scores": ("tinyvae.uses.anomalies", "anomaly_scores"),
    "embed": ("tinyvae.uses.features", "embed"),
    "denoise": ("tinyvae.uses.restoring", "denoise"),
    "fill_in": ("tinyvae.uses.restoring", "fill_in"),
}
__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll] - the names above


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tinyvae' has no attribute {name!r}")
    module, original = _HOME[name]
    found = importlib.import_module(module)
    value = globals()[name] = found if original is None else getattr(found, original)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

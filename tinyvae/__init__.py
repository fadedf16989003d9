"""tinyvae: a variational autoencoder with every layer, gradient and kernel written by hand.

    import tinyvae
    model = tinyvae.VAE(data_dim=784, hidden=(400,), latent_dim=20, seed=0)
    losses = model.loss_and_grad(x, eps)      # nats, means over the batch; gradients in model.grads

Folders are floors, and imports only go down: commands, training, checking, model, kernels, ops, backend.
"""

from tinyvae.checking.finite_differences import gradcheck as gradcheck
from tinyvae.errors import BackendError as BackendError
from tinyvae.errors import CheckpointError as CheckpointError
from tinyvae.errors import DataError as DataError
from tinyvae.errors import NonFiniteError as NonFiniteError
from tinyvae.errors import TinyvaeError as TinyvaeError
from tinyvae.errors import UsageError as UsageError
from tinyvae.model.estimates import active_units as active_units
from tinyvae.model.estimates import log_likelihood as log_likelihood
from tinyvae.model.vae import VAE as VAE
from tinyvae.model.vae import Losses as Losses
from tinyvae.training.checkpoint import load as load
from tinyvae.training.checkpoint import save as save
from tinyvae.training.data import load as load_data  # noqa: F401 - for users

__version__ = "0.1.0"

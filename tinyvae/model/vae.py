"""The variational autoencoder, forward and backward as straight-line code in mirror order.

    x -> encoder -> (mu, logvar) -> z = mu + sigma eps -> decoder -> logits or mean -> nll
                         |
                         +-> kl            loss = nll + beta * kl      (sum over dimensions, mean over the batch, nats)

Kingma & Welling 2014, "Auto-Encoding Variational Bayes", equation 10; beta: Higgins et al. 2017.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyvae import kernels as kernel_files
from tinyvae.backend import Array, as_generator, backend_or_numpy, get_backend, to_host
from tinyvae.model import init
from tinyvae.model.architecture import Architecture, checked_count
from tinyvae.model.build import Builder
from tinyvae.model.layers import BatchNorm, LabelledDense, Layer, TiedDense
from tinyvae.model.params import FlatParams
from tinyvae.model.threads import new_lock
from tinyvae.ops import activations, gaussian

CHUNK = 1024  # rows that encode, decode and the evaluation work on at a time
_UNMADE: Any = None  # of buffers, and of what a batch leaves in them, before the first batch


class Losses(NamedTuple):
    """Means over a batch, in nats. Without free bits, loss = nll + beta * kl."""

    loss: float
    nll: float
    kl: float


class VAE:
    """A VAE: `data_dim -> (conv ->) hidden -> latent_dim -> reversed(hidden) (-> reversed(conv)) -> data_dim`.

    data_dim        width of a row of data
    hidden          widths of the encoder's hidden layers
    latent_dim      dimensions of z
    decoder_hidden  widths of the decoder's hidden layers (default: hidden, reversed)
    activation      relu, tanh, sigmoid, softplus, elu or leaky-relu, after every hidden layer
    likelihood      "bernoulli" (x in [0, 1]) or "gaussian" (x real)
    sigma           of the Gaussian: "fixed:0.1" (that number), "learned" (one number), "predicted" (one per output)
    tied            the decoder's weights are the encoder's, transposed
    classes         more than 0: a conditional VAE, p(x|z, y) and q(z|x, y), with labels y in 0..classes-1 (Sohn et al.
                    2015): each method then needs y (rows,); a label is a one-hot row beside the input of each half's
                    first dense layer
    conv            channels of convolutions (4 x 4, stride 2) before the dense layers; the decoder mirrors them by
                    transposed convolutions. They need image_shape = (height, width), one channel
    batch_norm      batch normalization in every hidden layer, before its activation
    backend         "numpy", "cupy" or "auto";  device: the GPU's number (one in a process)
    kernels         "fused": the fastest that is installed of "numba" and "numpy", or "cuda" on a GPU; or "reference"
                    (default: fused where there are some for the backend and dtype)
    dtype           "float32" to train, "float64" to check
    seed            draws the initial weights

    `params` and `grads` map names ("encoder.0.weight", (in, out); "encoder.0.bias"; ...) to views on one flat buffer
    each. The encoder's last layer makes mu and logvar: one dense layer, 2 * latent_dim wide.

    Where a method takes `rng`, a whole number is the seed of a new NumPy generator.

    Threads may share a model: calls wait for each other at its `lock` (see `tinyvae.model.threads`), and what they
    return is their own. But `grads` holds the gradient of the last batch, whichever thread it was from: hold the lock
    from `loss_and_grad` until you have read them.

    copy.copy, copy.deepcopy and pickle make a model that shares nothing with this one: parameters and gradients bit for
    bit, and attributes that you have added. It comes back to the same backend and kernels; where a machine lacks them,
    to NumPy, with a warning.

    Raises ValueError for an impossible architecture, BackendError if the backend cannot be used.
    """

    def __init__(
        self,
        data_dim: int,
        hidden: Sequence[int] = (400,),
        latent_dim: int = 20,
        *,
        decoder_hidden: Sequence[int] | None = None,
        activation: str = "relu",
        likelihood: str = "bernoulli",
        sigma: str = "learned",
        tied: bool = False,
        classes: int = 0,
        conv: Sequence[int] = (),
        image_shape: Sequence[int] | None = None,
        batch_norm: bool = False,
        backend: str = "numpy",
        kernels: str | None = None,
        dtype: str = "float32",
        device: int = 0,
        seed: int = 0,
    ) -> None:
        self.architecture = Architecture.checked(
            data_dim, hidden, latent_dim, decoder_hidden, activation, likelihood, sigma, tied, classes, conv,
            image_shape, batch_norm,
        )  # fmt: skip
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', not {dtype!r}")
        self.backend = get_backend(backend, device)
        self.dtype = np.dtype(dtype)
        self.kernels_name, self.kernels = kernel_files.select(kernels, self.backend, dtype)
        shapes = self.architecture.shapes()
        self.params = FlatParams(shapes, self.backend, self.dtype)
        self.grads = FlatParams(shapes, self.backend, self.dtype)
        self.params.flat[...] = self.backend.asarray(init.initial_weights(self.architecture, seed), self.dtype)
        self.losses = self.backend.xp.zeros(3, dtype=self.dtype)  # loss, nll, kl of the last batch
        builder = Builder(self.kernels, self.architecture, self.params, self.grads, self.backend.xp)
        self.encoder, self.decoder = builder.encoder(), builder.decoder()
        if self.architecture.sigma == "learned":
            self.shared_logvar = self.params["likelihood.logvar"]  # (1,)
        elif self.architecture.sigma_value is not None:
            logvar = 2 * math.log(self.architecture.sigma_value)
            self.shared_logvar = self.backend.xp.full(1, logvar, dtype=self.dtype)  # (1,), fixed
        self.rows = self.decoder_rows = 0  # capacity of the buffers; they are made at the first batch
        self.work = self._z = self._kl = self._dhead = self._dkl = self._nll = self._doutput = _UNMADE
        self.head = self.z = self.kl = self.output = self.nll = _UNMADE  # of the last batch
        self.lock = new_lock(self)
        self._built = frozenset(vars(self))  # what a copy makes anew

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.architecture.as_arguments()}), {self.params.flat.size:,} parameters, "
            f"{self.dtype.name} on {self.backend.name} with {self.kernels_name} kernels"
        )

    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: plain values and arrays on the host, none of which is this model's own."""
        with self.lock:  # not in the middle of another thread's step
            return {
                "architecture": self.architecture.to_dict(),
                "dtype": self.dtype.name,
                "backend": self.backend.name,
                "device": self.backend.device,
                "kernels": self.kernels_name,
                "params": to_host(self.params.flat).copy(),  # (parameters,)
                "grads": to_host(self.grads.flat).copy(),  # (parameters,)
                "added": {k: v for k, v in vars(self).items() if k not in self._built and k != "_built"},
            }

    def __setstate__(self, state: dict[str, Any]) -> None:
        backend = backend_or_numpy(state["backend"], state["device"])
        kernels, dtype = state["kernels"], state["dtype"]
        problem = kernel_files.problem(kernels, backend, dtype)
        if problem:
            if backend.name == state["backend"]:  # else it has been said
                warnings.warn(f"loaded with other kernels than {kernels}: {problem}", UserWarning, stacklevel=2)
            kernels = None
        VAE.__init__(
            self, **state["architecture"], dtype=dtype, backend=backend.name, device=backend.device, kernels=kernels
        )
        for name in ("params", "grads"):
            getattr(self, name).flat[...] = backend.asarray(state[name])
        vars(self).update(state["added"])

    # ------------------------------------------------------------------------------------------------ the derivation

    def forward(self, x: Array, eps: Array, y: Array | None = None, training: bool = False) -> Array:
        """x (batch, data), eps (batch, latent), y (batch,) -> the decoder's output; fills `head`, `z` and `kl`.

        Arrays of this model's backend and dtype. What it returns and fills are views on buffers, so where other threads
        may use the model too, the caller holds `lock` from here until it has read them.
        `training` is for batch normalization: by the batch's own mean and variance, not the running averages.
        """
        self.reserve(x.shape[0])
        self.head = self.run(self.encoder, x, y, training)  # (batch, 2 latent): mu, logvar
        self.z = self._z[: x.shape[0]]  # (batch, latent)
        self.kl = self._kl[: x.shape[0]]  # (batch, latent)
        self.kernels.latent_forward(self.head, eps, z=self.z, kl=self.kl, work=self.work)
        self.output = self.run(self.decoder, self.z, y, training)  # (batch, data); 2 data with a predicted variance
        return self.output

    def run(self, layers: Sequence[Layer], x: Array, y: Array | None = None, training: bool = False) -> Array:
        """One half of the model: x (batch, in) through its layers; labels y (batch,) enter the first dense one."""
        for layer in layers:
            if isinstance(layer, LabelledDense):
                layer.onehot = self.onehot(y)  # (batch, classes)
            elif isinstance(layer, BatchNorm):
                layer.training = training
            x = layer.forward(x)  # (batch, width of the layer)
        return x

    def onehot(self, y: Array | None) -> Array:
        """Labels y (batch,) as rows with a single 1: (batch, classes)."""
        assert y is not None  # checked where it came in
        return (y[:, None] == self.backend.xp.arange(self.architecture.classes)).astype(self.dtype)

    def backward(self, doutput: Array, eps: Array, dkl: Array) -> None:
        """The mirror of `forward`: fills `grads`. doutput as the decoder's output (destroyed), dkl (latent,)."""
        dz = self.run_back(self.decoder, doutput)  # (batch, latent)
        dhead = self._dhead[: eps.shape[0]]  # (batch, 2 latent): from z and from the KL
        self.kernels.latent_backward(dz, self.head, eps, dkl, dhead=dhead, work=self.work)
        self.run_back(self.encoder, dhead)  # the first layer's dx is nobody's: None
        self.add_shared_gradients()

    def run_back(self, layers: Sequence[Layer], dh: Any) -> Any:
        """The mirror of `run`: dL/d its output -> dL/d its input."""
        for layer in reversed(layers):
            dh = layer.backward(dh)
        return dh

    def add_shared_gradients(self) -> None:
        """Add a tied decoder's gradients to the encoder's, once both have been written."""
        for layer in self.decoder:
            if isinstance(layer, TiedDense):
                layer.add_shared_gradient()

    def likelihood_loss(self, output: Array, x: Array, dnll: float, with_gradient: bool) -> Array | None:
        """-log p(x|z) of each row into `nll`; the gradient of its sum, times dnll, in the shape of `output`."""
        n, data_dim = x.shape
        self.nll = self._nll[:n]  # (batch,)
        doutput = self._doutput[:n] if with_gradient else None  # as output
        if self.architecture.likelihood == "bernoulli":
            self.kernels.bernoulli_loss(output, x, dnll, nll=self.nll, dlogits=doutput, work=self.work)
            return doutput
        if self.architecture.sigma == "predicted":
            mean, logvar = output[:, :data_dim], output[:, data_dim:]  # (batch, data) each
            dmean = None if doutput is None else doutput[:, :data_dim]  # (batch, data)
            dlogvar = None if doutput is None else doutput[:, data_dim:]  # (batch, data)
        else:
            mean, logvar, dmean = output, self.shared_logvar, doutput  # (batch, data), (1,), (batch, data)
            dlogvar = self.grads.get("likelihood.logvar") if with_gradient else None  # (1,); None where it is fixed
        self.kernels.gaussian_loss(mean, logvar, x, dnll, nll=self.nll, dmean=dmean, dlogvar=dlogvar, work=self.work)
        return doutput

    def forward_backward(
        self, x: Array, eps: Array, beta: float = 1.0, free_bits: float = 0.0, y: Array | None = None
    ) -> Array:
        """One step's arithmetic on arrays of this model's backend and dtype: fills `grads`, returns `losses` (3,).

        Nothing is copied to the host, nothing is checked: the trainer calls this, and holds `lock` until it has used
        both. See `loss_and_grad`.
        """
        with self.lock:
            output = self.forward(x, eps, y, training=True)
            doutput = self.likelihood_loss(output, x, dnll=1.0 / x.shape[0], with_gradient=True)
            self._sum_losses(beta, free_bits)
            dkl = self._dkl  # (latent,): d loss / d kl, the same in every row
            if free_bits > 0:
                dkl[...] = gaussian.free_bits_backward(beta, self.kl, free_bits)
            else:
                dkl.fill(beta / x.shape[0])
            self.backward(doutput, eps, dkl)
            return self.losses

    def _sum_losses(self, beta: float, free_bits: float) -> None:
        """loss, nll and kl of the batch, from `nll` (batch,) and `kl` (batch, latent), into `losses` (3,)."""
        n = self.nll.shape[0]
        nll = self.nll.sum() / n
        kl = self.kl.sum() / n
        charged = gaussian.free_bits_forward(self.kl, free_bits).sum() if free_bits > 0 else kl
        self.losses[0] = nll + beta * charged
        self.losses[1] = nll
        self.losses[2] = kl

    # --------------------------------------------------------------------------------------------------- for notebooks

    def loss_and_grad(self, x: Any, eps: Any, beta: float = 1.0, free_bits: float = 0.0, y: Any = None) -> Losses:
        """The loss of a batch and, in `grads`, its gradient with respect to every parameter.

        loss = nll + beta * kl, where with free_bits > 0 each latent dimension is charged max(free_bits, its mean KL).

        x (batch, data), eps (batch, latent): the standard normal noise; y (batch,): labels of a conditional model.
        -> Losses, in nats, means over the batch. It is a training step's arithmetic: batch normalization uses the
        batch's own mean and variance, and counts them into its running averages.
        Called by several threads, each gets the losses of its own batch, but `grads` holds the gradient of one of them.
        Raises ValueError for wrong shapes and for values that the likelihood does not allow.
        """
        x, eps, y = self.checked_batch(x, eps, y)
        with self.lock:
            return Losses(*to_host(self.forward_backward(x, eps, beta, free_bits, y)).tolist())

    def loss(
        self, x: Any, eps: Any, beta: float = 1.0, free_bits: float = 0.0, y: Any = None, training: bool = False
    ) -> Losses:
        """As `loss_and_grad`, without the gradient. With `training` it is the very function whose gradient that is:
        batch normalization (if there is any) then uses the batch's own mean and variance."""
        x, eps, y = self.checked_batch(x, eps, y)
        with self.lock:
            self.likelihood_loss(self.forward(x, eps, y, training), x, dnll=0.0, with_gradient=False)
            self._sum_losses(beta, free_bits)
            return Losses(*to_host(self.losses).tolist())

    def rows_loss(self, x: Any, eps: Any, y: Any = None) -> tuple[Array, Array]:
        """nll (batch,) and kl (batch, latent) of every row, in nats: minus the ELBO of a row is nll + its sum of kl."""
        x, eps, y = self.checked_batch(x, eps, y)
        with self.lock:
            self.likelihood_loss(self.forward(x, eps, y), x, dnll=0.0, with_gradient=False)
            return self.nll.copy(), self.kl.copy()

    def encode(self, x: Any, y: Any = None) -> tuple[Array, Array]:
        """mu and logvar of q(z|x), or of q(z|x, y) if the model is conditional.

        x (rows, data), labels y (rows,) -> mu, logvar (rows, latent), halves of a new array.
        """
        x = self.checked_rows(x, "x", self.architecture.data_dim)
        head = self._in_chunks(self.encoder, x, self._labels(y, x.shape[0]))  # (rows, 2 latent)
        return head[:, : self.architecture.latent_dim], head[:, self.architecture.latent_dim :]

    def decode(self, z: Any, y: Any = None) -> Array:
        """The mean of p(x|z), or p(x|z, y).  z (rows, latent) -> a new array (rows, data). Any number of rows."""
        output = self._output(z, y)  # (rows, data), or (rows, 2 data)
        if self.architecture.likelihood == "bernoulli":
            return activations.sigmoid_forward(output)
        return output[:, : self.architecture.data_dim]

    def sample(self, n: int, rng: Any, mean: bool = True, y: Any = None) -> Array:
        """New data: z drawn from the prior N(0, I), then the mean of p(x|z), or with mean=False a draw of x from it.

        rng is a NumPy generator, whatever the backend, or a seed; y (n,) says what a conditional model shall draw.
        -> (n, data). Raises ValueError or TypeError for another n or rng.
        """
        n, rng = checked_count("n", n), as_generator(rng)
        z = rng.standard_normal((n, self.architecture.latent_dim))
        return self.decode(z, y) if mean else self.draw(z, rng, y)

    def draw(self, z: Any, rng: Any, y: Any = None) -> Array:
        """A draw of x from p(x|z): 0s and 1s, or the mean plus Gaussian noise.  z (rows, latent) -> (rows, data)."""
        xp, data_dim, rng = self.backend.xp, self.architecture.data_dim, as_generator(rng)
        output = self._output(z, y)  # (rows, data), or (rows, 2 data)
        shape = (output.shape[0], data_dim)
        if self.architecture.likelihood == "bernoulli":
            u = self.backend.asarray(rng.random(shape), self.dtype)
            return (u < activations.sigmoid_forward(output)).astype(self.dtype)
        logvar = output[:, data_dim:] if self.architecture.sigma == "predicted" else self.shared_logvar
        eps = self.backend.asarray(rng.standard_normal(shape), self.dtype)
        return gaussian.reparameterize_forward(output[:, :data_dim], xp.broadcast_to(logvar, shape), eps)

    def log_p_x_given_z(self, x: Any, z: Any, y: Any = None) -> Array:
        """log p(x|z) of each pair of rows, in nats.  x (rows, data), z (rows, latent) -> (rows,), a new array."""
        x = self.checked_rows(x, "x", self.architecture.data_dim)
        z = self.checked_rows(z, "z", self.architecture.latent_dim)
        if x.shape[0] != z.shape[0]:
            raise ValueError(f"x has {x.shape[0]} rows and z has {z.shape[0]}: they must come in pairs")
        y = self._labels(y, x.shape[0])
        with self.lock:
            self.reserve(x.shape[0])
            self.likelihood_loss(self.run(self.decoder, z, y), x, dnll=0.0, with_gradient=False)
            return -self.nll

    # --------------------------------------------------------------------------------------------------------- plumbing

    def _output(self, z: Any, y: Any) -> Array:
        z = self.checked_rows(z, "z", self.architecture.latent_dim)
        return self._in_chunks(self.decoder, z, self._labels(y, z.shape[0]))

    def _in_chunks(self, layers: Sequence[Layer], x: Array, y: Array | None) -> Array:
        out = self.backend.xp.empty((x.shape[0], layers[-1].width), dtype=self.dtype)
        with self.lock:  # over all chunks: another thread may be training, and they shall be of one moment
            self.reserve(min(CHUNK, x.shape[0]))
            for start in range(0, x.shape[0], CHUNK):
                rows = slice(start, start + CHUNK)
                out[rows] = self.run(layers, x[rows], None if y is None else y[rows])
        return out

    def checked_rows(self, a: Any, name: str, width: int) -> Array:
        """`a` (rows, width) on this model's device and in its dtype. Raises ValueError for another shape or no rows."""
        a = self.backend.asarray(a, self.dtype)
        if a.ndim != 2 or a.shape[1] != width or a.shape[0] == 0:
            images = a.ndim > 2 and a.shape[0] > 0 and math.prod(a.shape[1:]) == width
            remedy = f"; {name}.reshape(len({name}), -1) makes rows of images" if images else ""
            raise ValueError(f"{name} must have shape (rows, {width}), with at least one row, not {a.shape}{remedy}")
        return a

    def _labels(self, y: Any, rows: int) -> Array | None:
        """Labels y (rows,), checked, on this model's device; None for a model that is not conditional."""
        y = y if y is None or hasattr(y, "dtype") else np.asarray(y)
        self.architecture.check_labels(y, rows)
        return self.backend.asarray(y) if self.architecture.classes else None

    def checked_batch(self, x: Any, eps: Any, y: Any) -> tuple[Array, Array, Array | None]:
        """x (batch, data), eps (batch, latent) and labels y (batch,) or None, on this model's device and in its dtype.

        Raises ValueError for what does not fit.
        """
        x = self.checked_rows(x, "x", self.architecture.data_dim)
        eps = self.checked_rows(eps, "eps", self.architecture.latent_dim)
        if x.shape[0] != eps.shape[0]:
            raise ValueError(f"x has {x.shape[0]} rows and eps has {eps.shape[0]}: each row needs its own noise")
        self.architecture.check_support(float(to_host(x.min())), float(to_host(x.max())))
        return x, eps, self._labels(y, x.shape[0])

    def reserve(self, rows: int, draws: int = 1) -> None:
        """Make the buffers, or larger ones; nothing to do in any step after the first.

        The decoder's are for `draws` of z for each row.
        """
        if rows <= self.rows and rows * draws <= self.decoder_rows:
            return
        encoder_rows = max(rows, self.rows)
        rows = max(rows * draws, self.decoder_rows, encoder_rows)  # of the decoder, and of what it works on
        xp, dtype, latent = self.backend.xp, self.dtype, self.architecture.latent_dim
        widths = [layer.width for layer in (*self.encoder, *self.decoder)]
        self.work = self.backend.zeros(kernel_files.work_size(rows, max(widths)), dtype)
        for layers, count in [(self.encoder, encoder_rows), (self.decoder, rows)]:
            for layer in layers:
                layer.allocate(xp, count, self.work)
        self._z = xp.empty((rows, latent), dtype=dtype)
        self._kl = xp.empty((rows, latent), dtype=dtype)
        self._dhead = xp.empty((rows, 2 * latent), dtype=dtype)
        self._dkl = xp.empty(latent, dtype=dtype)
        self._nll = xp.empty(rows, dtype=dtype)
        self._doutput = xp.empty((rows, widths[-1]), dtype=dtype)
        self.rows, self.decoder_rows = encoder_rows, rows  # last, so that a failed allocation is tried again

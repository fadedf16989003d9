"""The variational autoencoder: forward and backward, for every layer, likelihood and objective.

    x -> encoder -> (mu, logvar) -> z = mu + sigma eps -> decoder -> output -> nll -> objective      (nats)

Kingma & Welling 2014, "Auto-Encoding Variational Bayes". The whole derivation is `VAE.forward_backward`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyvae.backend import Array, as_generator, get_backend, to_host
from tinyvae.formula import formula
from tinyvae.kernels.contract import Kernels, Rows, kept
from tinyvae.layers.layer import Bound, Context, Layer, forward
from tinyvae.likelihoods import likelihood as likelihood_named
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.loop import Loop
from tinyvae.model.architecture import Architecture
from tinyvae.model.checked import Checked
from tinyvae.model.composed import Composed
from tinyvae.model.description import Description, checked_count
from tinyvae.model.labels import Label, are_plain, named_labels
from tinyvae.objectives.objective import Objective, Partials, Posterior, Terms
from tinyvae.ops.activations import LINEAR
from tinyvae.ops.gaussian import kl_forward, reparameterize_backward, reparameterize_forward
from tinyvae.parts import replayed

CHUNK = 1024  # rows that are checked and estimated at a time
NUMBERS = 2**21  # of outputs of all layers that a pass without a way back holds


@formula
def times(a, factor):
    """a factor."""
    return a * factor


@formula
def from_objective(dz, scale, direct):
    """The gradient of z: the decoder's, scaled, and the objective's own."""
    return dz * scale + direct


@formula
def through_both(dz, logvar, eps, dmu, dlogvar):
    """The gradient of mu and logvar: through z, and directly."""
    from_z = reparameterize_backward(dz, logvar, eps)
    return from_z[0] + dmu, from_z[1] + dlogvar


THROUGH_BOTH = Loop([through_both])
DRAW, THROUGH_DRAW, KL = Loop([reparameterize_forward]), Loop([reparameterize_backward]), Loop([kl_forward])
TIMES, FROM_OBJECTIVE, COPY = Loop([times]), Loop([from_objective]), Loop([formula(lambda a: a)])


class Losses(NamedTuple):
    """Means over a batch, in nats. For the ELBO without free bits, loss = nll + beta * kl."""

    loss: float
    nll: float
    kl: float


class Look(NamedTuple):
    """What a pass makes of a batch: the caller's own arrays."""

    mu: Array  # (batch, latent)
    logvar: Array  # (batch, latent)
    z: Array  # (batch K, latent)
    output: Array  # (batch K, data), or more where the likelihood needs more
    nll: Array  # (batch K,), in nats
    kl: Array  # (batch, latent), in nats


class VAE(Checked):
    """A VAE: `data_dim -> (conv ->) hidden -> latent_dim -> reversed(hidden) (-> reversed(conv)) -> data_dim`.

    data_dim        width of a row of data
    hidden          widths of the encoder's hidden layers
    latent_dim      dimensions of z
    decoder_hidden  widths of the decoder's hidden layers (default: hidden, reversed)
    activation      relu, tanh, sigmoid, softplus, elu, leaky-relu, swish or gelu, after every hidden layer
    likelihood      what the decoder's numbers mean: a name, with options ("gaussian:sigma=predicted"), or an object.
                    See `tinyvae.likelihoods`
    sigma           short for the option of that name
    tied            the decoder's weights are the encoder's, transposed
    classes         more than 0, or the labels themselves: a conditional VAE, p(x|z, y) and q(z|x, y), with labels y in
                    0..classes-1, or of those names (Sohn et al. 2015): each method then needs y (rows,); a label is a
                    one-hot row beside the input of each half's first dense layer
    conv            channels of convolutions (4 x 4, stride 2) before the dense layers; the decoder mirrors them by
                    transposed convolutions. They need image_shape = (height, width), or (height, width, 3) in colour
    batch_norm      batch normalization in every hidden layer, before its activation
    encoder,        in place of all of these but the likelihood: layers one by one (see `tinyvae.layers`). The encoder
    decoder         ends in 2 * latent numbers: mu and logvar
    backend         "numpy", "cupy" or "auto";  device: the GPU's number (one in a process)
    kernels         "fused": the fastest that is installed of "numba" and "numpy", or "cuda" on a GPU; or "reference"
                    (default: fused where there are some for the backend and dtype)
    dtype           "float32" to train, "float64" to check
    seed            draws the initial weights

    `params` and `grads` map names ("encoder.0.weight", (in, out); "encoder.0.bias"; ...) to views on one flat buffer
    each. The encoder's last layer makes mu and logvar: one layer, 2 * latent_dim wide.

    `standard`, where it is set (by `tinyvae.fit`, on real data), says where the columns of the data lie: all public
    methods then take and give x in the data's own units, and log p as its density in these (see `model/standard.py`).

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
        data_dim: int | None = None,
        hidden: Sequence[int] = (400,),
        latent_dim: int = 20,
        *,
        decoder_hidden: Sequence[int] | None = None,
        activation: str = "relu",
        likelihood: str | Likelihood = "bernoulli",
        sigma: str | None = None,
        tied: bool = False,
        classes: int | Sequence[Label] | np.ndarray = 0,
        conv: Sequence[int] = (),
        image_shape: Sequence[int] | None = None,
        batch_norm: bool = False,
        encoder: Sequence[Layer] | None = None,
        decoder: Sequence[Layer] | None = None,
        backend: str = "numpy",
        kernels: str | None = None,
        dtype: str = "float32",
        device: int = 0,
        seed: int = 0,
    ) -> None:
        if sigma is not None:
            likelihood = with_sigma(likelihood, sigma)
        of = likelihood_named(likelihood)
        is_list = isinstance(classes, (list, tuple, np.ndarray))
        names = named_labels(classes) if is_list and len(classes) else ()
        count: Any = len(names) if is_list else classes
        if encoder is not None or decoder is not None:
            if data_dim is not None or encoder is None or decoder is None:
                raise ValueError("give encoder and decoder as layers, or data_dim and the widths: not both")
            described: Description = Composed.checked(encoder, decoder, of)
        elif data_dim is None:
            raise ValueError("a model needs data_dim, or encoder and decoder as layers")
        else:
            described = Architecture.checked(
                data_dim, hidden, latent_dim, decoder_hidden, activation, of, tied, count, conv, image_shape,
                batch_norm,
            )  # fmt: skip
        self._set_up(described, get_backend(backend, device), kernels, dtype)
        self.labels = None if are_plain(names) else names
        rng = np.random.default_rng(seed)
        for name, p in described.params():
            start = p.start(rng) if callable(p.start) else p.start
            self.params[name][...] = self.backend.asarray(start, self.dtype)

    def start_at(self, x: Any) -> None:
        """Begin where the likelihood says for data x (rows, data): in the bias of the decoder's last layer.

        Each column then starts at its mean, or what is like it, and training need not look for that first (Burda et al.
        2016); counts far from 1 are never learned without. To be called before training, with some of the data or all
        of it. `Trainer` does so.
        """
        x, bias = to_host(self.checked_data(x)), self.decoder[-1].p.get("bias")
        if bias is None:
            return
        columns = self.data_dim
        if bias.size != self.likelihood.output_width(columns):  # a convolution's is for all pixels of a channel
            if self.likelihood.by_rows:
                return
            columns = bias.size // len(self.likelihood.outputs)
        start = self.likelihood.start(x.reshape(-1, columns))
        if start is not None:
            bias[...] = self.backend.asarray(start, self.dtype)

    # ------------------------------------------------------------------------------------------------ the derivation

    def forward_backward(
        self, k: Kernels, x: Array, eps: Array, objective: Objective, y: Array | None = None, missing: bool = False
    ) -> Terms:
        """The loss of a batch, and its gradient by every parameter into `grads`.

        x (n, data), eps (n K, latent): K draws for each row, side by side; y (n,). -> three arrays (1,), means in nats.
        Arrays of this model's backend and dtype, by kernels from `borrowed`, whose memory the results are. Nothing is
        copied to the host, nothing is checked. missing: x may hold NaN, numbers that were not observed.
        The caller holds `lock` until it has used the gradient.
        """
        context = Context(training=True, labels=y)
        n, count = x.shape[0], eps.shape[0]
        seen = self.likelihood.encoded(k, x, missing)  # (n, data)
        head, encoder_back = forward(k, self.encoder, Rows(seen, None), context)  # (n, 2 latent)
        mu, logvar = k.halves(head)  # (n, latent) each
        z = k.map(DRAW, mu=mu, logvar=logvar, eps=eps)  # (n K, latent)
        output, decoder_back = forward(k, self.decoder, Rows(z, LINEAR), context)  # (n K, outputs data)
        nll, likelihood_back = self.likelihood.forward(k, self.own_params, output, x, 1 / count, missing)  # (n K,)
        terms, objective_back = objective.forward(k, nll, Posterior(mu, logvar, eps, z))

        d = objective_back()
        weight = None if d.nll is None else k.map(TIMES, a=d.nll, factor=count)  # (n K, 1)
        doutput = likelihood_back(weight, self.own_grads)  # (n K, outputs data)
        dz = decoder_back(doutput)  # (n K, latent)
        dhead = self._through_draw(k, dz, d, logvar, eps, n)  # (n, 2 latent)
        encoder_back(dhead)
        k.finish()
        return terms

    def _through_draw(self, k: Kernels, dz: Array, d: Partials, logvar: Array, eps: Array, n: int) -> Array:
        """What z hands to mu and logvar, K draws to one head, beside what the objective gives them directly."""
        if d.z is not None or d.z_scale is not None:
            scale, direct = (1.0 if d.z_scale is None else d.z_scale), (0.0 if d.z is None else d.z)
            k.map(FROM_OBJECTIVE, dz=dz, scale=scale, direct=direct, out=(dz,))
        if dz.shape[0] == n and d.mu is not None and d.logvar is not None:
            dhead = k.new(n, 2 * self.latent_dim)
            k.map(THROUGH_BOTH, dz=dz, logvar=logvar, eps=eps, dmu=d.mu, dlogvar=d.logvar, out=k.halves(dhead))
            return dhead
        dhead = k.zeros(n, 2 * self.latent_dim)
        halves = k.halves(dhead)
        k.map(THROUGH_DRAW, dz=dz, logvar=logvar, eps=eps, into=halves)
        for half, direct in zip(halves, (d.mu, d.logvar), strict=True):
            if direct is not None:
                k.map(COPY, a=direct, into=(half,))
        return dhead

    def step(
        self, k: Kernels, x: Array, eps: Array, objective: Objective, y: Array | None = None, missing: bool = False
    ) -> Terms:
        """As `forward_backward`, for a loop that hands over the same arrays with new numbers: from the third time on
        the kernels repeat their calls by themselves, where all parts allow it. Small nets gain most."""
        forward_backward = lambda: self.forward_backward(k, x, eps, objective, y, missing)
        if self.replayed and replayed(objective):
            return k.replayed((x, eps, objective, y, missing), forward_backward)
        return forward_backward()

    def halves(self, head: Array) -> tuple[Array, Array]:
        """mu and logvar: views (rows, latent) on a head (rows, 2 latent)."""
        return head[:, : self.latent_dim], head[:, self.latent_dim :]

    def run(
        self, k: Kernels, x: Array, eps: Array, y: Array | None, training: bool, missing: bool
    ) -> tuple[Posterior, Array, Array]:
        """Forward alone: posterior, output (n K, outputs data) and nll (n K,), in the kernels' memory."""
        context = Context(training, y)
        head, _ = forward(k, self.encoder, Rows(self.likelihood.encoded(k, x, missing), None), context)
        mu, logvar = k.halves(head)
        z = k.map(DRAW, mu=mu, logvar=logvar, eps=eps)
        output, _ = forward(k, self.decoder, Rows(z, LINEAR), context)
        nll = self.likelihood.loss(k, self.own_params, output, x, missing)
        return Posterior(mu, logvar, eps, z), output, nll

    # --------------------------------------------------------------------------------------------------- for notebooks

    def loss_and_grad(
        self, x: Any, eps: Any, beta: float | None = None, free_bits: float | None = None, y: Any = None,
        objective: Objective | None = None,
    ) -> Losses:  # fmt: skip
        """The loss of a batch and, in `grads`, its gradient with respect to every parameter.

        x (batch, data); eps, standard normal noise: (batch, latent), or (batch, K, latent) for an objective of K draws;
        y (batch,): labels of a conditional model. Data that is NaN was not observed.
        objective: see `tinyvae.objectives`. Without one it is the ELBO, for which `beta` and `free_bits` are short:
        loss = nll + beta * kl, where with free_bits > 0 each latent dimension is charged max(free_bits, its mean KL).
        -> Losses, in nats, means over the batch. It is a training step's arithmetic: batch normalization uses the
        batch's own mean and variance, and counts them into its running averages.
        Called by several threads, each gets the losses of its own batch, but `grads` holds the gradient of one of them.
        Raises ValueError for wrong shapes and for values that the likelihood does not allow.
        """
        objective = self.checked_objective(objective, beta, free_bits)
        x, eps, y, missing = self.checked_batch(x, eps, y, objective.samples)
        with self.lock, self.borrowed("a caller's batch", *eps.shape, missing) as k:
            x, eps = (kept(k, a) for a in (x, eps))  # a caller has new arrays each time
            return self._on_host(self.step(k, x, eps, objective.on(x.shape[0]), y, missing), x)

    def loss(
        self, x: Any, eps: Any, beta: float | None = None, free_bits: float | None = None, y: Any = None,
        training: bool = False, objective: Objective | None = None,
    ) -> Losses:  # fmt: skip
        """As `loss_and_grad`, without the gradient. With `training` it is the very function whose gradient that is:
        batch normalization (if there is any) then uses the batch's own mean and variance."""
        objective = self.checked_objective(objective, beta, free_bits)
        x, eps, y, missing = self.checked_batch(x, eps, y, objective.samples)
        with self.lock, self.borrowed("loss", *eps.shape, missing) as k:
            q, _, nll = self.run(k, x, eps, y, training, missing)
            terms, _ = objective.on(x.shape[0]).forward(k, nll, q)
            return self._on_host(terms, x)

    def look(self, x: Any, eps: Any, y: Any = None, training: bool = False) -> Look:
        """What a pass makes of each row: see `Look`. x, eps and y as in `loss_and_grad`, with any number of draws."""
        eps = self.backend.asarray(eps, self.dtype)
        x, eps, y, missing = self.checked_batch(x, eps, y, eps.shape[1] if eps.ndim == 3 else 1)
        with self.lock, self.borrowed("look", *eps.shape, missing) as k:
            q, output, nll = self.run(k, x, eps, y, training, missing)
            kl = k.map(KL, mu=q.mu, logvar=q.logvar)
            found = Look(*(a.copy() for a in (q.mu, q.logvar, q.z, output, nll, kl)))
        if self.standard is not None:
            draws = found.nll.shape[0] // x.shape[0]
            found.nll[...] += self.backend.xp.repeat(self.log_std(x), draws)
        return found

    def rows_loss(self, x: Any, eps: Any, y: Any = None) -> tuple[Array, Array]:
        """nll (batch,) and kl (batch, latent) of every row, in nats: minus the ELBO of a row is nll + its sum of kl."""
        look = self.look(x, eps, y)
        return look.nll, look.kl

    def encode(self, x: Any, y: Any = None) -> tuple[Array, Array]:
        """mu and logvar of q(z|x), or of q(z|x, y) if the model is conditional.

        x (rows, data), NaN where it was not observed; labels y (rows,) -> mu, logvar (rows, latent), halves of a new
        array.
        """
        x = self.checked_data(x)
        return self.halves(self._in_chunks(self.encoder, x, self._labels(y, x.shape[0])))  # of (rows, 2 latent)

    def decode(self, z: Any, y: Any = None) -> Array:
        """The mean of p(x|z), or p(x|z, y).  z (rows, latent) -> a new array (rows, data). Any number of rows."""
        return self._outward(self.likelihood.mean(self.own_params, self.output(z, y)))

    def output(self, z: Any, y: Any = None) -> Array:
        """What the decoder says: z (rows, latent) -> a new array (rows, outputs data). Any number of rows."""
        z = self.checked_rows(z, "z", self.latent_dim)
        return self._in_chunks(self.decoder, z, self._labels(y, z.shape[0]))

    def sample(self, n: int, rng: Any, mean: bool = True, y: Any = None) -> Array:
        """New data: z drawn from the prior N(0, I), then the mean of p(x|z), or with mean=False a draw of x from it.

        rng is a NumPy generator, whatever the backend, or a seed; y (n,) says what a conditional model shall draw.
        -> (n, data). Raises ValueError or TypeError for another n or rng.
        """
        n, rng = checked_count("n", n), as_generator(rng)
        z = rng.standard_normal((n, self.latent_dim))
        return self.decode(z, y) if mean else self.draw(z, rng, y)

    def draw(self, z: Any, rng: Any, y: Any = None) -> Array:
        """A draw of x from p(x|z).  z (rows, latent) -> (rows, data)."""
        own = {name: to_host(a) for name, a in self.own_params.items()}
        x = self.likelihood.draw(own, to_host(self.output(z, y)), as_generator(rng))
        return self._outward(self.backend.asarray(x, self.dtype))

    def _outward(self, x: Array) -> Array:
        """In the units of the data: float64, where columns are standardized."""
        return x if self.standard is None else self.standard.outward(x)

    def log_p_x_given_z(self, x: Any, z: Any, y: Any = None) -> Array:
        """log p(x|z) of each pair of rows, in nats.  x (rows, data), z (rows, latent) -> (rows,), a new array."""
        x = self.checked_data(x)
        z = self.checked_rows(z, "z", self.latent_dim)
        if x.shape[0] != z.shape[0]:
            raise ValueError(f"x has {x.shape[0]} rows and z has {z.shape[0]}: they must come in pairs")
        y = self._labels(y, x.shape[0])
        missing = self._holds_nan(x)
        found = self.backend.xp.empty(x.shape[0], dtype=self.dtype)
        with self.lock:
            for rows in self._chunks(self.decoder, x.shape[0]):
                few = None if y is None else y[rows]
                with self.borrowed("log p", x[rows].shape[0], missing) as k:
                    output, _ = forward(k, self.decoder, Rows(z[rows], LINEAR), Context(labels=few))
                    found[rows] = -self.likelihood.loss(k, self.own_params, output, x[rows], missing)
        return found - self.log_std(x) if self.standard is not None else found

    # --------------------------------------------------------------------------------------------------------- plumbing

    def _in_chunks(self, layers: Sequence[Bound], x: Array, y: Array | None) -> Array:
        out = self.backend.xp.empty((x.shape[0], layers[-1].layer.width), dtype=self.dtype)
        encoding = layers is self.encoder
        missing = encoding and self._holds_nan(x)
        with self.lock:  # over all chunks: another thread may be training, and they shall be of one moment
            for rows in self._chunks(layers, x.shape[0]):
                few = None if y is None else y[rows]
                with self.borrowed("encode" if encoding else "decode", x[rows].shape[0], missing) as k:
                    seen = (
                        Rows(self.likelihood.encoded(k, x[rows], missing), None) if encoding else Rows(x[rows], LINEAR)
                    )
                    out[rows], _ = forward(k, layers, seen, Context(labels=few))
        return out

    def _chunks(self, layers: Sequence[Bound], rows: int) -> Iterator[slice]:
        """So many rows at a time that what all layers make of them is not much more than a training step holds."""
        width = sum(layer.width for layer, _, _ in layers)
        step = max(32, min(CHUNK, NUMBERS // width))
        return (slice(start, start + step) for start in range(0, rows, step))

    def _on_host(self, terms: Terms, x: Array) -> Losses:
        loss, nll, kl = to_host(self.backend.xp.concatenate([*terms])).tolist()  # one copy, since each waits for a GPU
        offset = 0.0 if self.standard is None else float(to_host(self.log_std(x)).mean())
        return Losses(loss + offset, nll + offset, kl)


def with_sigma(likelihood: str | Likelihood, sigma: str) -> str:
    """The text of a likelihood with that sigma. Raises ValueError if it says one already, or is no text."""
    if not isinstance(likelihood, str) or "sigma=" in likelihood:
        raise ValueError(f"sigma={sigma!r} is short for an option of the likelihood: say it there, once")
    return f"{likelihood}{',' if ':' in likelihood else ':'}sigma={sigma}"

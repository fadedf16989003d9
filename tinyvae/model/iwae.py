"""The importance-weighted objective (Burda et al. 2016): a bound on log p(x) from K draws of z for each x.

    x -> encoder -> (mu, logvar) -> z_k = mu + sigma eps_k -> decoder -> nll_k
    log w_k = -nll_k + log p(z_k) - log q(z_k|x)        loss = -mean over the batch of log (1/K) sum_k w_k

The rows of the decoder are the draws: (batch K) of them, the K draws of a row side by side. Every path by which the
loss reaches a parameter is one of the `ops`: the bound, the log-weight, the likelihood, the reparameterization. The
gradient of the weights themselves is part of it: dlog_w = -(w_k / sum_j w_j) / batch.

At K = 1 the loss is minus the ELBO of that draw, with log q - log p at the draw in the place of the closed KL.
"""

from typing import Any

from tinyvae.backend import Array, to_host
from tinyvae.model.vae import VAE, Losses
from tinyvae.ops import gaussian, importance, likelihoods


def iwae_forward(model: VAE, x: Array, eps: Array, y: Array | None = None, training: bool = False) -> Array:
    """log w of every draw, in nats: x (batch, data), eps (batch, K, latent), y (batch,) -> (batch, K).

    Arrays of the model's backend and dtype. Fills the model's `head`, `z` (batch K, latent), `output`, `nll` and `kl`:
    the caller holds the model's `lock` until it has read them.
    """
    xp, latent = model.backend.xp, model.architecture.latent_dim
    n, k = eps.shape[:2]
    model.reserve(n, draws=k)
    model.head = model.run(model.encoder, x, y, training)  # (batch, 2 latent)
    mu, logvar = model.head[:, :latent], model.head[:, latent:]  # (batch, latent) each
    model.kl = gaussian.kl_forward(mu, logvar)  # (batch, latent): for the record, the loss does not use it
    eps, logvar = eps.reshape(-1, latent), xp.repeat(logvar, k, axis=0)  # (batch K, latent) each
    model.z = gaussian.reparameterize_forward(xp.repeat(mu, k, axis=0), logvar, eps)  # (batch K, latent)
    labels = None if y is None else xp.repeat(y, k)  # (batch K,)
    model.output = model.run(model.decoder, model.z, labels, training)  # (batch K, data or 2 data)
    model.likelihood_loss(model.output, xp.repeat(x, k, axis=0), dnll=0.0, with_gradient=False)  # nll (batch K,)
    log_w = importance.log_prior_over_q_forward(model.z, logvar, eps) - model.nll  # (batch K,)
    return log_w.reshape(n, k)


def iwae_backward(model: VAE, x: Array, eps: Array, log_w: Array) -> None:
    """The mirror of `iwae_forward`, with what it left in the model: fills `grads`.  log_w (batch, K)."""
    xp, latent = model.backend.xp, model.architecture.latent_dim
    n, k = log_w.shape
    eps = eps.reshape(-1, latent)  # (batch K, latent)
    logvar = xp.repeat(model.head[:, latent:], k, axis=0)  # (batch K, latent)
    dlog_w = importance.bound_backward(-1.0 / n, log_w).reshape(-1, 1)  # (batch K, 1)
    dz_from_prior, dlogvar_from_q = importance.log_prior_over_q_backward(dlog_w, model.z)  # (batch K, latent) each
    doutput = _likelihood_backward(model, xp.repeat(x, k, axis=0), dnll=-dlog_w)  # as output
    dz = model.run_back(model.decoder, doutput) + dz_from_prior  # (batch K, latent)
    dmu, dlogvar_from_z = gaussian.reparameterize_backward(dz, logvar, eps)  # (batch K, latent) each
    dlogvar = dlogvar_from_z + dlogvar_from_q  # (batch K, latent)
    dhead = xp.concatenate([dmu, dlogvar], axis=1).reshape(n, k, 2 * latent).sum(axis=1)  # K draws share a head
    model.run_back(model.encoder, dhead)
    model.add_shared_gradients()


def _likelihood_backward(model: VAE, x: Array, dnll: Array) -> Array:
    """d loss / d output where every row has a weight of its own: dnll (rows, 1). Fills a learned sigma's gradient."""
    output, data_dim = model.output, x.shape[1]
    if model.architecture.likelihood == "bernoulli":
        return likelihoods.bernoulli_nll_backward(dnll, output, x)
    if model.architecture.sigma == "predicted":
        mean, logvar = output[:, :data_dim], output[:, data_dim:]  # (rows, data) each
        dmean, dlogvar = likelihoods.gaussian_nll_backward(dnll, mean, logvar, x)
        return model.backend.xp.concatenate([dmean, dlogvar], axis=1)
    dmean, dlogvar = likelihoods.gaussian_nll_backward(dnll, output, model.shared_logvar, x)
    if model.architecture.sigma == "learned":
        model.grads["likelihood.logvar"][...] = dlogvar.sum()
    return dmean


def iwae_forward_backward(model: VAE, x: Array, eps: Array, y: Array | None = None) -> Array:
    """One step's arithmetic on arrays of the model's backend and dtype: fills `grads`, returns `losses` (3,)."""
    with model.lock:
        log_w = iwae_forward(model, x, eps, y, training=True)
        iwae_sum_losses(model, log_w)
        iwae_backward(model, x, eps, log_w)
        return model.losses


def iwae_sum_losses(model: VAE, log_w: Array) -> None:
    """loss = -L_K into `losses` (3,), and beside it the ELBO's nll and kl on the same draws, means over the batch."""
    model.losses[0] = -importance.bound_forward(log_w).mean()
    model.losses[1] = model.nll.mean()
    model.losses[2] = model.kl.sum() / model.kl.shape[0]


def iwae_loss_and_grad(model: VAE, x: Any, eps: Any, y: Any = None) -> Losses:
    """The importance-weighted loss of a batch and, in `model.grads`, its gradient.

        loss = -log (1/K) sum_k w_k,    w_k = p(x|z_k) p(z_k) / q(z_k|x),    z_k = mu + sigma eps_k

    x (batch, data), eps (batch, K, latent): the standard normal noise of K draws; y (batch,): labels of a conditional
    model. -> Losses, in nats, means over the batch; nll and kl are those of the ELBO on the same draws, for comparison:
    loss <= nll + kl up to the difference between the closed KL and its value at the draws.
    Raises ValueError for wrong shapes and for values that the likelihood does not allow.
    """
    x, eps, y = _checked(model, x, eps, y)
    with model.lock:
        return Losses(*to_host(iwae_forward_backward(model, x, eps, y)).tolist())


def iwae_log_weights(model: VAE, x: Any, eps: Any, y: Any = None, training: bool = False) -> Array:
    """log w_k of every draw, in nats: x (batch, data), eps (batch, K, latent), y (batch,) -> (batch, K)."""
    x, eps, y = _checked(model, x, eps, y)
    with model.lock:
        return iwae_forward(model, x, eps, y, training)


def _checked(model: VAE, x: Any, eps: Any, y: Any) -> tuple[Array, Array, Array | None]:
    latent = model.architecture.latent_dim
    eps = model.backend.asarray(eps, model.dtype)
    if eps.ndim != 3 or eps.shape[2] != latent or eps.shape[1] == 0:
        raise ValueError(f"eps must have shape (batch, K, {latent}), with K at least 1, not {eps.shape}")
    x, _, y = model.checked_batch(x, eps[:, 0], y)
    return x, eps, y

"""Write the function: the KL, reparameterization, free bits, the importance-weighted bound."""

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinyvae.exercises.drawing import Draw, array, arrays, sizes
from tinyvae.exercises.oracles import close, slopes
from tinyvae.exercises.task import Answer, Case, FunctionTask, Mistake, Property, exactly
from tinyvae.ops import gaussian, importance

_LATENT = {"mu": "ab", "logvar": "ab"}
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(6)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def _kl_answer(c: Case) -> list[Answer]:
    """The mean over q of log q - log p, by Gauss-Hermite quadrature: exact, since that is a quadratic in eps."""
    mu, s = c["mu"], c["logvar"]
    kl = sum(w * (((mu + np.exp(s / 2) * e) ** 2 - e * e - s) / 2) for e, w in zip(NODES, WEIGHTS, strict=True))
    return [close(kl, 1000)]


KL_FORWARD = FunctionTask(
    "kl-forward", gaussian.kl_forward.function, ("kl",),
    (Property("KL is the mean over q of log q(z) - log p(z)", arrays(2, _LATENT), _kl_answer),),
    (
        Mistake("logvar is log sigma^2: sigma^2 = e^logvar, and e^(2 logvar) reads it as log sigma",
                lambda mu, logvar: 0.5 * (mu * mu + np.expm1(2 * logvar) - 2 * logvar)),
        Mistake("sigma stands where sigma^2 should: e^logvar, not e^(logvar / 2)",
                lambda mu, logvar: 0.5 * (mu * mu + np.expm1(logvar / 2) - logvar)),
        Mistake("it is -1 times the right one: look at the sign", lambda mu, logvar: -gaussian.kl_forward(mu, logvar)),
        Mistake("the mean's part mu^2 / 2 is missing", lambda mu, logvar: gaussian.kl_forward(0 * mu, logvar)),
        Mistake("mu is not squared", lambda mu, logvar: 0.5 * (mu + np.expm1(logvar) - logvar)),
        Mistake("the sign of the last logvar is wrong", lambda mu, logvar: 0.5 * (mu * mu + np.expm1(logvar) + logvar)),
        *(Mistake("the half belongs to all four terms: brackets around them", half) for half in (
            lambda mu, logvar: mu * mu + np.expm1(logvar) - logvar / 2,
            lambda mu, logvar: mu * mu / 2 + np.expm1(logvar) - logvar,
            lambda mu, logvar: 0.5 * mu * mu + np.exp(logvar) - 1 - 0.5 * logvar,
            lambda mu, logvar: 0.5 * (mu * mu + np.exp(logvar)) - 1 - logvar)),
        Mistake("logvar is a logarithm: the variance is e^logvar",
                lambda mu, logvar: 0.5 * (mu * mu + logvar - 1 - np.log(logvar))),
        Mistake("it is off by 0.5 everywhere: a constant is missing, or too much",
                lambda mu, logvar: 0.5 * (mu * mu + np.exp(logvar) - logvar)),
    ),
)  # fmt: skip


@st.composite
def _one_weight(draw: Draw) -> Case:
    return draw(arrays(2, _LATENT)) | {"dkl": draw(st.sampled_from([0.25, 0.5, 2.0]))}


def _kl_slopes(c: Case) -> list[Answer]:
    return slopes(lambda mu, s: c["dkl"] * gaussian.kl_forward(mu, s), c["mu"], c["logvar"])


KL_BACKWARD = FunctionTask(
    "kl-backward", gaussian.kl_backward.function, ("dmu", "dlogvar"),
    (
        Property("dmu and dlogvar are the slopes of sum(dkl KL)", arrays(2, {"dkl": "ab", **_LATENT}), _kl_slopes),
        Property("dkl may be one number", _one_weight(), _kl_slopes, examples=20),
    ),
    (
        Mistake("the 1 is missing: -logvar / 2 in the KL has a slope too",
                lambda dkl, mu, logvar: (dkl * mu, dkl * 0.5 * np.exp(logvar))),
        Mistake("sigma stands where sigma^2 should: e^logvar, not e^(logvar / 2)",
                lambda dkl, mu, logvar: (dkl * mu, dkl * 0.5 * np.expm1(logvar / 2))),
        Mistake("it is twice the right one: look for a factor of 2, or for a half that is missing",
                lambda dkl, mu, logvar: (2 * dkl * mu, dkl * np.expm1(logvar))),
        Mistake("it is -1 times the right one: look at the sign",
                lambda dkl, mu, logvar: (dkl * mu, dkl * 0.5 * -np.expm1(logvar))),
        Mistake("the slope of -logvar is -1: the sign of the 1 is wrong",
                lambda dkl, mu, logvar: (dkl * mu, dkl * 0.5 * (np.exp(logvar) + 1))),
        *(Mistake("the half belongs to both terms: brackets around e^logvar - 1", half) for half in (
            lambda dkl, mu, logvar: (dkl * mu, dkl * (0.5 * np.exp(logvar) - 1)),
            lambda dkl, mu, logvar: (dkl * mu, dkl * (np.exp(logvar) - 0.5)),
            lambda dkl, mu, logvar: (dkl * mu, dkl * np.exp(logvar) - 0.5),
            lambda dkl, mu, logvar: (dkl * mu, 0.5 * dkl * np.exp(logvar) - 1))),
        Mistake("that is the slope along sigma: dsigma/dlogvar = sigma / 2 is missing",
                lambda dkl, mu, logvar: (dkl * mu, dkl * (np.exp(logvar / 2) - np.exp(-logvar / 2)))),
    ),
    cotangent="dkl",
)  # fmt: skip


def _z_answer(c: Case) -> list[Answer]:
    sigma = np.vectorize(math.exp)(c["logvar"] / 2)
    return [close(c["mu"] + sigma * c["eps"])]


REPARAMETERIZE_FORWARD = FunctionTask(
    "reparameterize-forward", gaussian.reparameterize_forward.function, ("z",),
    (Property("z is mu, and from there eps standard deviations", arrays(2, {**_LATENT, "eps": "ab"}), _z_answer),),
    (
        Mistake("the noise is scaled by the variance: sigma = e^(logvar / 2)",
                lambda mu, logvar, eps: mu + np.exp(logvar) * eps),
        Mistake("the noise is scaled by logvar: sigma = e^(logvar / 2)", lambda mu, logvar, eps: mu + logvar * eps),
        Mistake("the noise is scaled by half of logvar, without the exponential",
                lambda mu, logvar, eps: mu + 0.5 * logvar * eps),
        Mistake("the noise is not scaled", lambda mu, logvar, eps: mu + eps),
        Mistake("mu is missing", lambda mu, logvar, eps: np.exp(0.5 * logvar) * eps),
        Mistake("logvar is a logarithm, and may be negative: sigma = e^(logvar / 2), and not its root",
                lambda mu, logvar, eps: mu + np.sqrt(logvar) * eps),
        Mistake("that is one over sigma: the sign in the exponent is wrong",
                lambda mu, logvar, eps: mu + np.exp(-0.5 * logvar) * eps),
        Mistake("eps stands inside the exponential; it multiplies sigma",
                lambda mu, logvar, eps: mu + np.exp(0.5 * logvar * eps)),
        Mistake("the noise is subtracted; z = mu + sigma eps", lambda mu, logvar, eps: mu - np.exp(0.5 * logvar) * eps),
        Mistake("only sigma is multiplied by eps, and not mu: brackets too much",
                lambda mu, logvar, eps: (mu + np.exp(0.5 * logvar)) * eps),
    ),
)  # fmt: skip
REPARAMETERIZE_BACKWARD = FunctionTask(
    "reparameterize-backward", gaussian.reparameterize_backward.function, ("dmu", "dlogvar"),
    (Property(
        "dmu and dlogvar are the slopes of sum(dz z) along mu and logvar, eps held fixed",
        arrays(2, {"dz": "ab", **_LATENT, "eps": "ab"}),
        lambda c: slopes(lambda mu, s: c["dz"] * gaussian.reparameterize_forward(mu, s, c["eps"]), c["mu"],
                         c["logvar"]),
    ),),
    (
        Mistake("the half is missing: sigma = e^(logvar / 2), so dsigma/dlogvar = sigma / 2",
                lambda dz, logvar, eps: (dz, dz * eps * np.exp(0.5 * logvar))),
        Mistake("the noise is missing: z moves with sigma as much as eps says",
                lambda dz, logvar, eps: (dz, dz * 0.5 * np.exp(0.5 * logvar))),
        Mistake("sigma^2 stands where sigma should: e^(logvar / 2), not e^logvar",
                lambda dz, logvar, eps: (dz, dz * eps * 0.5 * np.exp(logvar))),
        Mistake("that is the slope where sigma = e^logvar; here sigma = e^(logvar / 2)",
                lambda dz, logvar, eps: (dz, dz * eps * np.exp(logvar))),
        Mistake("that is the slope along sigma: dsigma/dlogvar = sigma / 2 is missing",
                lambda dz, logvar, eps: (dz, dz * eps)),
        Mistake("it is right only where dz is 1: the chain rule multiplies by dz",
                lambda dz, logvar, eps: (np.ones_like(dz), eps * (0.5 * np.exp(0.5 * logvar)))),
    ),
    cotangent="dz",
)  # fmt: skip


@st.composite
def _allowances(draw: Draw) -> Case:
    rows, latent = draw(sizes(2))
    free_bits = draw(st.integers(1, 8)) / 8 + 0.005  # off every mean of up to 4 eighths
    return {"dcharged": draw(array((latent,))), "kl": draw(array((rows, latent), 0, 2)), "free_bits": free_bits}


def _free_bits_answer(c: Case) -> list[Answer]:
    f = lambda kl: c["dcharged"] * gaussian.free_bits_forward(kl, c["free_bits"])
    [answer] = slopes(f, c["kl"])
    return [Answer(answer.value[0], answer.tolerance[0])]  # every row has the same


@st.composite
def _at_the_kink(draw: Draw) -> Case:
    level = draw(st.integers(1, 8)) / 8
    kl = np.tile([level, level / 2, 2 * level], (2, 1))  # at the allowance, below, above
    return {"dcharged": draw(array((3,))), "kl": kl, "free_bits": level}


FREE_BITS_BACKWARD = FunctionTask(
    "free-bits-backward", gaussian.free_bits_backward, ("dkl",),
    (
        Property("dkl, the same in each row, is the slope of sum(dcharged charged) along the KL", _allowances(),
                 _free_bits_answer),
        Property("where the mean is the allowance itself, the slope is taken as 0", _at_the_kink(),
                 lambda c: [exactly(c["dcharged"] * [0, 0, 0.5])], examples=10),
    ),
    (
        Mistake("the mean's 1 / batch is missing", lambda dcharged, kl, free_bits: dcharged * (
            kl.mean(axis=0) > free_bits)),
        Mistake("the allowance is forgotten: below it nothing is charged, and the slope is 0",
                lambda dcharged, kl, free_bits: dcharged / len(kl)),
        Mistake("at the allowance itself the slope is 0, by convention: > and not >=",
                lambda dcharged, kl, free_bits: dcharged * (kl.mean(axis=0) >= free_bits) / len(kl)),
        Mistake("the sum over the batch is compared with the allowance; its mean is meant",
                lambda dcharged, kl, free_bits: dcharged * (kl.sum(axis=0) > free_bits) / len(kl)),
        Mistake("the mean of all dimensions is compared; each dimension has an allowance of its own",
                lambda dcharged, kl, free_bits: dcharged * (kl.mean() > free_bits) / len(kl)),
        Mistake("it is divided by the number of dimensions; the mean is over the batch",
                lambda dcharged, kl, free_bits: dcharged * (kl.mean(axis=0) > free_bits) / kl.shape[1]),
        Mistake("that is the charge itself; its slope along each KL is wanted", lambda dcharged, kl, free_bits: (
            dcharged * gaussian.free_bits_forward(kl, free_bits) / len(kl))),
        Mistake("it is charged below the allowance, and free above it",
                lambda dcharged, kl, free_bits: dcharged * (kl.mean(axis=0) < free_bits) / len(kl)),
    ),
    cotangent="dcharged",
)  # fmt: skip


@st.composite
def _huge_weights(draw: Draw) -> Case:
    rows, draws = draw(sizes(2))
    return {"dbound": draw(array((rows, 1))), "log_w": 1000 * draw(array((rows, draws)))}


def _shares(c: Case) -> list[Answer]:
    gaps = c["log_w"][:, :, None] - c["log_w"][:, None, :]  # share of k = 1 / sum_j e^(log w_j - log w_k)
    with np.errstate(over="ignore"):
        return [close(c["dbound"] / np.exp(-gaps).sum(axis=2))]


def _with_one_maximum(dbound: Any, log_w: Any) -> Any:
    w = np.exp(log_w - log_w.max())
    return dbound * w / w.sum(axis=1, keepdims=True)


BOUND_BACKWARD = FunctionTask(
    "bound-backward", importance.bound_backward, ("dlog_w",),
    (
        Property("dlog_w is the slope of sum(dbound bound) along the log-weights", arrays(
            2, {"dbound": "aI", "log_w": "ab"}), lambda c: slopes(
                lambda w: c["dbound"][:, 0] * importance.bound_forward(w), c["log_w"])),
        Property("it is finite and right for huge log-weights", _huge_weights(), _shares, examples=30),
    ),
    (
        Mistake("every draw gets the same share, 1 / K: that is the slope of a mean of log-weights",
                lambda dbound, log_w: dbound * np.ones_like(log_w) / log_w.shape[1]),
        Mistake("the weights are not divided by their sum", lambda dbound, log_w: dbound * np.exp(log_w)),
        Mistake("the weights are divided by the sum over the rows; their sum over the draws is meant",
                lambda dbound, log_w: dbound * np.exp(log_w) / np.exp(log_w).sum(axis=0)),
        Mistake("the weights are divided by the sum of all rows together; each row has shares of its own",
                lambda dbound, log_w: dbound * np.exp(log_w - log_w.max()) / np.exp(log_w - log_w.max()).sum()),
        Mistake("the weights are divided by their mean; their sum over the draws is meant",
                lambda dbound, log_w: dbound * np.exp(log_w) / np.exp(log_w).mean(axis=1, keepdims=True)),
        Mistake("each row has a largest log-weight of its own; less that of all rows, all of a row may round to 0",
                _with_one_maximum),
        Mistake("the log-weights themselves are divided by their sum; take e^ of them first",
                lambda dbound, log_w: dbound * log_w / log_w.sum(axis=1, keepdims=True)),
        Mistake("e^(log w) overflows: take the largest out first, and the shares stay the same",
                lambda dbound, log_w: dbound * (np.exp(log_w) / np.exp(log_w).sum(axis=1, keepdims=True))),
    ),
    cotangent="dbound",
)  # fmt: skip

TASKS = (
    KL_FORWARD, KL_BACKWARD, REPARAMETERIZE_FORWARD, REPARAMETERIZE_BACKWARD, FREE_BITS_BACKWARD, BOUND_BACKWARD,
)  # fmt: skip

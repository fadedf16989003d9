"""The options of `tinyvae train`, and what they say of themselves."""

import argparse
from typing import Any

from tinyvae import likelihoods, objectives
from tinyvae.commands import add_keep_blas
from tinyvae.training import config as configs
from tinyvae.training import data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options. Those not given are absent from the result, so that defaults can depend on the data."""
    parser.argument_default = argparse.SUPPRESS

    def option(group: Any, flag: str, help: str, **kwargs: Any) -> None:
        group.add_argument(flag, help=help, default=argparse.SUPPRESS, **kwargs)

    # fmt: off
    g = parser.add_argument_group("data")
    names = "|".join(data.NAMES)
    option(g, "--data", f"{names}|PATH: a .npy file, or a .npz file with x and optionally y; x is (rows, columns), or "
           "(rows, height, width) for images. two-gaussians:N has N points (100). Default: digits", metavar="NAME|PATH")
    option(g, "--data-dir", "where published data sets lie or are downloaded to; a folder mnist in it counts for "
           "mnist, and so on (default: your cache directory)", metavar="DIR")
    option(g, "--leave-out", "train and test without the rows of this label (see tinyvae anomaly)",
           type=int, metavar="LABEL")
    option(g, "--binarize", "grey pixels to black and white: threshold at 1/2 once, or dynamic: drawn anew with the "
           "pixel as the probability, at every step (default: none)", choices=configs.BINARIZE)

    g = parser.add_argument_group("model")
    option(g, "--hidden", "widths of the encoder's hidden layers (default: 400; digits: 128; two-gaussians: 64 64)",
           type=int, nargs="+", metavar="WIDTH")
    option(g, "--decoder-hidden", "widths of the decoder's hidden layers (default: the encoder's, reversed)",
           type=int, nargs="+", metavar="WIDTH")
    option(g, "--latent", "dimensions of z (default: 20; digits: 8; two-gaussians: 2)", type=int, metavar="N")
    option(g, "--activation", f"{', '.join(configs.ACTIVATION_NAMES)} (default: relu)", metavar="NAME",
           choices=configs.ACTIVATION_NAMES)
    option(g, "--tied", "the decoder's weights are the encoder's, transposed", action="store_true")
    option(g, "--conv", "channels of convolutions, 4 x 4 with stride 2, before the encoder's dense layers; the decoder "
           "mirrors them by transposed convolutions; for images (default: none; with it, --hidden is none)",
           type=int, nargs="+", metavar="CHANNELS")
    option(g, "--batch-norm", "batch normalization in every hidden layer", action="store_true")
    option(g, "--conditional", "the labels go into encoder and decoder: p(x|z, y), any label on demand",
           action="store_true")
    option(g, "--likelihood", f"p(x|z): {', '.join(likelihoods.names())}, with options as in gaussian:sigma=predicted; "
           "bernoulli and continuous-bernoulli are for x in [0, 1], discretized-logistic for pixels of 8 bits over "
           "255, gaussian and laplace for real x, poisson and negative-binomial for counts, categorical:groups=3+4 for "
           "one-hot columns, and mixed:columns='gaussian*2+bernoulli*1+categorical*4' for tables of columns of all "
           "kinds, from left to right; or ./mine.py:Mine, a class of your own (default: bernoulli; two-gaussians: "
           "gaussian:sigma=fixed:0.5)", metavar="NAME[:OPTIONS]")
    option(g, "--sigma", "short for that option of the Gaussian: fixed:VALUE, learned (one number), columns (one for "
           "each column), or predicted (one for each output) (default: learned; two-gaussians: fixed:0.5)",
           metavar="HOW")

    g = parser.add_argument_group("objective")
    option(g, "--objective", f"what is minimized: {', '.join(objectives.names())}, with options as in iwae:draws=5; or "
           "./mine.py:Mine, a class of your own (default: elbo)", metavar="NAME[:OPTIONS]")
    option(g, "--beta", "short for that option of elbo and beta-tc: weight of the KL (default: 1)", type=float,
           metavar="B")
    option(g, "--beta-warmup", "short: let beta rise from 0 over so many epochs (default: 0)", type=float,
           metavar="EPOCHS")
    option(g, "--free-bits", "short: KL that each latent dimension has free of charge, in nats (default: 0)",
           type=float, metavar="NATS")
    option(g, "--importance", "short for the draws of --objective iwae, its K; a step costs about K times the decoder "
           "(default: 5)", type=int, metavar="K")

    g = parser.add_argument_group("training")
    option(g, "--epochs", "passes over the data (default: 10; digits: 300; two-gaussians: 500; a PATH: about "
           f"{configs.STEPS_FOR_OWN_DATA:,} steps)", type=int, metavar="N")
    option(g, "--batch-size", "rows in a step (default: 128; digits: 64; two-gaussians: 50)", type=int, metavar="N")
    option(g, "--lr", "Adam's step size (default: 0.001)", type=float, metavar="LR")
    option(g, "--lr-schedule", "constant, or cosine: down towards 0 at the end of --epochs (default: constant)",
           choices=configs.SCHEDULES)
    option(g, "--clip-norm", "shorten a gradient that is longer than this (default: no clipping)", type=float,
           metavar="NORM")
    option(g, "--accumulate", "batches whose gradients make one step (default: 1)", type=int, metavar="BATCHES")
    option(g, "--patience", "stop after so many epochs without a better test loss (default: never)", type=int,
           metavar="EPOCHS")
    option(g, "--seed", "draws weights, order and noise: the same seed, the same run (default: 0)", type=int,
           metavar="N")

    g = parser.add_argument_group("machine")
    option(g, "--backend", "numpy, cupy (an NVIDIA GPU), or auto: cupy where it works (default: auto)",
           choices=configs.BACKENDS)
    option(g, "--kernels", "fused: the fastest that is installed of numba, numpy (and cuda, on a GPU), which can be "
           "asked for by name too; or reference: the readable formulas (default: fused)", choices=configs.KERNELS)
    option(g, "--dtype", "float32 or float64 (default: float32)", choices=configs.DTYPES)
    option(g, "--device", "which GPU (default: 0)", type=int, metavar="N")
    option(g, "--tf32", "float32 products rounded to TF32 on a GPU: faster, 10 bits of mantissa; for --backend cupy",
           action="store_true")
    add_keep_blas(g)

    g = parser.add_argument_group("the run")
    option(g, "--out", "the run directory (default: runs/<data>-<date and time>)", metavar="DIR")
    option(g, "--resume", "go on with a stopped run, with its own options; only --epochs and --data-dir may be others",
           metavar="DIR")
    option(g, "--checkpoint-every", "save after so many epochs (default: a twentieth of --epochs)", type=int,
           metavar="EPOCHS")
    option(g, "--no-figures", "draw no pictures", action="store_true")
    option(g, "--quiet", "print nothing but errors", action="store_true")
    # fmt: on

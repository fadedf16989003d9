"""What the decoder's numbers mean, p(x|z). One file, one likelihood: whatever lies in this folder can be asked for.

    tinyvae.VAE(784, likelihood="gaussian:sigma=predicted")
    tinyvae.VAE(784, likelihood=tinyvae.likelihoods.Gaussian(sigma="predicted"))

`tinyvae.checking.likelihoods.check_likelihood` says whether one of your own keeps the contract.
"""

import sys
from typing import Any

from tinyvae import parts
from tinyvae.likelihoods.likelihood import Likelihood


def names() -> list[str]:
    """The names of all likelihoods, sorted."""
    return parts.names(sys.modules[__name__], Likelihood)


def likelihood(named: str | Likelihood) -> Likelihood:
    """The likelihood that the text describes, or the one given. Raises ValueError for one that there is not."""
    return named if isinstance(named, Likelihood) else parts.part(sys.modules[__name__], Likelihood, named)


def __getattr__(name: str) -> Any:
    """The classes, by their names: `likelihoods.Gaussian`."""
    for file in names() if not name.startswith("_") else ():
        cls = type(likelihood(file))
        if cls.__name__ == name:
            return cls
    raise AttributeError(f"there is no likelihood {name!r}")

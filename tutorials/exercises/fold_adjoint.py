"""Exercise fold-adjoint (medium): a property: fold is the adjoint of patches.

Assert what must hold of `implementation`, then: python -m tinyvae exercises check fold-adjoint
The tutorial is tutorials/12_convolution.md; hints: python -m tinyvae exercises hint fold-adjoint
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array
from tinyvae.ops.convolution import patches  # it is yours to use, and right

EXERCISE = "fold-adjoint"


def fold_adjoint(implementation: Callable[..., Any], x: Array, kernel: int, stride: int, pad: int, seed: int) -> None:
    """fold is the adjoint of patches: <patches(x), rows> = <x, fold(rows)> for every x and every rows.

    implementation is fold: (rows, (height, width), stride, pad) -> an image. tinyvae.ops.convolution.patches(x, kernel,
    stride, pad) is right; the seed is for rows that you draw.

    x (batch, height, width, channels).
    """
    raise NotImplementedError

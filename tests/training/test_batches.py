"""Batches that are drawn anew in each epoch."""

import numpy as np
import pytest
from strategies import EVERY_FUSED

from tinyvae.backend import get_backend
from tinyvae.kernels import select
from tinyvae.training.batches import DRAWN


@pytest.mark.parametrize("kernels", [*EVERY_FUSED, "reference"])
def test_a_pixel_of_0_is_never_drawn_and_one_of_1_always_whatever_u_below_1_is(kernels: str) -> None:
    k = select(kernels, get_backend("numpy"))[1]()
    x = np.array([[0, 0, 1, 1, 0.25, 0.25, 0.25]], np.float32)
    u = np.array([[0, 1 - 2**-24, 0, 1 - 2**-24, 0.25, np.nextafter(np.float32(0.25), 0), 0.3]], np.float32)
    assert k.map(DRAWN, x=x, u=u).tolist() == [[0, 0, 1, 1, 0, 1, 0]]  # a tie draws 0

"""What random generators are for. A generator is named by (seed, purpose) or (seed, purpose, epoch), epochs from 1.

So nothing random is stored with a run, and no two purposes share their numbers. The weights are drawn from (seed).
"""

import numpy as np

ORDER = 1  # of the rows in an epoch
NOISE = 2  # eps, and the draws of dynamic binarization, in an epoch
TEST = 3  # the same for the test set, alike in every epoch
DATA = 4  # the points of two-gaussians
SAMPLES = 5  # in the pictures
IMPORTANCE = 6  # z for log p(x)


def key(seed: int, purpose: int, epoch: int) -> list[int]:
    """The name of a generator as two words of 32 bits: the key of the Philox generator in the CUDA kernels."""
    return np.random.SeedSequence((seed, purpose, epoch)).generate_state(2, np.uint32).tolist()

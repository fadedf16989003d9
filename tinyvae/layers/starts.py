"""How weights start. Drawn on the host in float64, so every backend and precision starts from the same numbers.

He et al. 2015 for layers followed by a rectifier: normal, variance 2 / fan_in.
Glorot & Bengio 2010 for the others: uniform on +-sqrt(6 / (fan_in + fan_out)).

fan_in is how many numbers an output is a sum of. In a convolution that is k k in; in its transpose each pixel is
covered by (k / stride)^2 windows, so it is (k / stride)^2 in (and in, where the stride is larger than the window).

`gain` narrows the range. The last layer of each half is linear and starts at a tenth of Glorot's range: q(z|x) then
begins near the prior, and p(x|z) without opinions to unlearn. Training begins with the bias of the decoder's where the
data's means are (`VAE.start_at`). benchmarks/QUALITY.md compares this with other starts from the literature.
"""

import math
from collections.abc import Callable

import numpy as np

from tinyvae.ops.activations import Activation, activation

HEAD_GAIN = 0.1


def weights(
    shape: tuple[int, ...], fan_in: float, fan_out: float, before: str | Activation, gain: float = 1.0
) -> Callable[[np.random.Generator], np.ndarray]:
    """The start of a weight of that shape, in a layer followed by the activation `before`."""
    if activation(before).rectifier:
        return lambda rng: rng.normal(0, gain * math.sqrt(2 / fan_in), shape)
    limit = gain * math.sqrt(6 / (fan_in + fan_out))
    return lambda rng: rng.uniform(-limit, limit, shape)

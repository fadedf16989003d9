"""Initial weights. Drawn on the host in float64, so every backend and dtype starts from the same numbers.

He et al. 2015 for layers followed by a rectifier: normal, variance 2 / fan_in.
Glorot & Bengio 2010 for the others: uniform on +-sqrt(6 / (fan_in + fan_out)). Biases start at 0, the scales of batch
normalization at 1.

fan_in is how many numbers an output is a sum of. In a convolution that is k k in; in its transpose each pixel is
covered by (k / stride)^2 windows, so it is (k / stride)^2 in.

The last layer of each half is linear and starts at a tenth of Glorot's range: q(z|x) then begins near the prior, and
p(x|z) without opinions to unlearn. On binarized MNIST that narrows what 10 epochs reach with one seed or another.
"""

import math

import numpy as np

from tinyvae.model.architecture import KERNEL, STRIDE, Architecture

HEAD_GAIN = 0.1
RECTIFIERS = ("relu", "leaky-relu", "elu", "softplus")


def initial_weights(architecture: Architecture, seed: int) -> np.ndarray:
    """The flat parameters (parameters,), in the order of `architecture.shapes()`."""
    rng = np.random.default_rng(seed)
    shapes = architecture.shapes()
    weights = [name for name in shapes if name.endswith(".weight")]
    heads = {[name for name in weights if name.startswith(f"{part}.")][-1:][0] for part in _halves(architecture)}
    parts = []
    for name, shape in shapes.items():
        if not name.endswith(".weight"):
            parts.append(np.ones(shape) if name.endswith((".scale", ".running_var")) else np.zeros(shape))
            continue
        fan_in, fan_out = _fans(name, shape)
        if name not in heads and architecture.activation in RECTIFIERS:
            parts.append(rng.normal(0, math.sqrt(2 / fan_in), shape))
            continue
        limit = math.sqrt(6 / (fan_in + fan_out)) * (HEAD_GAIN if name in heads else 1)
        parts.append(rng.uniform(-limit, limit, shape))
    return np.concatenate([part.ravel() for part in parts])


def _halves(architecture: Architecture) -> tuple[str, ...]:
    """The halves that have weights of their own."""
    return ("encoder",) if architecture.tied else ("encoder", "decoder")


def _fans(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """fan_in and fan_out: of a dense W (in, out), a convolution (k, k, in, out), a transpose (k, k, out, in)."""
    if len(shape) == 2:
        return shape
    _, _, inward, outward = shape
    all_places, places_of_a_pixel = KERNEL**2, (KERNEL / STRIDE) ** 2
    if name.startswith("encoder."):
        return all_places * inward, places_of_a_pixel * outward
    return places_of_a_pixel * outward, all_places * inward

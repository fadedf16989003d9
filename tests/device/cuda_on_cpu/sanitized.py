"""Every check of the captured step at a few odd shapes: what AddressSanitizer watches (test_cuda_sanitizer.py runs it).

    python -m cuda_on_cpu.sanitized LIBRARY TF32

LIBRARY was built with `sanitize=True`; TF32 is 0 or 1.
"""

import sys
from pathlib import Path

import numpy as np
from cuda_on_cpu import checks
from cuda_on_cpu.running import Kernels
from cuda_on_cpu.shim import SOURCE, Shim

SHAPES = ((1, 1, 1), (2, 33, 31), (33, 31, 65), (32, 32, 32))


def every_check(k: Kernels) -> None:
    """The arguments are arrays of exactly the size that the kernels may touch."""
    for seed, (rows, inputs, outputs) in enumerate(SHAPES):
        rng = np.random.default_rng(seed)
        for kind in ("bytes", "floats"):
            checks.check_gather(k, rng, kind, rows, outputs, dynamic=seed % 2)
        for transposed in (0, 1):
            checks.check_layer_forward(k, rng, rows, inputs, outputs, "tanh", transposed)
            checks.check_layer_backward(k, rng, rows, inputs, outputs, "elu", transposed)
            checks.check_output_bernoulli(k, rng, rows, inputs, outputs, transposed)
            checks.check_output_gaussian(k, rng, rows, inputs, outputs, transposed)
            checks.check_latent_backward(k, rng, rows, inputs, outputs, 0.25 * transposed, transposed)
        checks.check_head_forward(k, rng, rows, inputs, outputs)
        checks.check_output_gaussian_predicted(k, rng, rows, inputs, outputs)
        checks.check_weights_and_adam(k, rng, rows, [(inputs, outputs, 1, 0), (0, outputs, 1, 0), (inputs, 5, 0, 3)])
        checks.check_finish_step(k, rng, rows, inputs, 3, 0.5, learned=True)
        checks.check_finish_step(k, rng, rows, inputs, 3)


if __name__ == "__main__":
    every_check(Kernels(Shim(Path(sys.argv[1]), SOURCE), tf32=sys.argv[2] == "1", guard=0))  # it watches the edges
    print("checked")

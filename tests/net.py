"""A net under a rebuilding: losses and every gradient of many models, stored by one version and reproduced by the next.

    python tests/net.py store FILE.npz       with the version before
    python tests/net.py compare FILE.npz     with the version after, on the same machine

Dense models in float32 must come out bit for bit, every other number within 1e-5 of the largest in its tensor. It
speaks to the package only as a user does. The file is no part of the repository: another CPU rounds in another way.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import tinyvae

TOLERANCE = 1e-5  # of the largest number in a tensor
ROWS = 33
IMAGE = {"data_dim": 63, "image_shape": (9, 7)}  # the stride leaves a remainder
# name -> (model, how its loss is asked for); "importance" is the number of draws of the importance-weighted bound
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dense": ({}, {}),
    "dense, no hidden layer": ({"hidden": ()}, {}),
    "dense, deep, elu": ({"hidden": (30, 20, 10), "activation": "elu"}, {}),
    "dense, own decoder, tanh": ({"decoder_hidden": (12, 16), "activation": "tanh"}, {}),
    "dense, leaky-relu, beta 4": ({"activation": "leaky-relu"}, {"beta": 4.0}),
    "dense, softplus, free bits": ({"activation": "softplus"}, {"beta": 0.5, "free_bits": 0.1}),
    "dense, gaussian, sigma fixed": ({"likelihood": "gaussian", "sigma": "fixed:0.5"}, {}),
    "dense, gaussian, sigma learned": ({"likelihood": "gaussian"}, {}),
    "dense, gaussian, sigma predicted": ({"likelihood": "gaussian", "sigma": "predicted"}, {}),
    "dense, 784-400-20": ({"data_dim": 784, "hidden": (400,), "latent_dim": 20}, {}),
    "tied, sigmoid": ({"tied": True, "activation": "sigmoid"}, {}),
    "tied, deep, gaussian": ({"tied": True, "hidden": (30, 20), "likelihood": "gaussian"}, {}),
    "labels": ({"classes": 4}, {}),
    "labels, gaussian, sigma predicted": ({"classes": 3, "likelihood": "gaussian", "sigma": "predicted"}, {}),
    "batch norm": ({"hidden": (30, 20), "batch_norm": True}, {}),
    "batch norm, labels, free bits": ({"batch_norm": True, "classes": 3}, {"free_bits": 0.1}),
    "conv": ({**IMAGE, "hidden": (), "conv": (3,)}, {}),
    "conv, deep, gaussian": ({**IMAGE, "hidden": (10,), "conv": (3, 5), "likelihood": "gaussian"}, {}),
    "conv, batch norm, labels": ({**IMAGE, "conv": (3, 5), "batch_norm": True, "classes": 3}, {}),
    "iwae 1": ({}, {"importance": 1}),
    "iwae 5, deep": ({"hidden": (30, 20), "activation": "tanh"}, {"importance": 5}),
    "iwae 3, gaussian, sigma learned": ({"likelihood": "gaussian"}, {"importance": 3}),
    "iwae 3, gaussian, sigma predicted": ({"likelihood": "gaussian", "sigma": "predicted"}, {"importance": 3}),
    "iwae 4, tied": ({"tied": True}, {"importance": 4}),
    "iwae 3, conv, batch norm, labels": ({**IMAGE, "conv": (3,), "batch_norm": True, "classes": 3}, {"importance": 3}),
}


def numbers(kernels: tuple[str, ...] = ("reference", "numpy", "numba")) -> Iterator[tuple[str, np.ndarray]]:
    """Losses and gradients of every model, in both precisions and on all kernels that there are: name, numbers."""
    for name, (described, asked) in MODELS.items():
        for dtype in ("float32", "float64"):
            for kernel in kernels:
                if (kernel, dtype) == ("numba", "float64"):
                    continue  # these loops are float32's
                yield from _of_one(f"{name} | {dtype} | {kernel}", {**described}, asked, dtype, kernel)


def _of_one(
    name: str, described: dict[str, Any], asked: dict[str, Any], dtype: str, kernels: str
) -> Iterator[tuple[str, np.ndarray]]:
    shape = {"data_dim": 50, "hidden": (24,), "latent_dim": 6, **described}
    rng = np.random.default_rng(0)
    model = tinyvae.VAE(**shape, dtype=dtype, kernels=kernels, seed=1)
    model.params.flat += (0.05 * rng.standard_normal(model.params.flat.shape)).astype(dtype)  # no bias is 0
    x = rng.uniform(size=(ROWS, shape["data_dim"]))
    y = np.arange(ROWS) % described["classes"] if "classes" in described else None
    draws = asked.get("importance")
    eps = rng.standard_normal((ROWS, draws, shape["latent_dim"]) if draws else (ROWS, shape["latent_dim"]))
    if draws:
        asked = {"objective": tinyvae.objectives.IWAE(draws=draws)}
    losses = model.loss_and_grad(x, eps, y=y, **asked)
    yield f"{name} | losses", np.array(losses)
    for tensor, grad in model.grads.items():
        yield f"{name} | {tensor}", np.array(grad)


def must_be_equal(name: str) -> bool:
    """Dense models in float32: bit for bit."""
    return name.startswith("dense") and "float32" in name


def difference(name: str, before: np.ndarray, after: np.ndarray) -> str | None:
    """What is wrong with a tensor, in a few words; None if it is reproduced."""
    if before.shape != after.shape:
        return f"has shape {after.shape}, before {before.shape}"
    if must_be_equal(name):
        return None if before.tobytes() == after.tobytes() else f"differs, by {abs(before - after).max():.1e}"
    largest, worst = float(abs(before).max(initial=0)), float(abs(before - after).max(initial=0))
    return None if worst <= TOLERANCE * largest else f"differs by {worst:.1e}, where the largest is {largest:.1e}"


def compare(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> list[str]:
    """A line for every tensor that is not reproduced, or is in one of the two alone."""
    lines = [f"{name}: is not there any more" for name in before if name not in after]
    lines += [f"{name}: was not there before" for name in after if name not in before]
    found = ((name, difference(name, before[name], after[name])) for name in before if name in after)
    return lines + [f"{name}: {wrong}" for name, wrong in found if wrong]


def main(argv: list[str]) -> int:
    """Store, or compare and print what is not reproduced; 1 if there is any."""
    if len(argv) != 2 or argv[0] not in ("store", "compare"):
        print(__doc__)
        return 2
    after = dict(numbers())
    if argv[0] == "store":
        with open(argv[1], "wb") as file:  # noqa: PTH123 - the path is a plain string here
            np.savez_compressed(file, allow_pickle=False, **after)
        print(f"{len(after):,} tensors of {len(MODELS)} models")
        return 0
    with np.load(argv[1]) as stored:
        lines = compare(dict(stored), after)
    print("\n".join(lines) or f"all {len(after):,} tensors are reproduced")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Make the files in this folder with the version at hand: `python tests/stored/make.py`, then look at the difference.

They are what users of tinyvae 0.1 have on their disks: a later version must read them. So they are made anew only if
one is added, never to make a test pass.
"""

import contextlib
import io
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

import tinyvae
from tinyvae.__main__ import main

HERE = Path(__file__).parent
MODELS: dict[str, dict[str, Any]] = {
    "dense": {"data_dim": 6, "hidden": (4,), "latent_dim": 2},
    "tied": {"data_dim": 6, "hidden": (4, 3), "latent_dim": 2, "tied": True, "activation": "tanh", "dtype": "float64"},
    "predicted": {"data_dim": 5, "hidden": (4,), "latent_dim": 2, "likelihood": "gaussian", "sigma": "predicted"},
    "conv": {
        "data_dim": 35, "image_shape": (7, 5), "hidden": (4,), "latent_dim": 2, "conv": (2,), "batch_norm": True,
        "classes": 3, "likelihood": "gaussian",
    },
}  # fmt: skip
SMALL = ["--hidden", "2", "--latent", "2", "--no-figures", "--quiet", "--backend", "numpy", "--kernels", "numpy"]
RUNS = {
    "grey": ["--lr", "1", "--epochs", "4"],  # so large that the last epoch is not the best
    "iwae": ["--binarize", "dynamic", "--objective", "iwae", "--importance", "2", "--epochs", "1"],
    "conditional": ["--conditional", "--batch-norm", "--likelihood", "gaussian", "--epochs", "1"],
}


def said_of_model(model: tinyvae.VAE) -> dict[str, Any]:
    """What a reader must find again."""
    rng = np.random.default_rng(0)
    x, classes = rng.uniform(size=(3, model.architecture.data_dim)), model.architecture.classes
    y = np.arange(3) % classes if classes else None
    mu, logvar = model.encode(x, y)
    return {"mu": np.asarray(mu).tolist(), "logvar": np.asarray(logvar).tolist(),
            "mean": np.asarray(model.decode(mu, y)).tolist()}  # fmt: skip


def said_of_run(path: Path) -> dict[str, Any]:
    """The same, by the command."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["evaluate", str(path), "--json", "--nll-samples", "3", "--backend", "numpy"]) == 0
    found = json.loads(out.getvalue())
    return {name: found[name] for name in ("epoch", "rows", "loss", "nll", "kl", "log_likelihood")}


def make() -> None:
    """All of them, and what is to be found in them."""
    sys.argv = ["tinyvae"]  # config.json has the command, and the platform
    platform.platform = lambda *args, **options: "Linux"
    expected: dict[str, Any] = {}
    for name, options in MODELS.items():
        model = tinyvae.VAE(**options, kernels="numpy", seed=3)
        tinyvae.save(model, HERE / f"{name}.safetensors")
        expected[name] = said_of_model(model)
    for name, options in RUNS.items():
        path = HERE / f"run-{name}"
        assert main(["train", "--data", "digits", *SMALL, *options, "--out", str(path)]) == 0
        for kind in ("step", "best"):
            for older in sorted((path / "checkpoints").glob(f"{kind}-*"))[:-1]:
                older.unlink()
        expected[path.name] = said_of_run(path)
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    make()

"""What the tests of run directories look at."""

from pathlib import Path

import numpy as np
import pytest
from running import run


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs."""
    folder = tmp_path_factory.mktemp("hostile")
    np.save(folder / "x.npy", np.random.default_rng(0).uniform(0, 1, (30, 4)).astype(np.float32))
    model = ["--hidden", "3", "--latent", "2", "--likelihood", "gaussian", "--batch-size", "9", "--backend", "numpy"]
    small = ["--epochs", "2", "--no-figures", "--quiet", "--kernels", "numpy"]
    assert run("train", "--data", folder / "x.npy", *model, *small, "--out", folder / "run") == 0
    return folder / "run"

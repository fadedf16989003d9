"""Runs of every kind of model on the digits: convolutions, batch normalization, labels, several draws."""

from pathlib import Path

from running import held_out, run

TRAIN = ["train", "--data", "digits", "--latent", "2", "--no-figures", "--quiet", "--backend", "numpy"]
ONCE = [*TRAIN, "--epochs", "1"]
VARIANTS = {
    "conv": ["--conv", "4"],
    "conv, batch norm, labels": ["--conv", "3", "4", "--hidden", "6", "--batch-norm", "--conditional"],
    "labels": ["--conditional", "--hidden", "8"],
    "batch norm": ["--batch-norm", "--hidden", "8"],
    "iwae": ["--objective", "iwae", "--importance", "3", "--hidden", "8"],
    "iwae, labels": ["--objective", "iwae", "--conditional", "--hidden", "8"],
    "without 3": ["--leave-out", "3", "--hidden", "8"],
}
CONDITIONAL = [name for name, options in VARIANTS.items() if "--conditional" in options]


def train_variants(folder: Path) -> None:
    """Each under its name, for an epoch, with the test rows held out."""
    valid = held_out("digits", folder / "held.npz")
    for name, options in VARIANTS.items():
        assert run(*ONCE, *options, "--valid", valid, "--out", folder / name) == 0, name

"""The options of `tinyvae train`: their groups, and those that are no part of the run. The others say all of themselves
in `tinyvae.training.config`."""

import argparse
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from tinyvae.commands import add_keep_blas
from tinyvae.training.config import Config, help_of
from tinyvae.training.options import about

GROUPS = {
    "data": ("data", "data_dir", "label", "kinds", "valid", "leave_out", "binarize", "standardize"),
    "model": (
        "hidden", "decoder_hidden", "latent", "activation", "tied", "conv", "batch_norm", "conditional", "likelihood",
        "sigma",
    ),
    "objective": ("objective", "beta", "beta_warmup", "free_bits", "importance"),
    "training": (
        "epochs", "batch_size", "lr", "lr_schedule", "weight_decay", "clip_norm", "accumulate", "patience", "seed",
    ),
    "machine": ("backend", "kernels", "dtype", "device", "tf32"),
    "the run": ("checkpoint_every",),
}  # fmt: skip
RESUME = "go on with a stopped run, with its own options; only --epochs and --data-dir may be others"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options. Those not given are absent from the result, so that defaults can depend on the data."""
    parser.argument_default = argparse.SUPPRESS
    known, hints = {f.name: f for f in fields(Config)}, get_type_hints(Config)

    def option(group: Any, flag: str, help: str, **kwargs: Any) -> None:
        group.add_argument(flag, help=help.replace("%", "%%"), default=argparse.SUPPRESS, **kwargs)

    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        if title == "the run":
            option(group, "--out", "the run directory (default: runs/<data>-<date and time>)", metavar="DIR")
            option(group, "--resume", RESUME, metavar="DIR")
        for name in names:
            option(group, f"--{name.replace('_', '-')}", help_of(name), **_kind(hints[name], about(known[name])))
        if title == "machine":
            add_keep_blas(group)
        if title == "the run":
            option(group, "--no-figures", "draw no pictures", action="store_true")
            option(group, "--quiet", "print nothing but errors", action="store_true")


def _kind(hint: Any, a: Any) -> dict[str, Any]:
    """How argparse reads an option of this type."""
    kind = next(k for k in get_args(hint) if k is not NoneType) if isinstance(hint, UnionType) else hint
    if kind is bool:
        return {"action": "store_true"}
    more = {"metavar": a.metavar} if a.metavar else {}
    if a.choices is not None:
        more["choices"] = a.choices
    return {"type": int, "nargs": "+", **more} if get_origin(kind) is tuple else {"type": kind, **more}

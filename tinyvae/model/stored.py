"""A model's description as it is read from a file: whatever it says is looked at, and nothing in it is run."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from tinyvae import likelihoods, parts
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.model.architecture import Architecture
from tinyvae.model.composed import Composed
from tinyvae.model.description import Description

NUMBERS = ("data_dim", "latent_dim", "classes")
LISTS = ("hidden", "decoder_hidden", "conv")
SWITCHES = ("tied", "batch_norm")


def described(d: dict[str, Any], known: Sequence[type] = ()) -> Description:
    """The inverse of `to_dict`. `known`: classes of parts that are not the package's own.

    Files of format 1 say sigma beside the likelihood. Raises ValueError for anything that is no description, of which
    UnknownPartError for a part that is neither the package's own nor handed over.
    """
    d = dict(d)
    sigma = d.pop("sigma", None)
    if not isinstance(d.get("likelihood"), str) or not isinstance(sigma, (str, type(None))):
        raise ValueError("likelihood must be text")
    text = d["likelihood"] if sigma is None else f"{d['likelihood']}:sigma={sigma}"
    likelihood = parts.part(likelihoods, Likelihood, text, known)
    if "encoder" in d:
        if set(d) != {"encoder", "decoder", "likelihood"}:
            raise ValueError(f"it has {', '.join(sorted(d))[:80]}, not encoder, decoder and likelihood")
        return Composed.from_dict(d, likelihood, known)
    d = {**Architecture.ABSENT, **d, "likelihood": likelihood}
    expected = {f.name for f in fields(Architecture)}
    if set(d) != expected:
        raise ValueError(f"architecture has {', '.join(sorted(set(d) ^ expected))[:80]} too many or too few")
    return _checked(d)


def _checked(d: dict[str, Any]) -> Architecture:
    for name in NUMBERS:
        if type(d[name]) is not int or d[name] < 0:
            raise ValueError(f"{name} must be a whole number, not {d[name]!r}")
    for name in LISTS:
        if not isinstance(d[name], (list, tuple)) or not all(type(n) is int for n in d[name]):
            raise ValueError(f"{name} must be a list of whole numbers, not {d[name]!r}")
        d[name] = tuple(d[name])
    for name in SWITCHES:
        if type(d[name]) is not bool:
            raise ValueError(f"{name} must be true or false, not {d[name]!r}")
    if not isinstance(d["activation"], str):
        raise ValueError(f"activation must be text, not {d['activation']!r}")
    shape = d["image_shape"]
    if shape is not None and (not isinstance(shape, (list, tuple)) or not all(type(n) is int for n in shape)):
        raise ValueError(f"image_shape must be two or three whole numbers, not {shape!r}")
    found = Architecture.checked(
        d["data_dim"], d["hidden"], d["latent_dim"], d["decoder_hidden"], d["activation"], d["likelihood"], d["tied"],
        d["classes"], d["conv"], shape, d["batch_norm"],
    )  # fmt: skip
    if found.image_shape != (None if shape is None else tuple(shape)):
        raise ValueError("its parts contradict each other")
    return found

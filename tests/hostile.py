"""Checkpoints that somebody else wrote: another description or other tensors under a digest that fits."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from running import run
from safetensors.numpy import load_file, save_file

from tinyvae.training import checkpoint as checkpoints


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


REMOVED = object()


ODD = (
    None, True, -1, 0, 1, 10**30, 1.5, 1e308, float("nan"), "", "x", "\0", "\ud800", "\x1b[2J", [], [1, -1], ["x"], {},
    {"a": 1}, nested(90), REMOVED,
)  # fmt: skip


def last_of(path: Path) -> Path:
    return sorted((path / "checkpoints").glob("step-*"))[-1]


def describe(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["tinyvae"].rpartition("\n")[0])


def rewrite(path: Path, about: Any) -> None:
    """The checkpoint with another description, under the digest that fits it."""
    rewrite_with(path, about, load_file(path))


def rewrite_with(path: Path, about: Any, tensors: dict[str, np.ndarray]) -> None:
    """The same with other tensors."""
    text = about if isinstance(about, str) else json.dumps(about, sort_keys=True)
    save_file(tensors, path, metadata={"tinyvae": f"{text}\n{checkpoints._digest(text, tensors)}"})


def places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field, the tables among them."""
    if where:
        yield where
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*where, key))


def changed(about: dict[str, Any], where: tuple[Any, ...], value: Any) -> Any:
    about = json.loads(json.dumps(about))
    parent = about
    for key in where[:-1]:
        parent = parent[key]
    if value is REMOVED:
        del parent[where[-1]]
    else:
        parent[where[-1]] = value
    return about


def resumed(path: Path, *more: str) -> int:
    return run("train", "--resume", path, "--epochs", "3", "--no-figures", "--quiet", *more)

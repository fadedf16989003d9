"""A dataclass from plain JSON values that anybody may have written: exact names, exact types."""

import json
import os
import sys
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
MAX_SHOWN = 60  # characters of a wrong value


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for any other: too deep, a name twice, NaN or Infinity too."""
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def from_json(kind: type[T], values: Any, what: str) -> T:
    """An instance of the dataclass `kind`, its fields as named and typed there; a list for a tuple.

    Raises ValueError, which says `what` is wrong: a name missing or unknown, a value of another type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{what} must be a table of names, not {show(values)}")
    known = {field.name for field in fields(kind)}  # pyright: ignore[reportArgumentType] - it is a dataclass
    missing, unknown = sorted(known - set(values)), sorted(set(values) - known)
    if missing or unknown:
        raise ValueError(f"{what} lacks {_list(missing)} and has unknown {_list(unknown)}")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{what}: {name}") for name, value in values.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    """The value if it is of this type."""
    if isinstance(hint, UnionType):  # always with None here
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        return None if value is None else _value(kinds[0], value, name)
    if is_dataclass(hint):
        return from_json(hint, value, name)  # pyright: ignore[reportArgumentType] - it is a class
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is dict and isinstance(value, dict):
        return value  # whoever reads it looks at what is in it
    if origin in (tuple, list) and isinstance(value, list | tuple):
        if origin is tuple and arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise ValueError(f"{name} must hold {len(arguments)} numbers, not {len(value)}")
        return origin(_value(arguments[0], item, name) for item in value)
    right = {
        float: type(value) in (int, float) and abs(value) <= sys.float_info.max,
        str: type(value) is str and _is_text(value),
        int: type(value) is int,
        bool: type(value) is bool,
    }
    if hint is Any and type(value) in right:
        return value
    if not right.get(hint, False):
        raise ValueError(f"{name} must be {hint.__name__ if origin is None else hint}, not {show(value)}")
    return float(value) if hint is float else value


def _is_text(value: str) -> bool:
    """It can be the name of a file."""
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice")
    return table


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def show(value: Any) -> str:
    """A value from a file, short enough for one line."""
    try:
        text = repr(value)
    except RecursionError:
        return "something nested too deeply"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _list(names: list[str]) -> str:
    return show(names) if names else "nothing"

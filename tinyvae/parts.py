"""Parts by name: a folder of files is the list of what there is, and text says which, with its options.

    negative-binomial                  likelihoods/negative_binomial.py, with its defaults
    gaussian:sigma=fixed:0.5           with an option; several stand with commas between them
    ./mine.py:Mine                     a class in a user's own file, where a person typed that (`typed`)

A part is a dataclass, and its fields are its options. A file holds one public class of its folder's kind.
"""

import dataclasses
import importlib
import importlib.util
import pkgutil
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

Part = TypeVar("Part")
_TYPED: list[type] = []  # classes in files that a person of this process has typed: see `typed`
_NAMES = {int: "a whole number", float: "a number", bool: "true or false"}


class UnknownPartError(ValueError):
    """There is no part of that name: it is misspelt, or a class of a user's own that this process does not know."""

    def __init__(self, kind: str, name: str, there: list[str], asked: str = "") -> None:
        super().__init__(f"{asked or kind} must be one of {', '.join(there)}, not {name!r}")
        self.kind, self.name, self.there = kind, name, there


def names(folder: ModuleType, base: type) -> list[str]:
    """The names of all parts in the folder, sorted."""
    files = (m.name for m in pkgutil.iter_modules(folder.__path__))
    return sorted(file.replace("_", "-") for file in files if _class_in(folder, file, base) is not None)


def class_of(folder: ModuleType, base: type[Part], name: str) -> type[Part]:
    """The class of that name, one of `names`."""
    return _class_in(folder, name.replace("-", "_"), base)


def replayed(part: Any) -> bool:
    """Whether its class itself says that the kernels may repeat its calls: see `tinyvae.layers.Layer`."""
    return vars(type(part)).get("replayed", False)


def _class_in(folder: ModuleType, file: str, base: type) -> Any:
    module = importlib.import_module(f"{folder.__name__}.{file}")
    found = [c for c in vars(module).values() if _is_part(c, base) and c.__module__ == module.__name__]
    return found[0] if found else None


def _is_part(c: Any, base: type) -> bool:
    return isinstance(c, type) and issubclass(c, base) and c is not base and not c.__name__.startswith("_")


def part(
    folder: ModuleType, base: type[Part], text: str, known: Iterable[type] = (), built: Mapping[str, Any] | None = None
) -> Part:
    """The part that `text` describes: one of the folder, or of the classes in `known` by their own name.

    built: other parts by name, for an option that is one of them.

    Raises UnknownPartError for a name that there is not, ValueError for options that it has not.
    """
    name, _, options = text.partition(":")
    own = {name_of(c): c for c in (*_TYPED, *known) if _is_part(c, base)}
    if name in own:
        return with_options(own[name], name, options, built)
    if name not in names(folder, base):
        kind = folder.__name__.rpartition(".")[2].removesuffix("s")
        raise UnknownPartError(kind, name, names(folder, base))
    return with_options(class_of(folder, base, name), name, options, built)


def with_options(cls: type[Part], name: str, options: str, built: Mapping[str, Any] | None = None) -> Part:
    """cls(field=value, ...) from "field=value,..."."""
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    fields = [f.name for f in dataclasses.fields(cls) if f.init]  # pyright: ignore[reportArgumentType]
    for item in filter(None, options.split(",")):
        key, equals, value = item.partition("=")
        key = key.replace("-", "_")
        if not equals or key not in fields:
            raise ValueError(f"{name} has {_list(fields)}, not {item!r}: write {name}:option=value,...")
        if built and value in built:
            values[key] = built[value]
        else:
            values[key] = _value(hints[key], value, f"{name}:{key}")
    missing = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory and f.name not in values]  # pyright: ignore
    if missing:
        raise ValueError(f"{name} needs the option {missing[0]}")
    return cls(**values)


def _list(fields: list[str]) -> str:
    return f"the options {', '.join(fields)}" if fields else "no options"


def _value(kind: Any, text: str, where: str) -> Any:
    if isinstance(kind, types.UnionType):
        kinds = [k for k in typing.get_args(kind) if k is not types.NoneType]
        if text == "none" and len(kinds) < len(typing.get_args(kind)):
            return None
        kind = kinds[0]
    args = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        if text not in args:
            raise ValueError(f"{where} must be one of {', '.join(args)}, not {text!r}")
        return text
    if typing.get_origin(kind) is tuple:
        numbers = text.split("x")
        if Ellipsis not in args and len(numbers) != len(args):
            raise ValueError(f"{where} must be {len(args)} numbers with x between them, not {text!r}")
        return tuple(_value(args[0], n, where) for n in numbers)
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where} must be {_NAMES.get(kind, kind.__name__)}, not {text!r}") from error


def options_of(thing: Any) -> list[str]:
    """The names of the options of a part, or of its class."""
    return [f.name for f in dataclasses.fields(thing)]


def having(folder: ModuleType, base: type, option: str) -> list[str]:
    """The names of the parts in the folder that have this option."""
    return [name for name in names(folder, base) if option in options_of(class_of(folder, base, name))]


def text_of(thing: Any, names: Mapping[int, str] | None = None) -> str:
    """The text that describes a part: its name, and the options that are not its defaults.

    names: of other parts, by their id, where an option may be one.
    """
    options = []
    for f in dataclasses.fields(thing):
        value = getattr(thing, f.name)
        if value != f.default:
            options.append(f"{f.name}={_shown(value, names or {})}")
    name = name_of(type(thing))
    return f"{name}:{','.join(options)}" if options else name


def _shown(value: Any, names: Mapping[int, str]) -> str:
    if id(value) in names:
        return names[id(value)]
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(getattr(value, "name", value))


def name_of(cls: type) -> str:
    """The name of a part: its file's, in the package; its own, if it is a user's, with a capital, as no file's has."""
    module, own = cls.__module__, cls.__name__
    return module.rpartition(".")[2].replace("_", "-") if module.startswith("tinyvae.") else own[0].upper() + own[1:]


def is_typed(text: str) -> bool:
    """Whether it names a class in a file."""
    return ".py:" in text


def typed(text: str, *bases: type) -> str:
    """Run the file of "./mine.py:Mine" or "./mine.py:Mine:option=value" -> "Mine" or "Mine:option=value", which `part`
    knows from here on in this process. Only for what a person typed, never for what stands in a file.

    Raises ValueError if there is no such class of one of these kinds, or its file cannot be run.
    """
    if not is_typed(text):
        raise ValueError(f"{text}: names no class in a file: write FILE.py:CLASS")
    path, _, rest = text.partition(".py:")
    file, (name, _, options) = Path(f"{path}.py"), rest.partition(":")
    if not file.is_file():
        raise ValueError(f"{text}: there is no such file {file}")
    cls: Any = getattr(_run(file), name, None)
    if not any(_is_part(cls, base) for base in bases):
        raise ValueError(f"{file}: has no class {name} of the kind {' or '.join(base.__name__ for base in bases)}")
    _TYPED[:] = [c for c in _TYPED if name_of(c) != name_of(cls)]
    _TYPED.append(cls)
    return f"{name_of(cls)}:{options}" if options else name_of(cls)


def introduce(*classes: type) -> None:
    """`part` knows these classes from here on in this process: a person has handed over objects of them."""
    strangers = [c for c in classes if not c.__module__.startswith("tinyvae.")]
    _TYPED[:] = [c for c in _TYPED if name_of(c) not in {name_of(s) for s in strangers}] + strangers


class _Anew(SourceFileLoader):
    """Compiles a file each time. Python's own would leave a __pycache__ beside a user's file, and would take the one
    that lies there for a file that was changed within the same second."""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _run(file: Path) -> Any:
    name = str(file.resolve())  # of no module that can be imported
    spec = importlib.util.spec_from_file_location(name, file, loader=_Anew(name, str(file)))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where annotations that are text look names up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's own file raises
        del sys.modules[name]
        raise ValueError(f"{file}: cannot be run ({type(error).__name__}: {error})") from error
    return module

"""A learner's file: loading it, calling it, and saying in a few lines what went wrong in it."""

import ast
import contextlib
import inspect
import io
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

WIDTH = 1000  # characters of an array that are shown
MESSAGE = 300  # and of an error's message
LOOKS = (  # what is in an error's message, and where to look then
    (
        "mismatch in its core dimension",
        "in a product (n, k) @ (k, m) the inner sizes are equal: which factor needs its .T?",
    ),
    (
        "could not be broadcast together",
        "write the shapes below each other, from the right: sizes must be equal, or one is 1",
    ),
    (
        "truth value of an array",
        "an array has many truth values: np.all(...) makes one of them, np.where decides for each",
    ),
    ("bitwise_xor", "^ is no power in Python: y**2"),
    ("name 'np' is not defined", "the stub's first lines are needed: import numpy as np"),
    ("object is not callable", "a product needs its *: 2 * (x + 1)"),
)


@dataclass(frozen=True)
class Failure:
    """What went wrong, for a person: a sentence, the evidence line by line, and where to look."""

    says: str
    lines: tuple[tuple[str, str], ...] = ()  # label, text
    look: str = ""
    printed: str = ""  # by the learner's function, in this case


class Found(Exception):  # noqa: N818 - what is searched for is found
    """A failure, on its way up."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.says)
        self.failure = failure


def fail(says: str, *lines: tuple[str, str], look: str = "", printed: str = "") -> Found:
    """A Found, to be raised."""
    return Found(Failure(says, lines, look, printed))


def load(path: Path, solution: Callable[..., Any]) -> Callable[..., Any]:
    """The function in `path` that has the name and the parameters of `solution`.

    Raises Found if the file cannot be read or run, has no such function, or takes it from tinyvae.
    """
    source, code = _compiled(path)
    name = solution.__name__
    if _takes(source, name, solution.__module__):
        raise fail(f"{path} takes {name} from tinyvae: the exercise is to write it")
    namespace: dict[str, Any] = {"__name__": "exercise", "__file__": str(path)}
    with _importing_beside(path):
        try:
            exec(code, namespace)
        except ModuleNotFoundError as error:
            raise fail(
                f"{path} imports {error.name}, which is not installed", *error_lines(error, path),
                look="NumPy is all that is needed",
            ) from error  # fmt: skip
        except BaseException as error:  # SystemExit and KeyboardInterrupt among them
            raise fail(f"{path} stops with an error while it is read", *error_lines(error, path)) from error
    function = namespace.get(name)
    if not callable(function):
        raise fail(f"{path} defines no function called {name}: keep the name that the stub gave it")
    wanted, found = (_parameters(f) for f in (solution, function))
    if found != wanted:
        raise fail(f"{name} takes ({', '.join(found)}); it must take ({', '.join(wanted)}), as in the stub")
    return function


def exercise_of(path: Path) -> str:
    """The name in the file's line EXERCISE = "name". Raises Found if there is none."""
    for node in ast.parse(_compiled(path)[0]).body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "EXERCISE" for t in node.targets):
            value = node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return value.value
    raise fail(f'{path} does not say which exercise it is: it needs the line EXERCISE = "NAME", as in the stub')


def called(function: Callable[..., Any], arguments: dict[str, Any], path: Path | None) -> tuple[Any, str]:
    """What the function returns, and what it prints. Raises Found, with the line, if it stops with an error."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), np.errstate(all="ignore"):
            return function(**arguments), printed.getvalue()
    except NotImplementedError as error:
        raise fail("nothing is written yet: the stub's NotImplementedError is still there") from error
    except RecursionError as error:
        raise fail("it calls itself without end", *error_lines(error, path), printed=printed.getvalue()) from error
    except BaseException as error:  # SystemExit and KeyboardInterrupt among them
        look = next((look for part, look in LOOKS if part in str(error)), "")
        raise fail("it stops with an error", *error_lines(error, path), *shown_arguments(arguments), look=look,
                   printed=printed.getvalue()) from error  # fmt: skip


def asserts(path: Path) -> bool:
    """Something in the file can say no: an assert, a raise, or a call of an assert_... function."""
    for node in ast.walk(ast.parse(_compiled(path)[0])):
        if isinstance(node, ast.Assert | ast.Raise):
            return True
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name.startswith("assert"):
                return True
    return False


def error_lines(error: BaseException, path: Path | None) -> tuple[tuple[str, str], ...]:
    """An error in two: the last line of the learner's file that it went through, and what it says.

    Of an AssertionError all is told, since NumPy's say what differs and by how much.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = "\n".join(lines if isinstance(error, AssertionError) else lines[:1])
    said = (type(error).__name__, message[: WIDTH if isinstance(error, AssertionError) else MESSAGE])
    frames = [f for f in traceback.extract_tb(error.__traceback__) if path is not None and f.filename == str(path)]
    return ((f"line {frames[-1].lineno}", frames[-1].line or ""), said) if frames else (said,)


def shown_arguments(arguments: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Each argument as a line."""
    return tuple((name, shown(value)) for name, value in arguments.items() if name != "implementation")


def shown(value: Any, digits: int = 6) -> str:
    """A value in a line or a few: arrays with their shape, to so many digits."""
    if isinstance(value, tuple):
        return "\n".join(shown(part, digits) for part in value)
    if isinstance(value, np.ndarray) and value.ndim:
        text = np.array2string(value, precision=digits, separator=", ", threshold=60, max_line_width=88)
        text = re.sub(r"\n\s*\n", "\n", text)  # blank lines between images
        return text if value.ndim == 1 else f"{text}  shape {value.shape}"
    if isinstance(value, float | np.floating | np.ndarray):
        return f"{float(value):.{digits}g}"
    return repr(value)[:WIDTH]


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _compiled(path: Path) -> tuple[str, CodeType]:
    try:
        source = path.read_text(encoding="utf-8")
        return source, compile(source, str(path), "exec")
    except OSError as error:
        raise fail(f"{path} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise fail(f"{path} is no text in UTF-8: save it as UTF-8") from error
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise fail(
            f"{path} is not Python yet", (f"line {error.lineno}", line), (type(error).__name__, error.msg)
        ) from error
    except ValueError as error:  # a null byte
        raise fail(f"{path} is no Python file ({error})") from error


def _takes(source: str, name: str, module: str) -> bool:
    """The file imports `name` from tinyvae, all of its module, or reads it as an attribute of that."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tinyvae"):
            if name in {alias.name for alias in node.names} or (
                node.module == module and "*" in {alias.name for alias in node.names}
            ):
                return True
        elif isinstance(node, ast.Attribute) and node.attr == name:
            return True
    return False


@contextlib.contextmanager
def _importing_beside(path: Path) -> Any:
    """A file may import what lies beside it."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)

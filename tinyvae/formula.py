"""How a formula of single numbers is written: once, in plain Python over a few words, for all machines.

    from tinyvae.formula import backward_of, exp, formula, log1p, maximum

    @formula
    def softplus_forward(a):
        return maximum(a, 0) + log1p(exp(-abs(a)))

    @backward_of(softplus_forward, "a")
    def softplus_backward(dy, y):
        return dy * (1 - exp(-y))

Called with arrays (NumPy or CuPy) a formula computes, and with SymPy's symbols it is an expression. A `Loop` (see
`tinyvae.loop`) calls it once with numbers that note what is done to them: the text which Numba and CUDA compile and
NumPy works off without a new array. So a formula may use what its function sees (constants, other formulas, a Python
`for` over a fixed count), but no `if` on a number: choices are `where(condition, a, b)`. What has no text is refused
with its line. Constants are those of the moment when a loop first runs.

Inside a float32 loop numbers are float32. Where that is not enough, as in the difference of two large numbers,
`double(x)` goes on in float64, as `lgamma` and `digamma` always do.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from tinyvae.backend import array_module


class FormulaError(ValueError):
    """A formula does what no loop can."""


# ------------------------------------------------------------------------------------------------------------ words


def exp(x: Any) -> Any:
    """e^x."""
    return _word("exp", x)


def expm1(x: Any) -> Any:
    """e^x - 1, with all its digits near 0."""
    return _word("expm1", x)


def log(x: Any) -> Any:
    """log x, of x > 0."""
    return _word("log", x)


def log1p(x: Any) -> Any:
    """log(1 + x), of 0 <= x <= 1: with all its digits near 0."""
    return _word("log1p", x)


def sqrt(x: Any) -> Any:
    """The square root of x >= 0."""
    return _word("sqrt", x)


def tanh(x: Any) -> Any:
    """tanh x."""
    return _word("tanh", x)


def maximum(a: Any, b: Any) -> Any:
    """The larger of the two."""
    return _word("maximum", a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of the two."""
    return _word("minimum", a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition (a comparison, or `isnan`) holds, else b."""
    return _word("where", condition, a, b)


def isnan(x: Any) -> Any:
    """Whether x is no number: in data, one that was not observed."""
    return _word("isnan", x)


def double(x: Any) -> Any:
    """x in float64, and what is made of it."""
    return _word("double", x)


def lgamma(x: Any) -> Any:
    """log of the gamma function of x > 0, in float64; log x! = lgamma(x + 1).

    Stirling's series at y = x + 8, where these terms are exact to the last digits, and lgamma(x) = lgamma(x + 1) -
    log x eight times back (DLMF 5.11.1, 5.5.1): a logarithm of x (x + 1) ... (x + 7). Beyond x = 1e38 that is infinite.
    """
    if _is_symbol(x):
        return _on_symbols("loggamma", (x,))
    x = double(x)
    y = x + 8
    r = 1 / (y * y)
    series = (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r * (1 / 1188 - r * (691 / 360360)))))) / y
    ends, middle, _ = _eight(x)
    return (y - 0.5) * log(y) - y + 0.5 * math.log(2 * math.pi) + series - log(ends * middle)


def digamma(x: Any) -> Any:
    """The derivative of lgamma, of x > 0, in float64 (DLMF 5.11.2, 5.5.2)."""
    if _is_symbol(x):
        return _on_symbols("digamma", (x,))
    x = double(x)
    y = x + 8
    r = 1 / (y * y)
    series = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r * (1 / 132 - r * (691 / 32760))))))
    ends, middle, u = _eight(x)
    back = (2 * x + 7) * ((2 * u + 6) / ends + (2 * u + 22) / middle)  # 1 / x + 1 / (x + 1) + ... + 1 / (x + 7)
    return log(y) - 0.5 / y - series - back


def _eight(x: Any) -> tuple[Any, Any, Any]:
    """x (x + 7) (x + 1) (x + 6) = u (u + 6), (x + 2) (x + 5) (x + 3) (x + 4) = (u + 10) (u + 12), and u = x (x + 7)."""
    u = x * (x + 7)
    return u * (u + 6), (u + 10) * (u + 12), u


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x), written so that it overflows nowhere: e = e^-|x| is at most 1."""
    e = exp(-abs(x))
    return where(x >= 0, 1.0, e) / (1.0 + e)


def _word(name: str, *args: Any) -> Any:
    for a in args:
        if hasattr(a, "note"):  # a number of a loop: see `tinyvae.loop`
            return a.note(name, *args)
        if _is_symbol(a):
            return _on_symbols(name, args)
    arrays = [a for a in args if hasattr(a, "dtype")]
    xp = array_module(*arrays)
    value = _ARRAYS[name](xp, *args) if name in _ARRAYS else getattr(xp, name)(*args)
    return value if arrays else float(value)  # a NumPy scalar would make a float32 array float64


def _is_symbol(a: Any) -> bool:
    return type(a).__module__.partition(".")[0] == "sympy"


def _on_symbols(name: str, args: Sequence[Any]) -> Any:
    import sympy  # whoever has symbols has it

    words = {
        "expm1": lambda x: sympy.exp(x) - 1, "log1p": lambda x: sympy.log(1 + x), "maximum": sympy.Max,
        "minimum": sympy.Min, "where": lambda c, a, b: sympy.Piecewise((a, c), (b, True)), "double": lambda x: x,
        "isnan": lambda x: sympy.false,
    }  # fmt: skip
    return words[name](*args) if name in words else getattr(sympy, name)(*args)


def _choice(xp: Any, condition: Any, a: Any, b: Any) -> Any:
    """Between two plain numbers NumPy chooses in float64, and a float32 array times that would be float64: so where it
    is between 0 and 1, it is in int8."""
    if not hasattr(a, "dtype") and not hasattr(b, "dtype") and {a, b} == {0, 1}:
        a, b = xp.int8(a), xp.int8(b)
    return xp.where(condition, a, b)


_ARRAYS = {"double": lambda xp, x: xp.asarray(x, dtype="float64"), "where": _choice}


# --------------------------------------------------------------------------------------------------------- formulas


class Formula:
    """A function of single numbers that gives one number, or a tuple of them."""

    def __init__(
        self, function: Callable[..., Any], of: "Formula | None" = None, wrt: tuple[str, ...] = (), *,
        inputs: tuple[str, ...] | None = None, name: str | None = None,
    ) -> None:  # fmt: skip
        self.function, self.of, self.wrt = function, of, wrt
        self.inputs = _names(function) if inputs is None else inputs
        self.__name__ = name or getattr(function, "__name__", "formula")
        self.__doc__, self.__module__ = function.__doc__, function.__module__

    def __call__(self, *numbers: Any) -> Any:
        """On single numbers, arrays or symbols."""
        return self.function(*numbers)

    def __repr__(self) -> str:
        return f"formula {self.__name__}({', '.join(self.inputs)})"


def _names(function: Callable[..., Any]) -> tuple[str, ...]:
    """The function's inputs: what has a value already and goes by name alone is a constant.

    Raises FormulaError if they cannot be given one by one.
    """
    found = []
    for p in inspect.signature(function).parameters.values():
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            found.append(p.name)
        elif p.kind != p.KEYWORD_ONLY or p.default is p.empty:
            raise FormulaError(f"a formula names its inputs one by one, and takes no {p}")
    return tuple(found)


def formula(function: Callable[..., Any]) -> Formula:
    """Decorator: the function is a formula."""
    return Formula(function)


def backward_of(forward: Formula, *wrt: str) -> Callable[[Callable[..., Any]], Formula]:
    """Decorator: the function is the gradient of `forward` by the inputs `wrt`, in their order.

    Its first input is the gradient of forward's result; the others are inputs of forward, by name, or `y`, its result.
    """
    return lambda function: Formula(function, forward, wrt)

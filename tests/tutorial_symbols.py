"""The words of the language that `tutorial_latex` describes, and the symbols that they become."""

import re
from typing import Any

import sympy

GREEK = re.findall(
    r"\w+", "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi omega"
)
FUNCTIONS = {"\\exp": sympy.exp, "\\log": sympy.log, "\\ln": sympy.log, "\\tanh": sympy.tanh, "\\sinh": sympy.sinh,
             "\\cosh": sympy.cosh, "\\max": sympy.Max, "\\min": sympy.Min}  # fmt: skip
NAMED = {
    "sigmoid": lambda a: 1 / (1 + sympy.exp(-a)),
    "softplus": lambda a: sympy.log(1 + sympy.exp(a)),
    "relu": lambda a: sympy.Max(a, 0),
}
SPACES = {"\\,", "\\;", "\\:", "\\!", "\\ ", "~", "\\quad", "\\qquad", "&"}
FRACTIONS = {"\\frac", "\\tfrac", "\\dfrac"}
TIMES = {"\\cdot", "\\times", "\\odot"}
CLOSING = {"(": ")", "[": "]", "|": "|"}
ACCENTS = {"\\hat": "hat", "\\tilde": "tilde", "\\bar": "bar"}
STARTS = {"\\sqrt", "\\pi", "\\left", "\\mathrm", "\\sum", "\\prod", "(", "[", "{"} | FRACTIONS  # a factor
POSITIVE = {"sigma", "N", "D", "J", "K", "H", "C", "B"}
TOKEN = re.compile(r"\s+|\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|.", re.DOTALL)


class LatexError(AssertionError):
    """The formula is not in the language above, or has two readings."""


def symbol(name: str) -> Any:
    """The symbol that a formula's letter becomes: real, and positive if it is sigma or the size of an axis."""
    positive = name.split("_")[0] in POSITIVE
    return sympy.Symbol(name, positive=True) if positive else sympy.Symbol(name, real=True)


def indexed(name: str, *indices: Any) -> Any:
    """x[n, j] for x_{nj}."""
    base: Any = sympy.IndexedBase(symbol(name))
    return base[indices]

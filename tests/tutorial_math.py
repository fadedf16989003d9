"""The mathematics of a tutorial: its LaTeX as SymPy, and what a hidden check asserts of it."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mpmath
import numpy as np
import sympy
from tutorial_latex import equations, parse
from tutorial_symbols import symbol
from tutorial_tools import Tutorial, execute

LETTERS = [*"abcghijklmnprstuvwxyzW"]
GREEK = ["alpha", "beta", "epsilon", "eta", "gamma", "mu", "nu", "rho", "sigma", "theta", "phi"]
RTOL = 1e-12
POINTS, DIGITS = 50, 50


class Checks:
    """The names that a hidden check has, beside all of SymPy's and NumPy as `np`.

    math(name)      the equation of that name as a SymPy expression: what stands after the last `=`
    sides(name)     all its sides after the first `=` (each step of a derivation)
    x, mu, s, ...   the letters of LETTERS and GREEK as symbols (`lambda_`); symbol("dL/dz"), symbol("m_hat"): any other
    plain(e)        mu[j] -> mu: a formula for one dimension; refuses if an index is used in two ways
    explicit(e, J=3, N=2)   the sums written out; x[n, j] at numbers -> the symbols x_1_2
    code(name)      what the tutorial's own blocks called so
    assert_equal(a, b)      the same expression: at 50 random points, to 30 digits
    assert_chain(name)      all sides of an equation are equal; `subs={sigma: exp(s / 2)}` first
    assert_library(e, f, [mu, s])   e's values are f(mu, s)'s at random arrays (5, 3), to 1e-12;
                    {mu: array, s: array} instead of the list gives the arrays
    assert_library(e, f, {"x": X, "W": W}, axes="nk", N=2, D=4, K=3)   e has sums, and the free indices n, k:
                    the result is (N, K)
    """

    def __init__(self, tutorial: Tutorial, namespace: Mapping[str, Any]) -> None:
        self.formulas = formulas(tutorial)
        self.used: set[str] = set()
        self.asserted = 0
        self.code_names = namespace
        self.names: dict[str, Any] = {}
        exec("from sympy import *", self.names)
        self.names |= {letter: symbol(letter) for letter in LETTERS + GREEK}
        self.names["lambda_"] = symbol("lambda")
        self.names |= {
            "np": np, "symbol": symbol, "math": self.math, "sides": self.sides, "plain": plain, "explicit": explicit,
            "code": self.code_names.__getitem__, "assert_equal": self.assert_equal, "assert_chain": self.assert_chain,
            "assert_library": self.assert_library,
        }  # fmt: skip

    def sides(self, name: str) -> list[Any]:
        assert name in self.formulas, f"no formula is called {name!r}: {sorted(self.formulas)}"
        self.used.add(name)
        return [parse(side) for side in self.formulas[name]]

    def math(self, name: str) -> Any:
        assert name in self.formulas, f"no formula is called {name!r}: {sorted(self.formulas)}"
        self.used.add(name)
        return parse(self.formulas[name][-1])

    def assert_equal(self, a: Any, b: Any) -> None:
        self.asserted += 1
        assert_equal(sympy.sympify(a), sympy.sympify(b))

    def assert_chain(self, name: str, subs: Mapping[Any, Any] | None = None) -> None:
        first, *others = [side.subs(subs or {}) for side in self.sides(name)]
        assert others, f"{name} has one side"
        for other in others:
            self.assert_equal(first, other)

    def assert_library(
        self, e: Any, f: Callable[..., Any], arrays: Sequence[Any] | Mapping[Any, Any], axes: str = "", **sizes: int
    ) -> None:
        self.asserted += 1
        if not isinstance(arrays, Mapping):
            rng = np.random.default_rng(0)
            arrays = {letter: _random(letter, rng) for letter in arrays}
        expected = np.asarray(f(*arrays.values()), dtype=np.float64)
        if axes or sizes:
            got = _indexed_values(e, arrays, axes, sizes)
        else:
            unknown = e.free_symbols - {sympy.sympify(letter) for letter in arrays}
            assert not unknown, f"no arrays for {unknown}"
            got = sympy.lambdify(list(arrays), e.rewrite(sympy.Piecewise), "numpy")(*arrays.values())
            got = np.broadcast_to(
                np.asarray(got, dtype=np.float64), np.broadcast_shapes(*map(np.shape, arrays.values()))
            )
        assert got.shape == expected.shape, f"the formula gives {got.shape}, the library {expected.shape}"
        np.testing.assert_allclose(got, expected, rtol=RTOL, atol=RTOL, err_msg=f"{e} is not what the library computes")


def formulas(tutorial: Tutorial) -> dict[str, list[str]]:
    """The sides of every named equation, as LaTeX. The last one can be read; the others if a check asks for them."""
    found: dict[str, list[str]] = {}
    for block in tutorial.of("math"):
        if block.names:
            where = f"{tutorial.path.name}:{block.line}"
            try:
                in_block = equations(block.text)
                for sides in in_block:
                    parse(sides[-1])
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from None
            assert len(in_block) == len(block.names), f"{where}: {len(in_block)} equations for the names {block.names}"
            for name, sides in zip(block.names, in_block, strict=True):
                assert name not in found, f"{where}: a second formula is called {name!r}"
                found[name] = sides
    return found


def check_math(tutorial: Tutorial, namespace: Mapping[str, Any]) -> None:
    """Every check runs and asserts; every named formula is used by one."""
    checks = Checks(tutorial, namespace)
    for block in tutorial.of("check"):
        before = checks.asserted
        execute(tutorial, block, checks.names)
        assert checks.asserted > before, f"{tutorial.path.name}:{block.line}: the check asserts nothing"
    unused = set(checks.formulas) - checks.used
    assert not unused, f"no check uses {unused}"
    assert checks.asserted, "no formula of this tutorial is checked"


def assert_equal(a: Any, b: Any) -> None:
    """Two expressions agree at POINTS random points to 30 digits, computed with DIGITS digits."""
    sizes = {s.name: 3 for e in (a, b) for s in _bounds(e)}
    a, b = (_atoms(explicit(e, **sizes)) for e in (a, b))
    if a == b:
        return
    letters = sorted(a.free_symbols | b.free_symbols, key=str)
    f, g = (sympy.lambdify(letters, e, "mpmath") for e in (a, b))
    rng, done = random.Random(0), 0
    with mpmath.workdps(DIGITS):
        for _ in range(20 * POINTS):
            point = [mpmath.mpf(rng.uniform(0.1 if letter.is_positive else -2, 2)) for letter in letters]
            try:
                left, right = mpmath.mpmathify(f(*point)), mpmath.mpmathify(g(*point))
            except ZeroDivisionError:
                continue
            if not all(mpmath.isfinite(v) and mpmath.im(v) == 0 for v in (left, right)):
                continue
            assert abs(left - right) <= mpmath.mpf(10) ** -30 * (1 + abs(left)), (
                f"{a} is not {b}: {mpmath.nstr(left, 8)} and {mpmath.nstr(right, 8)} at "
                + ", ".join(f"{letter} = {mpmath.nstr(v, 4)}" for letter, v in zip(letters, point, strict=True))
            )
            done += 1
            if done == POINTS:
                return
    raise AssertionError(f"{a} and {b} have no common real values at random points")


def explicit(e: Any, **sizes: int) -> Any:
    """Sums written out (axes not given have 3 places), and x[n, j] at numbers as the symbol x_1_2."""
    e = sympy.sympify(e)
    values = {s: sizes.get(s.name, 3) for s in _bounds(e)}
    values |= {s: sizes[s.name] for s in e.free_symbols if s.name in sizes}
    e = e.subs(values).doit()
    places = {
        place: symbol("_".join([place.base.label.name, *map(str, place.indices)]))
        for place in e.atoms(sympy.Indexed)
        if all(index.is_Integer for index in place.indices)
    }
    return e.xreplace(places)


def _bounds(e: Any) -> set[Any]:
    """The letters that sums run to."""
    return {s for total in e.atoms(sympy.Sum, sympy.Product) for limit in total.limits for s in limit[2].free_symbols}


def plain(e: Any) -> Any:
    """mu[j] as mu: a formula about one dimension."""
    places: dict[str, Any] = {}
    for place in e.atoms(sympy.Indexed):
        name = place.base.label.name
        assert places.setdefault(name, place) == place, f"{place} and {places[name]} differ: which one is {name}?"
    return e.xreplace({place: symbol(name) for name, place in places.items()})


def _atoms(e: Any) -> Any:
    """x[n, j] at letters as a symbol of its own."""
    return e.xreplace({place: symbol(str(place)) for place in e.atoms(sympy.Indexed)})


def _random(letter: Any, rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal((5, 3))
    return np.abs(values) + 0.1 if sympy.sympify(letter).is_positive else values


def _indexed_values(e: Any, arrays: Mapping[Any, Any], axes: str, sizes: Mapping[str, int]) -> np.ndarray:
    """The values of a formula with sums, one for each place of the axes."""
    values: dict[str, float] = {}
    for name, array in arrays.items():
        for place in np.ndindex(np.shape(array)):
            values["_".join([str(name), *(str(i + 1) for i in place)])] = float(np.asarray(array)[place])
    shape = tuple(sizes[axis.upper()] for axis in axes)
    result = np.empty(shape)
    for place in np.ndindex(shape):
        one = explicit(e.subs({symbol(axis): i + 1 for axis, i in zip(axes, place, strict=True)}), **sizes)
        letters = sorted(one.free_symbols, key=str)
        missing = [str(letter) for letter in letters if str(letter) not in values]
        assert not missing, f"no values for {missing}"
        result[place] = sympy.lambdify(letters, one, "numpy")(*(values[str(letter)] for letter in letters))
    return result

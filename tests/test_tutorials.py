"""Every tutorial runs, its formulas are what SymPy and the library say, and its text is as GitHub shows it.

The last tests are about these tests: a wrong sign, factor, number or link in a tutorial must fail.
"""

import functools
import re
from collections.abc import Callable

import numpy as np
import pytest
import sympy
from tutorial_latex import equations, parse
from tutorial_math import Checks, check_math, explicit, plain
from tutorial_symbols import LatexError, indexed, symbol
from tutorial_text import check_closing, check_commands, check_formulas, check_links
from tutorial_tools import (
    FILES,
    FOLDER,
    ORDER,
    Tutorial,
    check_figures,
    check_outputs,
    read,
    run,
    same_numbers,
)

from tinyvae.ops import gaussian

EACH = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
LONG = ("09_training_and_looking", "11_museum_of_wrong_vaes")  # their code runs in the sweeps, and all of it in Jupyter
EACH_RUN = pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.sweeps) if path.stem in LONG else path for path in FILES],
    ids=lambda path: path.stem,
)
EXEMPLAR = FOLDER / "04_gaussian_kl.md"
once = functools.cache(lambda path: run(read(path)))  # the run that several tests look at


@EACH_RUN
def test_every_block_runs_and_prints_what_the_text_shows(path):
    check_outputs(read(path), once(path))


@EACH_RUN
def test_the_formulas_are_what_sympy_and_the_library_compute(path):
    check_math(read(path), once(path).namespace)


@EACH_RUN
def test_figures_show_the_numbers_that_the_code_makes(path):
    check_figures(read(path), once(path))


@EACH
def test_links_lead_somewhere(path):
    check_links(read(path))


@EACH
def test_commands_and_their_options_exist(path):
    check_commands(read(path))


@EACH
def test_formulas_are_such_as_github_renders(path):
    check_formulas(read(path))


@EACH
def test_it_opens_and_closes_as_the_others_do(path):
    check_closing(read(path))
    assert {block.kind for block in read(path).blocks} <= {"python", "text", "math", "sh", "check"}


def test_every_tutorial_and_figure_has_its_place():
    assert {path.stem for path in FOLDER.glob("[0-9]*.md")} <= set(ORDER)
    made = {path.stem for path in (FOLDER / "figures").glob("[0-9]*")}
    shown = {name for path in FILES for name in re.findall(r"\(figures/(\w+)\.png\)", path.read_text(encoding="utf-8"))}
    assert made == shown, "pictures and numbers that no tutorial shows"


# ------------------------------------------------------------------------------------------- these tests have teeth


def broken(old: str, new: str, path=EXEMPLAR) -> Tutorial:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1, f"{old!r} is not in {path.name}"
    return read(path, text.replace(old, new, 1))


def checked(tutorial: Tutorial) -> None:
    check_math(tutorial, {})


def printed(tutorial: Tutorial) -> None:
    check_outputs(tutorial, run(tutorial))


def drawn(tutorial: Tutorial) -> None:
    check_figures(tutorial, run(tutorial))


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (checked, r"+ e^s - 1 - s \right)", r"+ e^s - 1 + s \right)"),  # a sign in the forward formula
        (checked, r"\partial \mu} = \mu,", r"\partial \mu} = 2 \mu,"),  # a factor in a gradient
        (checked, r"= \sigma^2 + \mu^2", r"= \sigma^2 - \mu^2"),  # a step of the derivation
        (checked, r"{2 \sigma^2} + \frac", r"{\sigma^2} + \frac"),
        (checked, r"\frac{\beta}{N} \mu_{nj}", r"\beta \mu_{nj}"),
        (checked, r"\log(2 \pi)", r"\log 2 \pi"),  # what has two readings is refused
        (checked, "<!-- math: kl_row -->", "<!-- math: kl_rows -->"),  # a formula that no check looks at
        (printed, "return 0.5 * (mu**2 + np.exp", "return 0.25 * (mu**2 + np.exp"),  # a factor in the code
        (printed, "100000 draws 0.859", "100000 draws 0.858"),  # a number in what it prints
        (drawn, "seed, per_bin = 0, 500", "seed, per_bin = 1, 500"),
        (drawn, "np.logspace(-5, -1, 17)", "np.logspace(-5, -1, 16)"),
        (drawn, "](figures/04_kl_rounding.png)", "](figures/04_kl_rounded.png)"),
        (check_links, "](../tinyvae/ops/gaussian.py)", "](../tinyvae/ops/gauss.py)"),
        (check_links, "[`kl_backward`]", "[`kl_backwards`]"),
        (check_formulas, r"$p(z)$", r"$p(z)$s"),
        (check_formulas, r"$p(z)$", r"$\{z\}$"),
        (check_formulas, r"$p(z)$", r"$p(z)"),
        (check_formulas, r"$p(z)$", r"$ p(z)$"),
        (check_formulas, r"$p(z)$", r"$\operatorname{p}$"),
        (check_formulas, r"\left[ \log q", r"[ \log q"),
        (check_formulas, r"e^s - 1 - s \approx \frac{s^2}{2}", r"e^s - 1 - s \approx \frac{s^2}{2"),
        (check_commands, "exercises start", "exercise start"),
        (check_commands, "python -m tinyvae exercises start kl-forward", "python -m tinyvae train --latnet 2"),
        (check_commands, "python -m tinyvae exercises start kl-forward", "python -m tinyvae train --latent two"),
        (check_closing, "## What this proved", "## What was proved"),
        (check_closing, "(05_reparameterization.md).", "(06_whole_backward.md)."),
    ],
)
def test_a_fault_in_a_tutorial_is_noticed(check: Callable[[Tutorial], None], old: str, new: str) -> None:
    with pytest.raises(AssertionError):
        check(broken(old, new))


@pytest.mark.parametrize("name", ["kl_forward", "kl_backward"])
def test_a_fault_in_the_library_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(gaussian, name)
    wrong = lambda *args: tuple(2 * part for part in right(*args)) if name == "kl_backward" else 2 * right(*args)
    monkeypatch.setattr(gaussian, name, wrong)
    with pytest.raises(AssertionError, match="is not what the library computes"):
        checked(read(EXEMPLAR))


def test_without_the_fault_the_same_checks_pass() -> None:
    tutorial = read(EXEMPLAR)
    done = once(EXEMPLAR)
    for check in (checked, check_links, check_formulas, check_commands, check_closing):
        check(tutorial)
    check_outputs(tutorial, done)
    check_figures(tutorial, done)


def test_an_error_in_a_block_points_at_the_line_of_the_markdown() -> None:
    tutorial = broken("return 0.5 * (mu**2", "return undefined * (mu**2")
    line = next(i for i, text in enumerate(tutorial.text.splitlines(), 1) if "undefined" in text)
    with pytest.raises(NameError) as caught:
        run(tutorial)
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == (str(EXEMPLAR), line)


def test_a_check_that_asserts_nothing_is_refused() -> None:
    text = "<!-- math: a -->\n```math\na = x\n```\n\n<!-- check\nmath('a')\n-->\n"
    with pytest.raises(AssertionError, match="asserts nothing"):
        check_math(read(EXEMPLAR, text), {})


# -------------------------------------------------------------------------------------------------- LaTeX to SymPy

x, y, s, mu, sigma = (symbol(name) for name in ("x", "y", "s", "mu", "sigma"))
j, n, J = (symbol(name) for name in "jnJ")
x_j, x_n = indexed("x", j), indexed("x", n)


@pytest.mark.parametrize(
    ("latex", "expression"),
    [
        (r"\frac{1}{2} \left( \mu^2 + e^s - 1 - s \right)", (mu**2 + sympy.exp(s) - 1 - s) / 2),
        (r"-x^2 - y - x y", -(x**2) - y - x * y),
        (r"\log \sigma^2 - s", sympy.log(sigma**2) - s),
        (r"\log(2 \pi) x", sympy.log(2 * sympy.pi) * x),
        (r"y (1 - y)", y * (1 - y)),
        (r"1 - \tanh^2 x", 1 - sympy.tanh(x) ** 2),
        (r"e^{-s} (x - \mu)^2", sympy.exp(-s) * (x - mu) ** 2),
        (r"x / y + 1", x / y + 1),
        (r"1.5 x", sympy.Rational(3, 2) * x),
        (r"\max(x, 0)", sympy.Max(x, 0)),
        (r"\mathrm{softplus}(x) - x y", sympy.log(1 + sympy.exp(x)) - x * y),
        (r"\frac{\hat{m}}{\sqrt{\hat{v}}}", symbol("m_hat") / sympy.sqrt(symbol("v_hat"))),
        (r"\frac{\partial L}{\partial z} \cdot \frac{\partial z}{\partial s}", symbol("dL/dz") * symbol("dz/ds")),
        (r"dy \left( 1 - y \right)", symbol("dy") * (1 - y)),
        (r"dz \odot d\mu", symbol("dz") * symbol("dmu")),
        (r"\beta_1^t x_{\mathrm{max}}", symbol("beta_1") ** symbol("t") * symbol("x_max")),
        (r"\sum_j \mu_j^2 x_{nj}", sympy.Sum(indexed("mu", j) ** 2 * indexed("x", n, j), (j, 1, J))),
        (r"\sum_{j=0}^{J - 1} x_{j + 1, n}", sympy.Sum(indexed("x", j + 1, n), (j, 0, J - 1))),
    ],
)  # fmt: skip
def test_a_formula_is_read_as_it_is_written(latex: str, expression: object) -> None:
    assert sympy.simplify(parse(latex) - expression) == 0


@pytest.mark.parametrize(
    "latex",
    [
        r"\log 2 \pi", r"\log x / 2", r"\log (x)^2", r"a / b c", r"f(x)", r"f\left( x \right)",
        r"\sigma \left( x \right)", r"\mathrm{sigmid} (x)", r"E \left[ x \right]", r"3 \frac{1}{2}",
        r"\max \left\{ x \right\}", r"E[x]", "x^12", r"\frac12", "x^T", "x^{T}",
        r"\sum_j \mu_j^2 + s_j", r"\sum_j x", r"\sum x_j", "kl", "2 3", "x'", "x!", "|x|", "x, y", r"x \approx y",
        "W_{12}", "x^2_j", "e^x^2", "e", r"\sin x", r"\sqrt[3]{x}", r"\left( x", "(x]", "x^{2", "", "x +", r"\log",
        r"\mathbb{E}", r"\operatorname{f}", r"x \\ y", "x_{n j + 1}", "x % y", r"\frac{x}{y", r"\left\{ x \right\}",
        "x = y",
    ],
)  # fmt: skip
def test_a_formula_with_two_readings_or_none_is_refused(latex: str) -> None:
    with pytest.raises(LatexError):
        parse(latex)


def test_equations_of_a_block() -> None:
    assert equations("a = b = c, \\qquad d = e.") == [[" b ", " c,"], [" e."]]
    aligned = "\\begin{aligned}\na &= b \\\\\n&= c \\\\\n&+ d \\\\\nx &= y\n\\end{aligned}"
    assert [[str(parse(side)) for side in sides] for sides in equations(aligned)] == [["b", "c + d"], ["y"]]
    assert equations("x^2") == [["x^2"]]


def check_names(text: str) -> Checks:
    return Checks(read(EXEMPLAR, text), {})


def test_equality_is_decided_at_points() -> None:
    checks = check_names("")
    checks.assert_equal(sympy.tanh(x), 1 - 2 / (sympy.exp(2 * x) + 1))
    checks.assert_equal(sympy.Sum(x_j / J, (j, 1, J)), sympy.Sum(x_j, (j, 1, J)) / J)
    for a, b in [(x, x * (1 + sympy.Rational(1, 10**20))), (sympy.log(-sigma), sympy.log(sigma)), (x_j, x_n)]:
        with pytest.raises(AssertionError):
            checks.assert_equal(a, b)


def test_the_steps_of_a_derivation_are_compared() -> None:
    chain = "<!-- math: a -->\n```math\na = (x + 1)^2 = x^2 + 2 x + 1{}\n```\n"
    check_names(chain.format("")).assert_chain("a")
    with pytest.raises(AssertionError, match="is not"):
        check_names(chain.format(" + x")).assert_chain("a")


def test_a_formula_with_a_kink_or_a_sum_is_compared_with_an_array_function() -> None:
    text = "<!-- math: relu, y -->\n```math\na = \\max(x, 0), \\qquad y_{nk} = \\sum_j x_{nj} W_{jk} + b_k\n```\n"
    checks = check_names(text)
    checks.assert_library(checks.math("relu"), lambda x: np.maximum(x, 0), [x])
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((2, 4)), "W": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}
    checks.assert_library(checks.math("y"), lambda x, W, b: x @ W + b, arrays, axes="nk", N=2, J=4, K=3)
    with pytest.raises(AssertionError):
        checks.assert_library(checks.math("y"), lambda x, W, b: x @ W - b, arrays, axes="nk", N=2, J=4, K=3)
    with pytest.raises(AssertionError):
        checks.assert_library(checks.math("relu"), lambda x: np.abs(x), [x])
    derivative = sympy.diff(explicit(checks.math("y").subs({n: 1, symbol("k"): 2}), J=4), symbol("W_3_2"))
    checks.assert_equal(derivative, symbol("x_1_3"))
    checks.assert_equal(plain(x_j**2 + x_j), x**2 + x)
    with pytest.raises(AssertionError):
        plain(x_j + x_n)


def test_the_tolerance_of_stored_numbers() -> None:
    stored = {"seed": 0, "loss": [100.0, 1e-9], "name": "a"}
    same_numbers("here", {"seed": 0, "loss": [100.00001, 0.0], "name": "a"}, stored, 1e-6)
    for got in ({"seed": 1}, {"loss": [100.1, 0.0]}, {"loss": [100.0]}, {"name": "b"}, {"more": 1}):
        with pytest.raises(AssertionError):
            same_numbers("here", stored | got, stored, 1e-6)

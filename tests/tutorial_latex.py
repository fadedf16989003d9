"""LaTeX to SymPy, for the formulas of the tutorials: a small language, and an error for all that is not in it.

A formula that is read wrongly without a word is the worst fault here, so whatever has two readings is refused:
`\\log 2 \\pi`, `a / b c`, `f(x)`, `x^12`, `\\frac12`, `x^T`, an index that a sum binds and that also stands outside it.

What is read
    numbers, + -, products by juxtaposition or \\cdot \\times \\odot, a / b, ^, \\frac{}{}, \\sqrt{}, ( ) [ ],
    \\left \\right, \\left| \\right|, \\pi, e^..., \\exp \\log \\ln \\tanh \\sinh \\cosh,
    \\max(a, b), \\min(a, b),
    \\mathrm{sigmoid}(a), \\mathrm{softplus}(a), \\mathrm{relu}(a)
Symbols
    one Latin letter, or a Greek one by its command (\\mu is mu); \\mathrm{kl} is kl; \\hat{m} is m_hat;
    dz, d\\mu (no space) are dz, dmu; \\frac{\\partial L}{\\partial z} is the symbol "dL/dz" (on the side that is read)
    subscripts: \\beta_1 is beta_1; \\mu_j, x_{nd}, x_{i + u, j + v} are indexed: mu[j]; x_{\\mathrm{max}} is x_max
Sums
    \\sum_{j=1}^{J} body, and \\sum_j for the same (an index runs from 1 to its capital letter); \\prod alike.
    The body is the product that follows.
"""

from typing import Any

import sympy
from tutorial_grammar import TOKEN, LatexError, Reader


def equations(latex: str) -> list[list[str]]:
    """The equations of a block, each as the LaTeX of its sides after the first `=` (`parse` reads one).

    Equations stand apart by \\quad, \\qquad or, in an aligned environment, by a row that has a left-hand side of its
    own. A row that begins with `=` goes on with the equation above. A block without `=` is one side.
    """
    text = latex
    for environment in ("aligned", "split"):
        text = text.replace(f"\\begin{{{environment}}}", "").replace(f"\\end{{{environment}}}", "")
    rows: list[list[str]] = [[]]
    for token in _top_level(text):
        if token[0] in ("\\\\", "\\quad", "\\qquad") and token[1] == 0:
            rows.append([])
        else:
            rows[-1].append(token[0])
    found: list[list[str]] = []
    for row in rows:
        line = "".join(row).strip().lstrip("&").strip()
        if not line:
            continue
        sides = _split(line)
        if line.startswith("=") and found:
            found[-1] += sides[1:]
        elif len(sides) == 1 and found and line.lstrip("& ")[:1] in ("+", "-"):
            found[-1][-1] += line.replace("&", " ")
        else:
            found.append(sides[1:] if len(sides) > 1 else sides)
    return found


def parse(latex: str) -> Any:
    """One side of an equation as a SymPy expression."""
    reader = Reader(latex.strip().rstrip(".,;").strip())
    expression = reader.sum()
    if reader.peek() is not None:
        reader.fail(f"{reader.peek()!r} is not expected here")
    bound = {limit[0] for s in expression.atoms(sympy.Sum, sympy.Product) for limit in s.limits}
    if clash := bound & expression.free_symbols:
        reader.fail(f"the index {clash.pop()} is bound by a sum and stands outside it too: write brackets")
    return expression


def _top_level(text: str) -> list[tuple[str, int]]:
    """Every token with the depth of brackets that it stands in."""
    depth, found = 0, []
    for token in TOKEN.findall(text):
        depth -= token in ("}", ")", "]")
        found.append((token, depth))
        depth += token in ("{", "(", "[")
    if depth:
        raise LatexError(f"brackets do not balance in {text!r}")
    return found


def _split(line: str) -> list[str]:
    sides = [""]
    for token, depth in _top_level(line):
        if token == "=" and depth == 0:
            sides.append("")
        else:
            sides[-1] += token
    return sides

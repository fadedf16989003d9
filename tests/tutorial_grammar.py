"""The reader behind `tutorial_latex`, which says what its language is: one method for each rule, and no guesses."""

import re
from typing import Any

import sympy
from tutorial_symbols import (
    ACCENTS,
    CLOSING,
    FRACTIONS,
    FUNCTIONS,
    GREEK,
    NAMED,
    SPACES,
    STARTS,
    TIMES,
    TOKEN,
    LatexError,
    indexed,
    symbol,
)  # fmt: skip


class Reader:
    """Reads the tokens of one expression from left to right."""

    def __init__(self, latex: str) -> None:
        self.latex = latex
        self.tokens = TOKEN.findall(latex)
        self.at = 0

    def fail(self, what: str) -> Any:
        before = "".join(self.tokens[: self.at])
        raise LatexError(f"{what}, after {before!r} in {self.latex!r}")

    def touches(self) -> bool:
        """The next token follows the last one without a space."""
        around = self.tokens[max(self.at - 1, 0) : self.at + 1]
        return self.at < len(self.tokens) and not any(self._space(token) for token in around)

    @staticmethod
    def _space(token: str) -> bool:
        return token.isspace() or token in SPACES

    def peek(self) -> str | None:
        while self.at < len(self.tokens) and self._space(self.tokens[self.at]):
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if token is None or (expected is not None and token != expected):
            return self.fail(f"{expected or 'something'!r} is expected, not {token!r}")
        self.at += 1
        return token

    def sum(self) -> Any:
        total: Any = 0
        sign = 1
        if self.peek() in ("+", "-"):
            sign = -1 if self.take() == "-" else 1
        while True:
            total += sign * self.product()
            if self.peek() not in ("+", "-"):
                return total
            sign = -1 if self.take() == "-" else 1

    def product(self) -> Any:
        value = self.factor()
        number_before = False
        while True:
            token = self.peek()
            if token in TIMES:
                self.take()
                value *= self.factor()
            elif token == "/":
                self.take()
                value /= self.factor()
                if self.starts_factor():
                    self.fail("a / b c has two readings: write \\frac or brackets")
            elif self.starts_factor():
                if token is not None and token[0].isdigit() and (number_before or value.is_number):
                    self.fail("two numbers side by side: write \\cdot")
                number_before = token is not None and token[0].isdigit()
                right = self.factor()
                if token in FRACTIONS and value.is_Integer and right.is_number:
                    self.fail("a mixed number or a product: write \\cdot")
                value *= right
            else:
                return value

    def starts_factor(self) -> bool:
        token = self.peek()
        if token is None:
            return False
        return token.isalnum() or token[0].isdigit() or token in STARTS | {*FUNCTIONS, *ACCENTS} or token[1:] in GREEK

    def factor(self) -> Any:
        """One factor with its power."""
        token = self.peek()
        if token == "e":
            self.take()
            if self.peek() != "^":
                self.fail("e stands only in e^...")
            self.take()
            return sympy.exp(self.script())
        if token in ("\\sum", "\\prod"):
            return self.big()
        if token in FUNCTIONS:
            self.take()
            return self.call(FUNCTIONS[token], many=token in ("\\max", "\\min"))
        if token == "\\mathrm" and (named := self.named_function()):
            return self.call(named)
        value = self.atom()
        if self.peek() == "^":
            self.take()
            value = value ** self.script(power=True)
            if self.peek() == "^":
                self.fail("a power of a power: write brackets")
        return value

    def call(self, function: Any, many: bool = False) -> Any:
        power = None
        if self.peek() == "^":
            self.take()
            power = self.script()
            if not (power.is_integer and power > 0):
                self.fail("a power of a function is a positive whole number")
        if self.peek() in ("(", "[") or (self.peek() == "\\left" and self.tokens[self.at + 1 :][:1] != ["|"]):
            value = function(*self.arguments()) if many else function(self.atom())
            if self.peek() in ("^", "_"):
                self.fail("a power after a function's brackets has two readings")
        elif many:
            return self.fail("brackets are expected")
        else:
            value = function(self.factor())
            if self.starts_factor() or self.peek() in TIMES | {"/"}:
                self.fail("an argument without brackets is one factor: write brackets")
        return value if power is None else value**power

    def arguments(self) -> list[Any]:
        left = self.peek() == "\\left"
        if left:
            self.take()
        opening = self.take()
        closing = CLOSING.get(opening) or self.fail(f"{opening!r} is not a bracket")
        values = [self.sum()]
        while self.peek() == ",":
            self.take()
            values.append(self.sum())
        if left:
            self.take("\\right")
        self.take(closing)
        return values

    def named_function(self) -> Any:
        match = re.match(r"\\mathrm\s*\{([A-Za-z]+)\}", "".join(self.tokens[self.at :]))
        if match is None or match[1] not in NAMED:
            return None
        while self.take() != "}":
            pass
        return NAMED[match[1]]

    def big(self) -> Any:
        """A sum or product with its index and body."""
        kind: Any = sympy.Sum if self.take() == "\\sum" else sympy.Product
        self.take("_")
        braces = self.peek() == "{"
        if braces:
            self.take()
        index = self.take()
        if not re.fullmatch("[a-z]", index):
            self.fail("the index of a sum is one small letter")
        low, high = sympy.Integer(1), symbol(index.upper())
        if braces:
            if self.peek() == "=":
                self.take()
                low = self.sum()
                self.take("}")
                self.take("^")
                high = self.script()
            else:
                self.take("}")
        body = self.product()
        if symbol(index) not in body.free_symbols:
            self.fail(f"the index {index} does not occur in what is summed")
        return kind(body, (symbol(index), low, high))

    def script(self, power: bool = False) -> Any:
        """What stands after ^: one token, or a group."""
        if self.peek() == "{":
            value = self.group()
        else:
            token = self.take()
            self.at -= 1
            if len(token) > 1 and token[0].isdigit():
                self.fail("an exponent of several digits needs braces")
            value = self.atom(scripts=False)
        if power and value in (symbol("T"), symbol("top")):
            self.fail("a transpose is not read: write the sum over indices")
        return value

    def group(self) -> Any:
        self.take("{")
        value = self.sum()
        self.take("}")
        return value

    def atom(self, scripts: bool = True) -> Any:
        token = self.take()
        if re.fullmatch(r"\d+(\.\d+)?", token):
            return sympy.Rational(token)
        if token in FRACTIONS:
            if self.peek() != "{":
                self.fail("\\frac needs braces")
            return self.fraction()
        if token == "\\sqrt":
            return sympy.sqrt(self.group())
        if token == "\\pi":
            return sympy.pi
        if token == "{":
            self.at -= 1
            return self.group()
        if token == "\\left":
            opening = self.take()
            if opening not in CLOSING:
                self.fail(f"\\left{opening} is not known")
            value = self.sum()
            self.take("\\right")
            self.take(CLOSING[opening])
            return sympy.Abs(value) if opening == "|" else value
        if token in ("(", "["):
            value = self.sum()
            self.take(CLOSING[token])
            return value
        self.at -= 1
        name = self.name()
        may_be_function = token == "\\mathrm" or name in ("sigma", "E")  # but dh (1 - y) is a product
        value = self.subscripted(name) if scripts and self.peek() == "_" else symbol(name)
        if scripts and self.peek() in ("(", "[", "\\left"):
            if may_be_function:
                self.fail(f"{name} (...) could be a function or a product: for a product write \\cdot")
            if self.touches():
                self.fail(f"{name}(...) could be a function or a product: for a product write a space or \\cdot")
        return value

    def fraction(self) -> Any:
        quotient = re.match(r"\{\s*\\partial\b(.*?)\}\s*\{\s*\\partial\b", "".join(self.tokens[self.at :]))
        if quotient is None:
            return self.group() / self.group()
        names = []
        for _ in range(2):
            self.take("{")
            self.take("\\partial")
            names.append(self.subscripted(self.name()))
            self.take("}")
        return symbol(f"d{names[0]}/d{names[1]}")

    def name(self) -> str:
        token = self.take()
        if token == "\\mathrm":
            self.take("{")
            word = ""
            while self.peek() != "}":
                word += self.take()
            self.take("}")
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", word):
                self.fail(f"\\mathrm{{{word}}} is not a name")
            return word
        if token in ACCENTS:
            self.take("{")
            word = self.name()
            self.take("}")
            return f"{word}_{ACCENTS[token]}"
        if token == "d" and self.touches() and re.fullmatch(r"[A-Za-z]|\\[a-z]+", self.tokens[self.at]):
            return "d" + self.name()
        if token == "e":
            self.fail("e stands only in e^...")
        if re.fullmatch("[A-Za-z]", token):
            if self.touches() and re.fullmatch("[A-Za-z]", self.tokens[self.at]):
                self.fail(f"{token}{self.tokens[self.at]} is a name or a product: write \\mathrm{{}} or a space")
            return token
        if token[1:] in GREEK and token.startswith("\\"):
            return token[1:]
        return self.fail(f"{token!r} is not known")

    def subscripted(self, name: str) -> Any:
        """A name with the subscript that may follow it."""
        if self.peek() != "_":
            return symbol(name)
        self.take("_")
        if self.peek() != "{":
            token = self.take()
            if re.fullmatch("[A-Za-z]", token):
                return indexed(name, symbol(token))
            if re.fullmatch("[0-9]", token):
                return symbol(f"{name}_{token}")
            return self.fail(f"the subscript {token!r} needs braces")
        self.take("{")
        if self.peek() == "\\mathrm":
            word = self.name()
            self.take("}")
            return symbol(f"{name}_{word}")
        start, depth = self.at, 0
        while self.peek() != "}" or depth:
            depth += {"{": 1, "}": -1}.get(self.take(), 0)
        inside = [token for token in self.tokens[start : self.at] if not self._space(token)]
        self.take("}")
        if all(re.fullmatch("[A-Za-z0-9]", token) for token in inside):
            parts = [[token] for token in inside]
        else:
            if "," not in inside and len(inside) == 1:
                self.fail(f"{inside[0]} is one index or several: put commas between them")
            parts = [part.split() for part in " ".join(inside).split(",")]
        indices = [self.index(" ".join(part)) for part in parts]
        if all(index.is_Integer for index in indices):
            return symbol("_".join([name, *map(str, indices)]))
        return indexed(name, *indices)

    def index(self, text: str) -> Any:
        if not re.fullmatch(r"[-+]?\s*(\d+ )?(\d+|[a-zA-Z])( [-+] (\d+ )?(\d+|[a-zA-Z]))*", text):
            self.fail(f"the index {text!r} is not a sum of letters and numbers: put commas between indices")
        return Reader(text).sum()

"""Tables whose columns are of different kinds: what each is, how it becomes numbers for a model, and back.

A column's kind is chosen by what it holds (see `kind_of`), and can be said by the user:

    real      any numbers                                one column as it is          Gaussian
    count     whole numbers from 0 on that vary          one column as it is          negative binomial
    binary    two values                                 0 for the first, 1           Bernoulli
    category  words, or a few whole numbers as codes     one-hot, a column for each   categorical
    date      dates                                      days since the first         Gaussian

and, left out by name, with a note:

    constant    one value: nothing to learn
    identifier  all different words or whole numbers: nothing that one row shares with another

A missing cell is NaN (a category's: in all of its columns), which the likelihoods take as not observed.
Nothing here needs pandas: a frame is anything that maps names to columns.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.cells import Cells, cells_of

KINDS = ("real", "count", "binary", "category", "date")
LIKELIHOODS = ("gaussian", "negative-binomial", "bernoulli", "categorical", "gaussian")  # of each kind, in this order
LEFT_OUT = ("constant", "identifier")
FEW_CODES = 10  # more different whole numbers than that are no codes
SURE_CODES = 4  # so few are always codes: a count that small is told as well by its shares
PER_CODE = 5  # rows that each code must have on average: else any small table of numbers would be one of codes
TAIL = 0.25  # a count's largest value occurs at most so often as the most frequent one: counts thin out, codes need not
STRAY = 4.0  # standard errors: so far below a Poisson's a count's variance does not fall by chance
NO_CHANCE = 5.0  # nats: n different numbers drawn from a range R are all different with probability exp(-n^2 / 2R)
MANY_WORDS = 256  # one-hot columns of one category at most
REPEATED = 2  # rows per word on average; words that are nearly all different are names or free text
NAME_OF_ROWS = re.compile(r"(.*[_ .-])?(?i:id|uuid|guid|index|key|row|nr|no)|.*[a-z]I[dD]|Unnamed: 0")
MIN_IDENTIFIERS = 5  # rows; of fewer, all different says nothing
LOST = 2.0**14  # |mean| / std: float32 has 24 bits, so at most 10 of them, three digits, are left for what varies
BEYOND = float(np.finfo(np.float32).max)
SHOWN = 5  # values of a category in a line


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    name: str
    kind: str
    rows: int  # of the table it was read from
    missing: int  # of these
    low: float = np.nan  # of real, count, date (days)
    high: float = np.nan
    values: tuple[Any, ...] = ()  # of binary and category, in the order of their numbers: texts, whole numbers, bools
    whole: bool = False  # its numbers are whole
    origin: str = ""  # of a date: the first
    why: str = ""  # it was left out, if so

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the numbers that it becomes."""
        return tuple(f"{self.name}={value}" for value in self.values) if self.kind == "category" else (self.name,)

    def range(self) -> str:
        """What it holds, in a few words."""
        if self.values:
            listed = ", ".join(str(value) for value in self.values[:SHOWN])
            return listed + (f", ... ({len(self.values)} values)" if len(self.values) > SHOWN else "")
        if self.origin:
            return f"{self.origin} and {self.high:g} days on"
        return self.why if np.isnan(self.low) else f"{self.low:.6g} to {self.high:.6g}"


@dataclass(frozen=True)
class Table:
    """The columns that become numbers, in the table's order; those that are left out; what a user must know of them."""

    columns: tuple[Column, ...]
    left_out: tuple[Column, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def read(cls, frame: Mapping[str, Any] | Any, kinds: Mapping[str, str] | None = None, what: str = "the table"
             ) -> "Table":  # fmt: skip
        """The kinds of a frame's columns: as `kinds` says, else by what they hold.

        frame  a pandas DataFrame, or a dict of columns
        Raises DataError for a kind that there is not, or that a column cannot have, and if no column is left.
        """
        kinds = dict(kinds or {})
        names = [str(name) for name, _ in frame.items()]
        check_names(what, names, kinds)
        for name, kind in kinds.items():
            if kind not in (*KINDS, *LEFT_OUT):
                raise DataError(f"{what}: column {name} cannot be {kind!r}; kinds are {', '.join((*KINDS, *LEFT_OUT))}")
        used, left_out, notes = [], [], []
        for name, values in frame.items():
            if kinds.get(str(name)) in LEFT_OUT:  # whatever is in it
                left_out.append(Column(str(name), kinds[str(name)], len(values), 0, why="as it was said"))
                continue
            cells = cells_of(values, f"{what}: column {name}")
            column = _column(what, str(name), cells, kinds.get(str(name)))
            (used if column.kind in KINDS else left_out).append(column)
            notes += [f"{what}: column {name}: {line}" for line in (*cells.notes, *_numbers_notes(column, cells))]
        if not used:
            reasons = "; ".join(f"{c.name}: {c.why}" for c in left_out[:SHOWN])
            raise DataError(
                f"{what}: has no column to learn from ({reasons}); a kind can be said: kinds={{NAME: KIND}}"
            )
        for kind in LEFT_OUT:
            named = [f"{c.name} ({c.why})" for c in left_out if c.kind == kind]
            if named:
                notes.append(f"{what}: left out as {kind}: {', '.join(named)}")
        missing = [f"{c.name} {c.missing:,}" for c in used if c.missing]
        if missing:
            rows = used[0].rows
            notes.append(f"{what}: cells that are missing, of {rows:,} rows: {', '.join(missing)}")
        return cls(tuple(used), tuple(left_out), tuple(notes))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all numbers, (width,)."""
        return tuple(name for column in self.columns for name in column.names)

    @property
    def width(self) -> int:
        """How many numbers a row becomes."""
        return len(self.names)

    def numbers(self, frame: Mapping[str, Any] | Any, what: str = "the table") -> np.ndarray:
        """(rows, width) float64 of a frame that has these columns, in any order, beside any others.

        Raises DataError if a column is not there, or holds what its kind cannot: a word that is not known, say.
        """
        given = {str(name): values for name, values in frame.items()}
        check_names(what, list(given), [column.name for column in self.columns])
        parts: list[np.ndarray] = []
        for column in self.columns:
            where = f"{what}: column {column.name}"
            parts.append(_numbers(column, cells_of(given[column.name], where), where))
        rows = len(parts[0])
        x = np.empty((rows, self.width))
        at = 0
        for part in parts:
            x[:, at : at + part.shape[1]] = part
            at += part.shape[1]
        return x

    def values(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of the table that these numbers, (rows, width), stand for: what `numbers` took them from.

        Numbers need not be exact: a category is its largest column, a binary column its second value from 1/2 on, and
        what was whole is rounded (a count: not below 0). Missing stays missing: NaN among numbers, None among words.
        """
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.width:
            raise ValueError(f"(rows, {self.width}) numbers are needed, not {x.shape}")
        found: dict[str, np.ndarray] = {}
        at = 0
        for column in self.columns:
            width = len(column.names)
            found[column.name] = _values(column, x[:, at : at + width])
            at += width
        return found

    def likelihood(self) -> str:
        """The text of the likelihood that suits the kinds: runs of neighbours of one kind, each category by itself."""
        suits: dict[str, str] = dict(zip(KINDS, LIKELIHOODS, strict=True))
        runs: list[tuple[str, int]] = []
        for column in self.columns:
            name = suits[column.kind]
            if runs and runs[-1][0] == name and column.kind != "category":
                runs[-1] = (name, runs[-1][1] + 1)
            else:
                runs.append((name, len(column.names)))
        return "mixed:columns=" + "+".join(f"{name}*{count}" for name, count in runs)

    def summary(self) -> list[str]:
        """A line for each column: name, kind, how many cells are missing, what it holds."""
        rows = [("column", "kind", "missing", "holds")]
        for column in (*self.columns, *self.left_out):
            kind = column.kind if column.kind in KINDS else f"({column.kind})"
            rows.append((column.name, kind, f"{column.missing:,}", column.range()))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d}" for a, b, c, d in rows]

    def as_dict(self) -> dict[str, Any]:
        """All that `of_dict` needs, as JSON can hold it."""
        return {"columns": [_as_dict(c) for c in self.columns], "left_out": [_as_dict(c) for c in self.left_out]}

    @classmethod
    def of_dict(cls, stored: Mapping[str, Any]) -> "Table":
        """The table that `as_dict` has told of. Raises ValueError if that is none."""
        try:
            columns, left_out = (tuple(_of_dict(c) for c in stored[key]) for key in ("columns", "left_out"))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"is no table: {error}") from error
        if not columns or any(c.kind not in KINDS for c in columns):
            raise ValueError("is no table: it has no columns, or some of no known kind")
        return cls(columns, left_out)


def check_names(what: str, names: list[str], wanted: Iterable[str]) -> None:
    """Raises DataError if the table has a name twice, or has no column of a name that is wanted."""
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DataError(f"{what}: has two columns with the name {twice[0]!r}; give each its own")
    known = set(names)
    for name in wanted:
        if name not in known:
            listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise DataError(f"{what}: has no column {name!r}; its columns are {listed}")


# ------------------------------------------------------------------------------------------------- which kind it is


def kind_of(cells: Cells, name: str = "") -> tuple[str, str]:
    """A column's kind by what it holds, and why it is left out, if so.

    One value, or none:                                                   constant
    Two, of any sort:                                                     binary
    Words: more than MANY_WORDS, or fewer than REPEATED rows for each:    identifier (names, free text); else category
    Numbers that are not all whole:                                       real
    All different whole numbers where chance would have repeated some
    (see NO_CHANCE), without a gap, or in a column with such a name:      identifier
    Few whole numbers (FEW_CODES, PER_CODE) that do not look like counts: category
    Whole numbers, none below 0, that vary as counts do (see _narrow):    count
    Any other numbers:                                                    real
    """
    values, often = cells.different()
    n = int(often.sum())
    if len(values) <= 1:
        return "constant", f"always {values[0]}" if len(values) else "nothing in it"
    if len(values) == 2 and (n > 2 or not cells.is_numbers):
        return "binary", ""
    if cells.is_dates:
        return "date", ""
    if not cells.is_numbers:
        if len(values) == n and n >= MIN_IDENTIFIERS:
            return "identifier", "all different"
        if len(values) > MANY_WORDS or (len(values) * REPEATED > n and n >= MIN_IDENTIFIERS):
            return "identifier", f"{len(values):,} different words in {n:,} rows"
        return "category", ""
    if not cells.whole:
        return "real", ""
    low, high = float(values[0]), float(values[-1])
    if len(values) == n and n >= MIN_IDENTIFIERS:
        room = high - low + 1
        if n == room or n * n / (2 * room) > NO_CHANCE or NAME_OF_ROWS.fullmatch(name):
            return "identifier", f"whole numbers from {low:.15g} to {high:.15g}, all different"
    codes = len(values) <= FEW_CODES and len(values) * PER_CODE <= n
    narrow = _narrow(*cells.moments(), n)
    if codes and (len(values) <= SURE_CODES or low < 0 or narrow or not _thins_out(values, often)):
        return "category", ""
    return ("count" if low >= 0 and not narrow else "real"), ""


def _narrow(mean: float, var: float, n: int) -> bool:
    """Whole numbers vary less than a Poisson's, by more than chance: no negative binomial, whose variance is at least
    its mean, fits them. The variance of n Poisson numbers is mean (1 +- sqrt(2 / n + 1 / (n mean))).
    """
    return mean <= 0 or var < mean * (1 - STRAY * np.sqrt((2 + 1 / mean) / n))


def _thins_out(values: np.ndarray, often: np.ndarray) -> bool:
    """As counts do: from 0 or 1 on, rising to a most frequent value and falling to a rare last one."""
    top = int(often.argmax())
    falls = often[-1] <= TAIL * often[top]
    return bool(values[0] <= 1 and falls and top < len(values) / 2 + 1)


def _column(what: str, name: str, cells: Cells, said: str | None) -> Column:
    """The column, of the kind that it looks like or that was said. Raises DataError if it cannot be that."""
    kind, why = kind_of(cells, name)
    if said is not None:
        kind, why = said, ""
        wrong = _impossible(said, cells)
        if wrong:
            raise DataError(f"{what}: column {name} cannot be {said}: {wrong}")
    about: dict[str, Any] = {"name": name, "kind": kind, "rows": len(cells), "missing": cells.missing, "why": why}
    values, _ = cells.different()
    if kind in ("binary", "category"):
        return Column(**about, values=tuple(values.tolist()), whole=cells.whole)
    if kind in LEFT_OUT:
        return Column(**about)
    if cells.is_dates:
        days_alone = cells.dates().astype("M8[D]")
        at_midnight = bool((np.isnat(days_alone) | (days_alone == cells.dates())).all())
        origin = str(values[0].astype("M8[D]") if at_midnight else values[0])
        days = _days(cells, origin)
        return Column(**about, low=0.0, high=float(np.nanmax(days)), whole=at_midnight, origin=origin)
    numbers = cells.numbers()
    return Column(**about, low=float(np.nanmin(numbers)), high=float(np.nanmax(numbers)), whole=cells.whole)


def _impossible(kind: str, cells: Cells) -> str:
    """Why a column cannot be of a kind; "" if it can."""
    values, _ = cells.different()
    if not len(values):
        return "nothing is in it"
    if kind == "binary":
        return "" if len(values) == 2 else f"it has {len(values):,} different values"
    if kind == "category":
        if not cells.is_numbers or cells.whole:
            return ""
        return "its numbers are not whole"
    if (kind == "date") != cells.is_dates:
        return f"it holds {'dates' if cells.is_dates else 'no dates'}, {str(values[0])!r} for one"
    if kind == "date":
        return ""
    if not cells.is_numbers:
        return f"it holds words, {str(values[0])!r} for one"
    if kind == "count" and (not cells.whole or values[0] < 0):
        bad = values[(values < 0) | (values != np.floor(values))][0]
        return f"{bad:g} is no whole number from 0 on"
    return ""


def _numbers_notes(column: Column, cells: Cells) -> list[str]:
    """Numbers that float32 cannot hold, or can hardly tell apart; whole numbers that may be names."""
    if column.kind not in ("real", "count") or not cells.is_numbers:
        return []
    largest = max(-column.low, column.high)
    if largest > BEYOND:
        return [f"reaches {largest:.3g}, beyond float32; divide it, or train with --dtype float64"]
    mean, var = cells.moments()
    notes = []
    if abs(mean) > LOST * np.sqrt(var):
        notes.append(
            f"its numbers are near {mean:.6g} and vary by {np.sqrt(var):.3g}: float32 hardly tells them apart; "
            f"subtract {mean:.6g} first"
        )
    values, often = cells.different()
    if cells.whole and len(values) == often.sum() >= MIN_IDENTIFIERS and column.kind == "count":
        notes.append(
            f"all different whole numbers; if they only name the rows: kinds={{{column.name!r}: 'identifier'}}"
        )
    return notes


# --------------------------------------------------------------------------------------------- numbers, and back


def _numbers(column: Column, cells: Cells, where: str) -> np.ndarray:
    """(rows, width of the column)."""
    if column.values:
        index = _index(column, cells, where)  # (rows,), -1 for missing
        if column.kind == "binary":
            return np.where(index < 0, np.nan, index)[:, None]
        x = np.zeros((len(cells), len(column.values)))
        x[np.arange(len(cells)), index] = 1.0
        x[index < 0] = np.nan
        return x
    if cells.missing == len(cells):
        return np.full((len(cells), 1), np.nan)
    wrong = _impossible(column.kind, cells)
    if wrong:
        raise DataError(f"{where} must be {column.kind}, but {wrong}")
    return (_days(cells, column.origin) if column.origin else cells.numbers())[:, None]


def _index(column: Column, cells: Cells, where: str) -> np.ndarray:
    """Which of the column's values each cell has; -1 where it is missing."""
    places = {value: i for i, value in enumerate(column.values)}
    values, which = cells.coded()  # which of its own values each cell has
    if cells.is_numbers and any(isinstance(v, str) for v in column.values):  # of words, here only numbers
        values = np.array([str(v) for v in values.tolist()], dtype=object)
    unknown = next((v for v in values.tolist() if v not in places), None)
    if unknown is not None:
        raise DataError(f"{where} holds {unknown!r}, which is none of its values: {column.range()}")
    own = np.array([places[v] for v in values.tolist()] + [-1], dtype=np.int64)  # the last: missing
    return own[which]


def _days(cells: Cells, origin: str) -> np.ndarray:
    """Days since the first, with their part; NaN where missing."""
    spans = cells.dates() - np.datetime64(origin, "us")
    return np.where(np.isnat(spans), np.nan, spans.astype(np.int64) / 86_400e6)


def _values(column: Column, x: np.ndarray) -> np.ndarray:
    """(rows,) of x, (rows, width of the column)."""
    missing = np.asarray(np.isnan(x).any(axis=1))  # (rows,)
    if column.values:
        filled = np.where(np.isnan(x), 0, x)
        index = (filled[:, 0] >= 0.5).astype(np.int64) if column.kind == "binary" else filled.argmax(axis=1)
        chosen = np.array(column.values)[index]
        return _with_missing(chosen, missing)
    numbers = x[:, 0]
    if column.whole:
        numbers = np.round(numbers)
    if column.kind == "count":
        numbers = np.maximum(numbers, 0)
    if column.origin:
        days = np.where(missing, 0, numbers)
        dates = np.datetime64(column.origin, "us") + np.round(days * 86_400e3).astype("m8[ms]")
        dates = dates.astype("M8[D]" if column.whole else "M8[us]")
        return np.where(missing, np.datetime64("NaT"), dates)
    whole = column.whole and not missing.any() and np.abs(numbers).max(initial=0) < 2**53
    return numbers.astype(np.int64) if whole else numbers


def _with_missing(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    if not missing.any():
        return values
    if values.dtype.kind in "if":
        return np.where(missing, np.nan, values)
    words = values.astype(object)
    words[missing] = None
    return words


def _as_dict(column: Column) -> dict[str, Any]:
    stored = asdict(column)
    for name in ("low", "high"):
        stored[name] = None if np.isnan(stored[name]) else stored[name]
    return stored | {"values": list(column.values)}


def _of_dict(stored: Mapping[str, Any]) -> Column:
    about = dict(stored)
    for name in ("low", "high"):
        about[name] = np.nan if about[name] is None else about[name]
    return Column(**{**about, "values": tuple(about["values"])})

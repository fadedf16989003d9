"""Tables: the kind of a column by what it holds, numbers from it and it from the numbers."""

import datetime
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS

from tinyvae.errors import DataError
from tinyvae.training.data.cells import cells_of
from tinyvae.training.data.readers import READERS
from tinyvae.training.data.readers.frames import PIXELS
from tinyvae.training.data.table import (
    FEW_CODES,
    KINDS,
    LEFT_OUT,
    LOST,
    MANY_WORDS,
    MIN_IDENTIFIERS,
    PER_CODE,
    REPEATED,
    STRAY,
    SURE_CODES,
    Table,
    kind_of,
)  # fmt: skip


def kind(values: Any, name: str = "a") -> str:
    return kind_of(cells_of(values, name), name)[0]


# ------------------------------------------------------------------------------------------------ which kind it is

RNG = np.random.default_rng(0)
KNOWN: dict[str, tuple[Any, str]] = {
    "heights": (RNG.normal(170, 10, 300), "real"),
    "rounded heights": (RNG.normal(170, 10, 300).round(), "real"),  # vary less than any count of that mean
    "ratings": (RNG.choice([0.5, 1.0, 1.5], 300), "real"),
    "temperatures": (RNG.integers(-20, 30, 300), "real"),
    "years": (RNG.integers(1950, 2020, 300), "real"),
    "visits": (RNG.poisson(6, 300), "count"),
    "children": (RNG.poisson(1.5, 300), "count"),
    "ages": (RNG.integers(18, 80, 300), "count"),
    "citations": (RNG.negative_binomial(1, 0.02, 300), "count"),
    "counts with gaps, as floats": (np.where(RNG.random(300) < 0.1, np.nan, RNG.poisson(6, 300)), "count"),
    "classes": (RNG.integers(1, 4, 300), "category"),
    "ten digits": (RNG.integers(0, 10, 300), "category"),
    "qualities": (np.clip(RNG.normal(5.6, 0.8, 300).round(), 3, 8).astype(int), "category"),
    "signs": (RNG.integers(-1, 2, 300), "category"),
    "words": (RNG.choice(["red", "green", "blue"], 300), "category"),
    "coin": (RNG.integers(0, 2, 300), "binary"),
    "1 and 2": (RNG.integers(1, 3, 300), "binary"),
    "bools": (RNG.random(300) < 0.5, "binary"),
    "yes and no": (RNG.choice(["yes", "no"], 300), "binary"),
    "yes, no and nothing": (RNG.choice(np.array(["yes", "no", None]), 300), "binary"),
    "seven": (np.full(300, 7.0), "constant"),
    "seven or nothing": (np.where(RNG.random(300) < 0.5, np.nan, 7.0), "constant"),
    "nothing": (np.full(300, np.nan), "constant"),
    "one word": (["a"] * 300, "constant"),
    "row numbers": (np.arange(300), "identifier"),
    "row numbers, mixed": (RNG.permutation(300) + 1000, "identifier"),
    "numbers with gaps": (RNG.choice(5000, 300, replace=False), "identifier"),
    "names": ([f"n{i}" for i in range(300)], "identifier"),
    "free text": ([f"n{i - i % 3 // 2}" for i in range(300)], "identifier"),
    "dates": (np.datetime64("2020-01-01") + RNG.integers(0, 900, 300), "date"),
    "dates written out": (np.datetime_as_string(np.datetime64("2020-01-01") + RNG.integers(0, 900, 300)), "date"),
    "times written out": ([f"2020-01-01 10:{i % 60:02}" for i in range(300)], "date"),
    "numbers written out": ([f"{x:.3f}" for x in RNG.normal(size=300)], "real"),
    "numbers and marks": ([f"{x:.3f}" if i % 9 else "?" for i, x in enumerate(RNG.normal(size=300))], "real"),
    "pandas' category": (pd.Series(RNG.choice(["a", "b", "c"], 300), dtype="category"), "category"),
    "pandas' whole numbers": (pd.Series(RNG.poisson(6, 300), dtype="Int64").where(RNG.random(300) < 0.9), "count"),
    "pandas' bools": (pd.Series(RNG.random(300) < 0.5, dtype="boolean").where(RNG.random(300) < 0.9), "binary"),
    "dates somewhere": (pd.Series(pd.date_range("2020-01-01", periods=300, tz="Europe/Paris")), "date"),
    "spans": (pd.Series(pd.to_timedelta(RNG.normal(size=300), unit="D")), "real"),
}  # fmt: skip


@pytest.mark.parametrize("case", KNOWN)
def test_a_column_is_of_the_kind_that_it_looks_like(case: str) -> None:
    values, right = KNOWN[case]
    assert kind(values) == right


@given(seed=SEEDS, case=st.sampled_from(sorted(KNOWN)))
def test_the_kind_does_not_depend_on_the_order_of_the_rows(seed: int, case: str) -> None:
    values, right = KNOWN[case]
    values = pd.Series(values).sample(frac=1, random_state=seed)
    assert kind(values) == right


def test_the_name_decides_only_between_whole_numbers_that_are_all_different() -> None:
    far = RNG.integers(0, 10**9, 300)
    assert len(set(far.tolist())) == 300
    for name in ("id", "ID", "customer_id", "userId", "order no", "index", "Unnamed: 0", "uuid"):
        assert kind(far, name) == "identifier", name
        assert kind(far % 7, name) == "category", name
    for name in ("population", "paid", "lipid", "humid", "a"):
        assert kind(far, name) == "count", name
    (note,) = Table.read({"population": far}).notes
    assert "if they only name the rows: kinds={'population': 'identifier'}" in note


@given(codes=st.integers(3, FEW_CODES), each=st.integers(1, 3 * PER_CODE), low=st.integers(-2, 5))
def test_codes_are_few_and_each_occurs_often(codes: int, each: int, low: int) -> None:
    """Codes that are evenly spread never thin out as counts do."""
    values = np.repeat(np.arange(low, low + codes), each)
    expected = each >= PER_CODE
    if each > 1 or codes < MIN_IDENTIFIERS:
        assert (kind(values) == "category") == expected


@given(codes=st.integers(3, SURE_CODES), seed=SEEDS)
def test_so_few_whole_numbers_are_codes_whatever_their_shares(codes: int, seed: int) -> None:
    shares = np.random.default_rng(seed).dirichlet(np.ones(codes))
    often = np.maximum(1, (200 * shares).astype(int))
    assert kind(np.repeat(np.arange(codes), often)) == "category"


@given(seed=SEEDS, mean=st.floats(5, 200), rows=st.integers(100, 400))
def test_poisson_numbers_are_counts_and_numbers_much_narrower_are_not(seed: int, mean: float, rows: int) -> None:
    """By chance a variance is 4 standard errors too small once in 30,000 draws."""
    rng = np.random.default_rng(seed)
    assert kind(rng.poisson(mean, rows)) in ("count", "category")  # few different ones, for a small mean
    assert kind(rng.poisson(mean + 10, rows)) == "count"
    assert kind(10_000 + rng.poisson(mean + 10, rows)) == "real"


def test_the_page_names_the_thresholds() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    for words in (f"{REPEATED} rows for each at least, {MANY_WORDS} at most", f"A table of {PIXELS} columns",
                  f"up to {FEW_CODES} whole numbers, {PER_CODE} rows", f"Up to {SURE_CODES} whole numbers",
                  f"more than {STRAY:g} standard errors"):  # fmt: skip
        assert words in page, words
    assert all(f"| `{kind}` |" in page for kind in (*KINDS, *LEFT_OUT))
    assert all(f"`{ending}`" in page for ending in READERS if not ending.endswith(".gz"))


def test_words_beyond_what_one_hot_columns_should_be() -> None:
    for words, right in [(MANY_WORDS, "category"), (MANY_WORDS + 1, "identifier")]:
        assert kind([f"w{i}" for i in range(words)] * 3) == right


# ------------------------------------------------------------------------------------------------ numbers, and back

WORDS = st.text(st.characters(categories=("L", "N", "P", "Zs")), min_size=1, max_size=6)
CELLS = {
    "real": st.floats(-1e30, 1e30, allow_subnormal=False),
    "count": st.integers(0, 2**40),
    "binary": st.sampled_from(["no", "yes"]),
    "category": st.sampled_from(["red", "green", "blue", "?"]),
    "date": st.datetimes(datetime.datetime(1800, 1, 1), datetime.datetime(2200, 1, 1)).map(
        lambda t: np.datetime64(t.replace(microsecond=t.microsecond // 1000 * 1000))
    ),
}


@st.composite
def frames(draw: st.DrawFn) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Columns of kinds that are said, with gaps."""
    rows = draw(st.integers(3, 12))
    columns, kinds = {}, {}
    for i, kind in enumerate(draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))):
        values = draw(st.lists(CELLS[kind], min_size=rows, max_size=rows))
        if kind == "binary":
            values[:2] = ["no", "yes"]
        gaps = draw(st.lists(st.booleans(), min_size=rows - 2, max_size=rows - 2))
        values = [*values[:2], *(None if gap else v for v, gap in zip(values[2:], gaps, strict=True))]
        columns[f"{kind} {i}"], kinds[f"{kind} {i}"] = values, kind
    return columns, kinds


def same(a: Any, b: Any) -> bool:
    """Both missing, or equal."""
    missing = [x is None or (not isinstance(x, str) and x != x) for x in (a, b)]
    return missing[0] == missing[1] and (missing[0] or a == b)


@given(frames(), st.booleans())
def test_numbers_of_a_table_and_back_again(made: tuple[dict[str, list[Any]], dict[str, str]], pandas: bool) -> None:
    columns, kinds = made
    frame = pd.DataFrame(columns) if pandas else columns
    table = Table.read(frame, kinds)
    x = table.numbers(frame)
    rows = len(next(iter(columns.values())))
    assert x.shape == (rows, table.width) == (rows, len(table.names))
    assert [column.kind for column in table.columns] == list(kinds.values())
    back = table.values(x)
    assert list(back) == list(columns)
    for name, values in columns.items():
        assert all(same(a, b) for a, b in zip(values, back[name], strict=True)), name
    assert np.array_equal(table.numbers(back), x, equal_nan=True)
    at = 0
    for column in table.columns:
        part = x[:, at : at + len(column.names)]
        at += len(column.names)
        missing = np.array([v is None for v in columns[column.name]])
        assert np.array_equal(np.isnan(part).all(axis=1), missing)
        assert np.array_equal(np.isnan(part).any(axis=1), missing)
        if column.kind == "category":
            assert (part[~missing].sum(axis=1) == 1).all()
            assert np.isin(part[~missing], [0, 1]).all()
    stored = json.loads(json.dumps(table.as_dict()))
    assert Table.of_dict(stored).as_dict() == table.as_dict()
    assert np.array_equal(Table.of_dict(stored).numbers(frame), x, equal_nan=True)


def test_numbers_that_a_model_says_become_the_tables_own_values() -> None:
    columns = {
        "sex": ["m", "f"] * 20,
        "kids": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 4,
        "tea": ["a", "b", "c", "a"] * 10,
        "day": ["2024-02-28", "2024-03-01"] * 20,
        "size": np.linspace(0, 1, 40),
        "grade": [1, 2, 3, 3] * 10,
    }
    table = Table.read(columns, {"kids": "count", "day": "date"})
    assert table.names == ("sex", "kids", "tea=a", "tea=b", "tea=c", "day", "size", "grade=1", "grade=2", "grade=3")
    said = table.values(
        np.array([[0.51, 2.4, 0.2, 0.5, 0.3, 0.9, -0.25, 0.1, 0.1, 0.8], [0.49, -0.7, 1, 0, 0, 2, 7, 1, 0, 0]])
    )
    assert {name: values.tolist() for name, values in said.items()} == {
        "sex": ["m", "f"], "kids": [2, 0], "tea": ["b", "a"],
        "day": [datetime.date(2024, 2, 29), datetime.date(2024, 3, 1)], "size": [-0.25, 7], "grade": [3, 1],
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"\(rows, 10\) numbers are needed, not \(1, 9\)"):
        table.values(np.zeros((1, 9)))


def test_the_likelihood_says_each_kind_in_the_order_of_the_columns() -> None:
    rows = np.arange(40)
    columns = {"a": rows / 7, "b": rows / 9, "c": ["x", "y"] * 20, "d": list("pqrs") * 10,
               "e": [*list("uvw") * 13, "u"], "f": rows % 11, "g": rows % 13, "h": rows % 12,
               "i": np.datetime64("2020-01-01") + rows, "j": rows / 3, "k": [True, False] * 20}  # fmt: skip
    table = Table.read(columns, {"f": "count", "g": "count", "h": "count"})
    text = "gaussian*2+bernoulli*1+categorical*4+categorical*3+negative-binomial*3+gaussian*2+bernoulli*1"
    assert table.likelihood() == f"mixed:columns={text}"


@given(frames())
def test_the_likelihood_has_as_many_columns_as_the_numbers(made: tuple[dict[str, list[Any]], dict[str, str]]) -> None:
    table = Table.read(*made)
    terms = table.likelihood().removeprefix("mixed:columns=").split("+")
    assert sum(int(term.partition("*")[2]) for term in terms) == table.width
    ones = [term.partition("*")[0] for term in terms if not term.startswith("categorical")]
    neighbours = itertools.pairwise(terms)
    assert all(a.partition("*")[0] != b.partition("*")[0] or a.startswith("categorical") for a, b in neighbours)
    assert set(ones) <= {"gaussian", "negative-binomial", "bernoulli"}


# ----------------------------------------------------------------------------------------------- what is said of it


def test_what_is_left_out_missing_or_badly_scaled_is_said() -> None:
    n = 200
    frame = pd.DataFrame({
        "id": np.arange(n), "always": 3, "name": [f"n{i}" for i in range(n)], "far": 1e7 + RNG.normal(size=n),
        "huge": 1e200 * RNG.normal(size=n), "size": np.where(np.arange(n) < 5, np.nan, RNG.normal(size=n)),
        "horsepower": ["?" if i < 3 else str(i % 90 + 0.5) for i in range(n)],
    })  # fmt: skip
    table = Table.read(frame)
    assert [c.name for c in table.columns] == ["far", "huge", "size", "horsepower"]
    notes = "\n".join(table.notes)
    for words in (
        "left out as identifier: id (whole numbers from 0 to 199, all different), name (all different)",
        "left out as constant: always (always 3)",
        "column far: its numbers are near 1e+07 and vary by 0.9",
        "column huge: reaches ", "e+200, beyond float32",
        "column horsepower: 3 cells with '?' among numbers are taken as missing",
        "cells that are missing, of 200 rows: size 5, horsepower 3",
    ):  # fmt: skip
        assert words in notes, words
    lines = table.summary()
    assert len(lines) == 1 + len(frame.columns)
    assert [line.split()[:3] for line in lines[1:3]] == [["far", "real", "0"], ["huge", "real", "0"]]
    assert any(line.split()[:2] == ["id", "(identifier)"] for line in lines)


@given(ratio=st.floats(1e2, 1e9), unit=st.floats(1e-3, 1e3))
def test_what_float32_hardly_tells_apart_is_what_it_rounds_to_few_values(ratio: float, unit: float) -> None:
    """Numbers of standard deviation s near m: float32's step at m is 2^-23 m at most, so s has s / m 2^23 steps."""
    x = unit * (ratio + np.random.default_rng(0).standard_normal(400))
    noted = any("float32 hardly" in note for note in Table.read({"a": x}).notes)
    mean, std = x.mean(), x.std()
    assert noted == (mean > LOST * std)
    rounding = np.abs(x.astype(np.float32) - x).max() / std
    if not noted:
        assert rounding < LOST * 2.0**-24
    elif ratio > 8 * LOST:
        assert rounding > 2.0**-11


def test_kinds_can_be_said_and_what_cannot_be_is_refused() -> None:
    columns = {"age": [20, 30, 41, 52] * 10, "name": [f"n{i}" for i in range(40)], "half": [0.5, 1.5] * 20,
               "below": [-1, 0, 1, 5] * 10}  # fmt: skip
    assert [c.kind for c in Table.read(columns, {"age": "real", "half": "real"}).columns] == [
        "real",
        "real",
        "category",
    ]
    assert Table.read(columns, {"name": "category"}).width == 4 + 40 + 1 + 4
    assert [c.name for c in Table.read(columns, {"age": "identifier"}).left_out] == ["age", "name"]
    for kinds, words in [
        ({"age": "ages"}, "column age cannot be 'ages'; kinds are real, count, binary, category, date, constant"),
        ({"weight": "real"}, "has no column 'weight'; its columns are age, name, half, below"),
        ({"name": "real"}, "column name cannot be real: it holds words, 'n0' for one"),
        ({"age": "binary"}, "column age cannot be binary: it has 4 different values"),
        ({"below": "count"}, "column below cannot be count: -1 is no whole number from 0 on"),
        ({"half": "count"}, "column half cannot be count: 0.5 is no whole number from 0 on"),
        ({"half": "category"}, "column half cannot be category: its numbers are not whole"),
        ({"age": "date"}, "column age cannot be date: it holds no dates"),
    ]:
        with pytest.raises(DataError) as caught:
            Table.read(columns, kinds)
        assert words in str(caught.value)
    with pytest.raises(DataError, match=r"has no column to learn from \(name: all different\)"):
        Table.read({"name": columns["name"]})


def test_rows_of_another_file_are_read_as_the_table_says() -> None:
    columns = {"size": np.linspace(0, 1, 40), "tea": ["a", "b", "c", "a"] * 10, "ok": [True, False] * 20}
    with pytest.raises(DataError, match="column n must be count, but -1 is no whole number from 0 on"):
        Table.read({"n": list(range(20)) * 2}).numbers({"n": [3, -1]})
    table = Table.read(columns)
    other = {"ok": [True, None], "more": [1, 2], "tea": ["c", "c"], "size": [None, 9.0]}
    assert np.array_equal(table.numbers(other), [[np.nan, 0, 0, 1, 1], [9, 0, 0, 1, np.nan]], equal_nan=True)
    for wrong, words in [
        ({"tea": ["c", "d"]}, "column tea holds 'd', which is none of its values: a, b, c"),
        ({"size": ["small", "large"]}, "column size must be real, but it holds words"),
        ({"size": [np.inf, 1.0]}, "column size holds infinite values .1 of 2 rows, the first is row 0."),
        ({"ok": ["yes", "no"]}, "column ok holds 'no', which is none of its values: False, True"),
        ({"tea": [["c"], ["a"]]}, "column tea holds list in its cells"),
    ]:
        with pytest.raises(DataError, match=words):
            table.numbers(other | wrong)
    with pytest.raises(DataError, match="has no column 'size'; its columns are ok, tea"):
        table.numbers({"ok": [True], "tea": ["a"]})


def test_words_that_look_like_numbers_stay_words() -> None:
    table = Table.read({"size": ["1", "2", "XL", "1"] * 10})
    assert np.array_equal(table.numbers({"size": ["2", "1"]}), [[0, 1, 0], [1, 0, 0]])
    assert np.array_equal(table.numbers({"size": np.array([2, 1])}), [[0, 1, 0], [1, 0, 0]])


def test_what_is_stored_and_is_no_table_is_refused() -> None:
    good = Table.read({"size": np.linspace(0, 1, 40)}).as_dict()
    column = good["columns"][0]
    for bad in ({}, {"columns": []}, {"columns": 3, "left_out": []}, {"columns": [], "left_out": []},
                {"columns": [column | {"kind": "odd"}], "left_out": []},
                {"columns": [column | {"b": 1}], "left_out": []},
                {"columns": [{"name": "a"}], "left_out": []}):  # fmt: skip
        with pytest.raises(ValueError, match="is no table"):
            Table.of_dict(bad)


# ------------------------------------------------------------------------------------------------------- cells


@given(st.lists(st.one_of(st.none(), WORDS), min_size=1, max_size=8))
def test_words_are_words_whatever_they_are_made_of(words: list[str | None]) -> None:
    cells = cells_of(words, "a")
    if cells.is_numbers or cells.is_dates:
        return
    values, which = cells.coded()
    assert [None if i < 0 else values[i] for i in which] == words
    assert cells.missing == words.count(None)


def test_numbers_of_every_library_are_numbers() -> None:
    import decimal
    import fractions

    for values in (
        [1, 2.5, None], [decimal.Decimal(1), decimal.Decimal("2.5"), decimal.Decimal("nan")],
        [fractions.Fraction(1), fractions.Fraction(5, 2), None], ["1", "2.5", "NA"], ["1", "2.5", ""],
        [np.float32(1), np.float32(2.5), np.float32("nan")], pd.Series([1, 2.5, None], dtype="Float64"),
        pd.Series([1, 2.5, None], dtype="float64[pyarrow]"), pd.array(["1", "2.5", None]),
    ):  # fmt: skip
        cells = cells_of(values, "a")
        assert np.array_equal(cells.numbers(), [1, 2.5, np.nan], equal_nan=True), values
        assert cells.missing == 1


def test_dates_that_cannot_be_are_words() -> None:
    assert not cells_of(["2023-02-31", "2023-02-01"], "a").is_dates
    assert cells_of(["2023-02-28", None, "2023-02-01"], "a").is_dates

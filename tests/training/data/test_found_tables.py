"""Tables in files: .csv, .tsv, .data, .parquet, and lines of numbers, as `find` hands them over."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS

from tinyvae.errors import DataError
from tinyvae.training.data.found import find
from tinyvae.training.data.readers import text
from tinyvae.training.data.table import Table


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def people(seed: int = 0, n: int = 120) -> pd.DataFrame:
    """Columns of every kind, with gaps, and with all that must be quoted in a text."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({
        "id": np.arange(n), "sex": rng.choice(["male", "female"], n), "age": rng.integers(18, 80, n).astype(float),
        "height, cm": rng.normal(170, 10, n), "visits": rng.poisson(6, n), "grade": rng.integers(1, 4, n),
        "smokes": rng.random(n) < 0.3, 'the "town"': rng.choice(['a, "b"', "two\nlines", "Köln", "x;y\t|"], n),
        "since": (np.datetime64("2020-01-01") + rng.integers(0, 900, n)).astype(str), "planet": "Earth",
    })  # fmt: skip
    frame.loc[3, "age"] = np.nan
    frame.loc[[4, 7], 'the "town"'] = None
    return frame


def written(frame: pd.DataFrame, name: str) -> Path:
    path = Path(name)
    if ".parquet" in name.lower() or ".pq" in name:
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    return path


NAMES = ("own.csv", "own.v2.csv", "own.CSV", "own.csv.gz", "own.tsv", "own.tsv.gz", "own.parquet", "own.pq")


@pytest.mark.parametrize("name", NAMES)
def test_every_format_of_a_table_gives_the_same_numbers(name: str) -> None:
    frame = people()
    found = find(written(frame, name))
    table = found.table
    assert table is not None
    direct = Table.read(frame)
    assert table == direct
    assert found.name == ("own.v2" if "v2" in name else "own")
    assert found.columns == table.names
    assert [c.name for c in table.left_out] == ["id", "planet"]
    assert np.array_equal(found.train.x, direct.numbers(frame), equal_nan=True)
    back = table.values(found.train.x)
    for column, values in back.items():
        for a, b in zip(values, frame[column], strict=True):
            assert (pd.isna(a) and pd.isna(b)) or a == b or str(a) == b, column
    assert any("left out as constant: planet (always Earth)" in note for note in found.notes)


@given(seed=SEEDS)
def test_numbers_survive_the_text_to_the_last_digit(seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((8, 3)) * 10.0 ** np.random.default_rng(seed).integers(-30, 30, 3)
    frame = pd.DataFrame(x, columns=list("abc"))
    assert np.array_equal(find(written(frame, "own.csv")).train.x, x)


# ------------------------------------------------------------------------------------------- labels and conditions


def test_a_column_can_be_the_label_and_others_conditions() -> None:
    frame = people()
    path = written(frame, "own.csv")
    frame["age"] = frame["age"].fillna(40)
    path = written(frame, "own.csv")
    found = find(path, label="sex", condition=("age", "grade"), kinds={"visits": "real"})
    assert found.table is not None
    assert found.condition is not None
    assert found.train.y is not None
    assert found.train.y.tolist() == frame["sex"].tolist()
    assert found.condition.names == ("age", "grade=1", "grade=2", "grade=3")
    assert found.train.c is not None
    assert np.array_equal(found.train.c[:, 0], frame["age"])
    assert np.array_equal(found.train.c[:, 1:].argmax(axis=1) + 1, frame["grade"])
    names = [column.name for column in found.table.columns]
    assert names == ["height, cm", "visits", "smokes", 'the "town"', "since"]
    assert found.table.columns[1].kind == "real"
    again = find(written(frame.head(9), "few.csv"), label="sex", condition=("age", "grade"), table=found.table,
                 condition_table=found.condition)  # fmt: skip
    assert np.array_equal(again.train.x, found.train.x[:9], equal_nan=True)
    assert again.train.c is not None
    assert np.array_equal(again.train.c, found.train.c[:9])


def test_labels_come_as_they_are_and_say_why_they_do_not() -> None:
    frame = people()
    path = written(frame, "own.csv")
    for label, kind in [("grade", "i"), ("smokes", "b"), ("sex", "U")]:
        y = find(path, label=label).train.y
        assert y is not None
        assert y.dtype.kind == kind
        assert y.tolist() == frame[label].tolist()
    for label, words in [('the "town"', "has no label in 2 of 120 rows, the first is row 4"), ("since", "holds dates"),
                         ("height, cm", "120 different numbers in 120 rows: those are measurements")]:  # fmt: skip
        part = find(path, label=label).train
        assert part.y is None
        assert words in part.label_problem


@pytest.mark.parametrize(("how", "words"), [
    ({"label": "nope"}, "has no column 'nope'; its columns are id, sex"),
    ({"condition": ("nope",)}, "has no column 'nope'"),
    ({"label": "sex", "condition": ("sex",)}, "cannot be two of label and conditions: sex, sex"),
    ({"condition": ("age",)}, "column age is a condition, but 1 of 120 rows have nothing there"),
    ({"condition": ("planet",)}, r"column planet cannot be a condition .always Earth."),
    ({"kinds": {"sex": "real"}}, "column sex cannot be real: it holds words"),
    ({"kinds": {"nope": "real"}}, "has no column 'nope'"),
    ({"label": "sex", "kinds": {"sex": "binary"}}, "column sex is the label; it has no kind"),
])  # fmt: skip
def test_what_is_asked_of_columns_that_cannot_be_is_one_line(how: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        find(written(people(), "own.csv"), **how)


def test_an_array_has_no_columns_to_choose_from() -> None:
    np.save("own.npy", np.zeros((20, 3)))
    np.savetxt("own.txt", np.zeros((20, 3)))
    for path in ("own.npy", "own.txt"):
        with pytest.raises(DataError, match=r"no names|no columns with names"):
            find(Path(path), label="a")


# ------------------------------------------------------------------------------------------------- ways to write it

NUMBERS = "5.1,3.5,1,red\n4.9,3.0,2,blue\n6.1,2.8,3,red\n7.5,2.0,5,green\n5.5,2.5,2,green\n5.2,2.9,7,blue\n"
TEXTS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "with names": ("size,width,n,tea\n" + NUMBERS, ("size", "width", "n", "tea"), 6),
    "without names": (NUMBERS, ("0", "1", "2", "3"), 6),
    "without names, Adult": ("39,State-gov,77516\n50,Private,83311\n38,Private,215646\n53,State-gov,234721\n" * 2,
                             ("0", "1", "2"), 8),
    "years as names": ("country,2019,2020\nA,1.5,2.5\nB,2.5,3.5\nA,7.5,3.0\nB,2.1,3.1\n",
                       ("country", "2019", "2020"), 4),
    "numbers as pandas names them": ("0,1\n1.5,2.5\n2.5,3.5\n7.5,3.0\n", ("0", "1"), 3),
    "a mark in front": ("\ufeffsize,width\n1.5,2.5\n2.5,3.5\n7.5,3.0\n", ("size", "width"), 3),
    "Windows": ("size,width\r\n1.5,2.5\r\n2.5,3.5\r\n7.5,3.0\r\n", ("size", "width"), 3),
    "an empty line": ("size,width\n1.5,2.5\n\n2.5,3.5\n7.5,3.0\n\n", ("size", "width"), 3),
    "spaces": ("size, width\n1.5, 2.5\n2.5, 3.5\n7.5, 3.0\n", ("size", "width"), 3),
    "semicolons": ("size;width\n1.5;2.5\n2.5;3.5\n7.5;3.0\n", ("size", "width"), 3),
    "semicolons and commas": ("size;width\n1,5;2,5\n2,5;3,5\n7,5;3\n", ("size", "width"), 3),
    "bars": ("size|width\n1.5|2.5\n2.5|3.5\n7.5|3.0\n", ("size", "width"), 3),
    "a # in front, as numpy.savetxt writes it": ("# size,width\n1.5,2.5\n2.5,3.5\n7.5,3.0\n", ("size", "width"), 3),
    "a name twice": ("size,size\n1.5,2.5\n2.5,3.5\n7.5,3.0\n", ("size", "size.1"), 3),
    "no names, a number twice": ("a,5,5\nb,6,7\nb,6,8\nc,9,9\n", ("0", "1", "2"), 4),
    "one column": ("size\n1.5\n2.5\n7.5\n", ("size",), 3),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_tables_are_read_as_people_write_them(case: str) -> None:
    content, names, rows = TEXTS[case]
    Path("own.csv").write_text(content, newline="")
    found = find(Path("own.csv"))
    assert found.table is not None
    assert {c.name for c in (*found.table.columns, *found.table.left_out)} == set(names)
    assert len(found.train.x) == rows
    unnamed = "without" in case or "no names" in case
    assert any("its first line has no names" in note for note in found.notes) == unnamed
    if "size" in names and rows == 3:
        assert found.train.x[:, 0].tolist() == [1.5, 2.5, 7.5]


def test_pixels_in_columns_stay_bytes_and_make_an_image() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 256, (20, 64)) * (np.arange(64) > 8), columns=[f"pixel{i}" for i in range(64)])
    found = find(written(frame, "own.csv"))
    assert (found.train.x.dtype, found.image_shape, found.table) == (np.uint8, (8, 8), None)
    assert np.array_equal(found.train.x, frame.to_numpy())
    frame.insert(0, "label", np.arange(20) % 3)
    found = find(written(frame, "own.csv"), label="label")
    assert found.image_shape == (8, 8)
    assert found.train.y is not None
    assert found.train.y.tolist() == frame["label"].tolist()
    found = find(written(frame, "own.csv"))
    assert found.image_shape is None
    assert any("if it is the label, say label='label'" in note for note in found.notes)


BAD_TEXTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "empty lines": (b"\n\n", "is empty"),
    "names alone": (b"a,b\n", "has names of columns, but no rows"),
    "a field too few": (b"a,b\n1,2\n3\n", "line 3 has 1 fields, but the first has 2"),
    "a field too many": (b"a,b\n1,2\n3,4,5\n", "line 3 has 3 fields, but the first has 2"),
    "cut short in quotes": (b'a,b\n1,2\n3,"4\n5,6\n', "cannot be read as a table .*EOF inside string"),
    "latin-1": ("a,b\ncaf\xe9,2\n".encode("latin-1"), "is not text in UTF-8 .*'latin-1'"),
    "utf-16": ("a,b\nx,2\n".encode("utf-16"), "is not text in UTF-8 .*'utf-16'"),
    "zeros": (bytes(1000), "is not text: it holds NUL"),
    "a line without an end": (b"1," * (1 << 23) + b"1", "line of more than|field larger"),
    "infinite": (
        b"a,b\n1.5,2.5\ninf,3.5\n2.5,7.5\n",
        "column a holds infinite values .1 of 3 rows, the first is row 1",
    ),
    "only names of rows": (b"a\nx1\nx2\nx3\nx4\nx5\nx6\n", "has no column to learn from .a: all different"),
    "gzip cut short": (gzip.compress(b"a,b\n" + b"1,2\n" * 9000)[:-9], "is not an undamaged gzip file"),
    "gzip broken": (gzip.compress(b"a,b\n" + b"1,2\n" * 9000)[:20] + b"xxxxxxxxx", "is not an undamaged gzip file"),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_a_damaged_text_is_one_line(case: str) -> None:
    content, words = BAD_TEXTS[case]
    Path("own.csv").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        find(Path("own.csv"))
    assert str(caught.value).startswith("own.csv")
    assert "\n" not in str(caught.value)


def test_the_line_for_another_coding_makes_a_file_that_is_read() -> None:
    for coding in ("latin-1", "utf-16"):
        Path("own.csv").write_text("size,tea\n1.5,caf\xe9\n2.5,th\xe9\n3.5,th\xe9\n", encoding=coding)
        with pytest.raises(DataError) as caught:
            find(Path("own.csv"))
        exec(str(caught.value).partition(": import")[2].join(["import", ""]), {})
        assert find(Path("utf8.csv")).columns == ("size", "tea")


# ------------------------------------------------------------------------------------------------------- Parquet


def test_a_damaged_parquet_file_is_one_line() -> None:
    whole = written(people(), "own.parquet").read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in range(0, len(whole), 997)]
    for at in rng.integers(0, len(whole), 60):
        damaged.append(whole[:at] + bytes([whole[at] ^ 1 << rng.integers(0, 8)]) + whole[at + 1 :])
    refused: list[str] = []
    for content in damaged:
        Path("own.parquet").write_bytes(content)
        try:
            find(Path("own.parquet"))
        except DataError as error:
            refused.append(str(error))
    assert len(refused) >= len(range(0, len(whole), 997))
    assert all(line.startswith("own.parquet: ") and "\n" not in line for line in refused)


def test_lists_in_parquet_are_refused_and_an_index_is_a_column() -> None:
    pd.DataFrame({"a": [[1, 2], [3]] * 5, "b": np.arange(10.0) / 3}).to_parquet("own.parquet")
    with pytest.raises(DataError, match=r"column a holds \w+ in its cells; a cell is one number"):
        find(Path("own.parquet"))
    assert find(Path("own.parquet"), kinds={"a": "identifier"}).columns == ("b",)
    frame = pd.DataFrame({"b": np.arange(10.0) / 3}, index=pd.Index([f"n{i}" for i in range(10)], name="who"))
    frame.to_parquet("own.parquet")
    found = find(Path("own.parquet"))
    assert found.table is not None
    assert [c.name for c in found.table.left_out] == ["who"]


@pytest.mark.parametrize(("name", "library"), [("own.csv", "pandas"), ("own.parquet", "pyarrow.parquet")])
def test_a_library_that_is_missing_is_named_with_the_line_that_installs_it(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(people(), name)
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(
        DataError, match=rf"{name}: to read it, {library.partition('.')[0]} is needed .*'tinyvae\[tables\]'"
    ):
        find(Path(name))


# ------------------------------------------------------------------------------------------------ lines of numbers


@given(seed=SEEDS, rows=st.integers(1, 12), columns=st.integers(1, 5), at_once=st.integers(1, 5),
       name=st.sampled_from(["own.amat", "own.amat.gz", "own.txt", "own.TXT.gz", "own.dat"]),
       bits=st.booleans())  # fmt: skip
def test_lines_of_numbers_are_read_in_chunks_of_any_size(
    seed: int, rows: int, columns: int, at_once: int, name: str, bits: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2, (rows, columns)) if bits else rng.standard_normal((rows, columns)) + 0.1
    np.savetxt(name, x, fmt="%d" if bits else "%.17g", header="what it is")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "LINES", at_once)
        found = find(Path(name))
    assert np.array_equal(found.train.x, x)
    assert found.train.x.dtype == (np.uint8 if bits else np.float64)
    assert found.name.lower() == "own"


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "a word": (b"1 2\n3 x\n", "row 2 holds 'x', which is no number"),
    "a number too few": (b"1 2\n3 4\n5\n", "row 3 has 1 numbers, but the first has 2"),
    "a number too many": (b"1 2\n3 4 5\n", "row 2 has 3 numbers"),
    "infinite": (b"1 2\n3 inf\n", "infinite"),
    "names": (b"size width\n1 2\n", "row 1 holds 'size', which is no number; before a line of names put a #"),
    "no text": (b"\xff\xfe\x00\x01 2\n", "holds"),
    "no end": (bytes(1 << 12), "holds"),
}


@pytest.mark.parametrize("at_once", [1, 1000])
@pytest.mark.parametrize("case", BAD_LINES)
def test_lines_that_are_no_numbers_are_named(case: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    content, words = BAD_LINES[case]
    monkeypatch.setattr(text, "LINES", at_once)
    for name, data in [("own.txt", content), ("own.amat.gz", gzip.compress(content))]:
        Path(name).write_bytes(data)
        with pytest.raises(DataError, match=words) as caught:
            find(Path(name))
        assert str(caught.value).startswith(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["own.txt", "own.data", "own.dat"])
def test_a_text_with_separators_is_a_table_and_one_without_is_numbers(name: str) -> None:
    frame = people()
    frame.to_csv(name, index=False)
    found = find(Path(name), label="sex")
    assert found.table is not None
    assert found.train.y is not None
    x = np.random.default_rng(0).normal(size=(9, 3))
    np.savetxt(name, x, fmt="%.17g")
    assert np.array_equal(find(Path(name)).train.x, x)


def test_a_terabyte_without_a_line_is_not_read() -> None:
    for name, words in [("own.txt", "line of more than"), ("own.csv", "line of more than|NUL")]:
        Path(name).touch()
        os.truncate(name, 10**12)
        with pytest.raises(DataError, match=words):
            find(Path(name))

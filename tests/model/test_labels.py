"""Labels by their own names: numbers from anywhere, strings, one-hot rows; what is asked for, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import assert_killed, instead

import tinyvae
from tinyvae.model import checked, labels
from tinyvae.model.labels import are_plain, codes_of, flat_labels, in_words, label_typed, label_values, named_labels

ROWS, DATA, LATENT = 30, 4, 2
RNG = np.random.default_rng(0)
X = RNG.random((ROWS, DATA))
TURN = np.arange(ROWS) % 3

Case = tuple[Any, tuple[Any, ...]]
LABELS: dict[str, Case] = {  # what is handed over, and the names that there are then
    "from 1": (TURN + 1, (1, 2, 3)),
    "with a gap": (np.where(TURN > 1, 4, 2), (2, 4)),
    "negative": (TURN - 1, (-1, 0, 1)),
    "bytes": ((TURN + 1).astype(np.uint8), (1, 2, 3)),
    "beyond float32": (TURN.astype(np.int64) + 2**40, (2**40, 2**40 + 1, 2**40 + 2)),
    "strings": (np.array(["dog", "cat", "cow"])[TURN], ("cat", "cow", "dog")),
    "strings as objects": (np.array(["dog", "cat", "cow"], dtype=object)[TURN], ("cat", "cow", "dog")),
    "a list": (["b", "a", "a"] * (ROWS // 3), ("a", "b")),
    "whole floats": (TURN + 1.0, (1, 2, 3)),
    "halves": (TURN / 2 + 0.5, (0.5, 1.0, 1.5)),
    "a column": (TURN[:, None] + 1, (1, 2, 3)),
    "one-hot": (np.eye(3)[TURN], (0, 1, 2)),
    "one-hot truth values": (np.eye(3)[TURN].astype(bool), (0, 1, 2)),
    "truth values": (TURN > 0, (0, 1)),
    "plain": (TURN, (0, 1, 2)),
}


def trained(y: Any, classes: Any, x: np.ndarray = X, **options: Any) -> tinyvae.VAE:
    model = tinyvae.VAE(DATA, (3,), LATENT, classes=classes, kernels="numpy")
    tinyvae.fit(model, x, y=y, epochs=1, progress=False, **options)
    return model


def codes(y: np.ndarray, names: tuple[Any, ...]) -> np.ndarray:
    """One by one."""
    return np.array([names.index(v) for v in y.tolist()])


@pytest.mark.parametrize("case", LABELS)
def test_labels_of_any_kind_train_and_are_asked_for_by_their_names(tmp_path: Path, case: str) -> None:
    y, names = LABELS[case]
    model = trained(y, len(names), valid=(X[:6], y[:6]))
    assert (model.labels or (0, 1, 2)[: len(names)]) == names
    assert (model.labels is None) == (names == tuple(range(len(names))))
    # the very numbers that a model of plain labels has
    plain = trained(codes(flat_labels(y), names), len(names), valid=(X[:6], codes(flat_labels(y), names)[:6]))
    assert model.params.flat.tobytes() == plain.params.flat.tobytes()
    tinyvae.save(model, tmp_path / "m.safetensors")
    loaded = tinyvae.load(tmp_path / "m.safetensors")
    assert loaded.labels == model.labels
    for other in (model, loaded):
        for code, name in enumerate(names):
            assert np.array_equal(other.sample(2, 1, y=[name] * 2), plain.sample(2, 1, y=[code] * 2))


@pytest.mark.parametrize("case", LABELS)
def test_a_name_that_nobody_has_is_refused_by_naming_those_there_are(case: str) -> None:
    y, names = LABELS[case]
    model = trained(y, len(names))
    for strange in (77, "horse"):
        with pytest.raises(ValueError, match=r"^labels must ") as caught:
            model.sample(1, 1, y=[strange])
        assert "\n" not in str(caught.value)
        if model.labels is not None:
            assert f"must be of {', '.join(map(str, names))}, not " in str(caught.value)
    with pytest.raises(ValueError, match="needs labels y"):
        model.sample(1, 1)


@given(values=st.lists(st.integers(-(2**60), 2**60) | st.integers(-3, 3), min_size=1), seed=st.integers(0, 99))
def test_codes_are_places_among_the_values(values: list[int], seed: int) -> None:
    y = np.random.default_rng(seed).permutation(values)
    names = label_values([y[:3], y[3:]])
    assert names == tuple(sorted(set(values)))
    assert codes_of(y, names).tolist() == [names.index(v) for v in y.tolist()]
    assert are_plain(names) == (names == tuple(range(len(names))))


@given(values=st.lists(st.text("abcäß 1", max_size=4), min_size=1))
def test_strings_too(values: list[str]) -> None:
    y = np.array(values)
    names = label_values([y])
    assert [names[i] for i in codes_of(y, names)] == values


def test_what_is_typed_finds_the_value_that_is_written_so() -> None:
    assert label_typed("2", [1, 2, 3]) == 2
    assert label_typed("cat", ["cat", "dog"]) == "cat"
    assert label_typed("0.5", [0.5, 1.0]) == 0.5
    with pytest.raises(ValueError, match="must be one of 1, 2, not 3"):
        label_typed("3", [1, 2])
    assert in_words(range(25)).endswith("18, 19 and 5 more")


NO_LABELS: dict[str, tuple[Any, str]] = {
    "NaN": (np.where(TURN == 1, np.nan, 1.0), "NaN or infinity, the first is nan in row 1"),
    "infinite": (np.where(TURN == 2, np.inf, 1.0), "NaN or infinity, the first is inf in row 2"),
    "two columns": (np.zeros((ROWS, 2)), "one for each row"),
    "two hot": (np.ones((ROWS, 2), int), "one for each row"),
    "complex": (TURN * 1j, "numbers or strings, not complex"),
    "bytes": (np.array([b"a", b"b", b"c"])[TURN], "numbers or strings, not "),
    "mixed objects": (np.array([1, "a", None], dtype=object)[TURN], "numbers or strings, not object"),
    "too few": (TURN[:9], "there are 9 for 30 rows"),
}


@pytest.mark.parametrize("case", NO_LABELS)
def test_what_are_no_labels_is_refused_where_they_are_used_and_stops_nothing_else(case: str) -> None:
    y, message = NO_LABELS[case]
    with pytest.raises(ValueError, match=message) as caught:
        trained(y, 3)
    assert str(caught.value).startswith("y: ")
    assert "\n" not in str(caught.value)
    trained(y, 0)


def test_as_many_classes_as_labels_occur() -> None:
    with pytest.raises(ValueError, match=r"3 different ones occur, 1, 2, 3: the model is made for 2 \(classes=3 makes"):
        trained(TURN + 1, 2)
    assert trained(TURN, 5).labels is None  # not all occur


def test_rows_held_out_may_have_fewer_labels_but_no_others() -> None:
    y = TURN + 1
    trained(y, 3, valid=(X[:2], y[:2]))
    with pytest.raises(ValueError, match="the labels of valid: labels must be of 1, 2, 3, not 9"):
        trained(y, 3, valid=(X[:2], [1, 9]))
    with pytest.raises(ValueError, match="it needs the labels of valid, of 1, 2, 3"):
        trained(y, 3, valid=X[:2])


def test_classes_may_be_named() -> None:
    model = trained(["dog", "cat", "cat"] * 10, ["dog", "cat"])
    assert (model.classes, model.labels) == (2, ("cat", "dog"))
    assert tinyvae.VAE(DATA, (3,), LATENT, classes=np.array(["b", "a"])).labels == ("a", "b")
    assert tinyvae.VAE(DATA, (3,), LATENT, classes=[1.0, 2.0]).labels == (1, 2)
    for plain in ([0, 1, 2], (2, 1, 0), np.arange(3), 3):
        model = tinyvae.VAE(DATA, (3,), LATENT, classes=plain)
        assert (model.classes, model.labels) == (3, None)
    assert tinyvae.VAE(DATA, (3,), LATENT, classes=[]).classes == 0


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a", "a"], "2 labels were named, but 1 differ: a"), (["cat", 1], "all strings or all numbers, not cat, 1"),
     ([1.0, float("nan")], "NaN"), ([[1, 2]], "one for each row"), ([None, None], "numbers or strings")],
)  # fmt: skip
def test_names_that_are_none_are_refused(names: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named_labels(names)
    with pytest.raises(ValueError, match=message):
        tinyvae.VAE(DATA, (3,), LATENT, classes=names)


@pytest.mark.parametrize("y", [TURN + 1, np.array(["c", "a", "b"])[TURN]])
def test_a_data_set_brings_its_labels_along(tmp_path: Path, y: np.ndarray) -> None:
    np.savez(tmp_path / "own.npz", x=X, y=y)
    dataset = tinyvae.load_data(str(tmp_path / "own.npz"))
    model = tinyvae.VAE(DATA, (3,), LATENT, classes=3, kernels="numpy")
    tinyvae.fit(model, dataset, epochs=1, progress=False)
    assert model.labels == tuple(np.unique(y).tolist())


def test_a_bug_in_the_codes_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    shifted = lambda y, values: (codes_of(y, values) + 1) % len(values)
    killer = lambda: named("strings")
    assert_killed(monkeypatch, instead(checked, "codes_of", shifted), killer)
    unsorted = lambda parts: tuple(dict.fromkeys(np.concatenate(list(parts)).tolist()))
    assert_killed(monkeypatch, instead(labels, "label_values", unsorted), lambda: named_in_order())


def named(case: str) -> None:
    y, names = LABELS[case]
    model, plain = trained(y, len(names)), trained(codes(np.asarray(y), names), len(names))
    assert model.params.flat.tobytes() == plain.params.flat.tobytes()


def named_in_order() -> None:
    assert named_labels(["dog", "cat"]) == ("cat", "dog")

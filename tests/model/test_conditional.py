"""Conditional models: what labels may be, what they change, and models of all kinds in chunks."""

from typing import Any

import numpy as np
import pytest
from planted import Plant, assert_killed, instead
from strategies import EVERY_FUSED, assert_within, eps_of, sampled

import tinyvae
from tinyvae.checking.models import CASES, ModelCase, build, inputs
from tinyvae.layers import Labelled
from tinyvae.model.description import Description
from tinyvae.model.vae import CHUNK, VAE
from tinyvae.objectives.iwae import IWAE

EPS = eps_of("float64")
CLASSES, DATA, LATENT = 4, 6, 2
EVERY = ["reference", *EVERY_FUSED]
LABELLED = [case for case in CASES if case.model.get("classes") or "labelled" in case.name]


def make(classes: int = CLASSES, **options: Any) -> tinyvae.VAE:
    """A small model with nothing at 0."""
    options = {"activation": "tanh", "dtype": "float64", **options}
    model = tinyvae.VAE(DATA, (5,), LATENT, classes=classes, **options)
    model.params.flat += (0.3 * np.random.default_rng(0).standard_normal(model.params.flat.shape)).astype(model.dtype)
    return model


def batch(rows: int = 8, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (rows, data), eps (rows, latent), y (rows,)."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, (rows, DATA)), rng.standard_normal((rows, LATENT)), rng.integers(0, CLASSES, rows)


# --------------------------------------------------------------------------------------------- what the labels change


@pytest.mark.parametrize("kernels", ["reference", "numpy"])
def test_the_first_layer_of_each_half_adds_a_row_of_its_weights_for_the_label(kernels: str) -> None:
    model = make(kernels=kernels)
    p, (x, eps, y) = model.params, batch()
    W, V = p["encoder.0.weight"], p["decoder.0.weight"]  # (data + classes, hidden), (latent + classes, hidden)
    assert (W.shape, V.shape) == ((DATA + CLASSES, 5), (LATENT + CLASSES, 5))
    mu, logvar = model.encode(x, y)
    for i, label in enumerate(y):
        h = np.tanh(x[i] @ W[:DATA] + W[DATA + label] + p["encoder.0.bias"])
        head = h @ p["encoder.1.weight"] + p["encoder.1.bias"]
        assert_within(np.concatenate([mu[i], logvar[i]]), head, 100 * EPS)
        h = np.tanh(eps[i] @ V[:LATENT] + V[LATENT + label] + p["decoder.0.bias"])
        logits = h @ p["decoder.1.weight"] + p["decoder.1.bias"]
        assert_within(model.decode(eps[i : i + 1], y[i : i + 1])[0], 1 / (1 + np.exp(-logits)), 100 * EPS)


@pytest.mark.parametrize("kernels", EVERY)
def test_where_the_labels_weights_are_0_it_is_the_unconditional_model(kernels: str) -> None:
    dtype = "float64"
    with_labels, without = make(kernels=kernels, dtype=dtype), make(0, kernels=kernels, dtype=dtype)
    x, eps, y = (a.astype(dtype) if a.dtype == float else a for a in batch())
    for name, p in without.params.items():
        q = with_labels.params[name]
        q[: len(p)] = p
        q[len(p) :] = 0
    expected, got = without.loss_and_grad(x, eps), with_labels.loss_and_grad(x, eps, y=y)
    off = 200 * eps_of(dtype)
    assert_within(got, expected, off * expected.loss)
    for name, grad in without.grads.items():
        assert_within(with_labels.grads[name][: len(grad)], grad, off)
    # a label's weights have the gradient of the bias, from the rows with that label alone
    rest = with_labels.grads["decoder.0.weight"][LATENT:]
    assert_within(rest.sum(axis=0), with_labels.grads["decoder.0.bias"], off)
    absent = sorted(set(range(CLASSES)) - set(y.tolist()))
    assert not rest[absent].any()


def test_other_names_for_the_labels_change_nothing() -> None:
    model, renamed, (x, eps, y) = make(), make(), batch()
    order = np.array([2, 0, 3, 1])  # label k is now called order[k]
    for name, inside in [("encoder.0.weight", DATA), ("decoder.0.weight", LATENT)]:
        renamed.params[name][inside + order] = model.params[name][inside:]
    expected = model.loss_and_grad(x, eps, y=y)
    assert_within(renamed.loss_and_grad(x, eps, y=order[y]), expected, 100 * EPS * expected.loss)
    for name, inside in [("encoder.0.weight", DATA), ("decoder.0.weight", LATENT)]:
        assert_within(renamed.grads[name][inside + order], model.grads[name][inside:], 100 * EPS)
        assert_within(renamed.grads[name][:inside], model.grads[name][:inside], 100 * EPS)
    # and the labels do mean something
    assert abs(model.loss(x, eps, y=order[y]).loss - expected.loss) > 1e-3


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, list])
def test_labels_may_be_any_whole_numbers(kind: Any) -> None:
    model, (x, eps, y) = make(), batch()
    given = y.tolist() if kind is list else y.astype(kind)
    assert model.loss(x, eps, y=given) == model.loss(x, eps, y=y)


# -------------------------------------------------------------------------------------------------------- wrong labels

WRONG = {
    "none": (None, "the model is conditional: it needs labels y, whole numbers from 0 to 3"),
    "too few": (np.zeros(7, int), r"labels must be 8 whole numbers, one for each row, not int64 \(7,\)"),
    "too many": (np.zeros(9, int), "labels must be 8 whole numbers"),
    "a column": (np.zeros((8, 1), int), r"not int64 \(8, 1\)"),
    "one-hot": (np.eye(8, CLASSES), r"not float64 \(8, 4\)"),
    "real": (np.zeros(8), r"labels must be 8 whole numbers, one for each row, not float64 \(8,\)"),
    "true or false": (np.zeros(8, bool), r"not bool \(8,\)"),
    "text": (np.array(["1"] * 8), "labels must be 8 whole numbers"),
    "a number": (3, r"labels must be 8 whole numbers, one for each row, not int64 \(\)"),
    "negative": (np.array([0] * 7 + [-1]), r"labels must lie in 0..3, as in training, but they reach from -1 to 0"),
    "too large": (np.array([0] * 7 + [4]), r"labels must lie in 0..3, as in training, but they reach from 0 to 4"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_labels_are_refused_everywhere(wrong: str) -> None:
    model, (x, eps, _) = make(), batch()
    y, message = WRONG[wrong]
    draws, rng = eps[:, None], np.random.default_rng(0)
    calls = [
        lambda: model.encode(x, y), lambda: model.decode(eps, y), lambda: model.sample(8, rng, y=y),
        lambda: model.draw(eps, rng, y), lambda: model.log_p_x_given_z(x, eps, y), lambda: model.rows_loss(x, eps, y),
        lambda: model.loss(x, eps, y=y), lambda: model.loss_and_grad(x, eps, y=y),
        lambda: model.loss_and_grad(x, draws, y=y, objective=IWAE(1)), lambda: model.look(x, draws, y),
    ]  # fmt: skip
    if wrong != "a number":  # of which there is no part for a chunk of the rows
        calls.append(lambda: tinyvae.log_likelihood(model, x, 2, rng, y=y))
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("classes", "message"), [(-1, "at least 1, not -1"), (2.5, "a whole number"), (True, "a whole"), ("3", "a whole")]
)
def test_classes_are_a_whole_number(classes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"classes must be .*{message}"):
        tinyvae.VAE(DATA, (5,), LATENT, classes=classes)


# ------------------------------------------------------------------------------------------------ many rows, many draws


@pytest.mark.parametrize("case", LABELLED, ids=lambda case: case.name)
def test_more_rows_than_a_chunk_are_the_same_rows_with_the_same_labels(case: ModelCase) -> None:
    model = build(case, dtype="float64")
    rng = np.random.default_rng(2)
    rows = CHUNK + 3
    x, _, y = inputs(case, model, rng, rows)
    y = rng.permutation(y)
    z = rng.standard_normal((rows, model.latent_dim))
    some = np.r_[0:3, CHUNK - 2 : rows]
    calls = {
        "mu": lambda m, r: m.encode(x[r], y[r])[0],
        "logvar": lambda m, r: m.encode(x[r], y[r])[1],
        "decode": lambda m, r: m.decode(z[r], y[r]),
        "log p": lambda m, r: m.log_p_x_given_z(x[r], z[r], y[r]),
        "nll": lambda m, r: m.rows_loss(x[r], z[r], y[r])[0],
        "kl": lambda m, r: m.rows_loss(x[r], z[r], y[r])[1],
    }
    for name, call in calls.items():
        whole, few = call(model, slice(None)), call(build(case, dtype="float64"), some)
        # sums of less than 100 terms in each of 6 layers at most
        assert whole.shape[0] == rows, name
        assert_within(whole[some], few, 600 * EPS * (1 + np.abs(few).max()))
    means, drawn = (model.sample(rows, np.random.default_rng(3), mean=mean, y=y) for mean in (True, False))
    again = np.random.default_rng(3).standard_normal((rows, model.latent_dim))
    np.testing.assert_array_equal(means, model.decode(again, y))
    assert drawn.shape == means.shape


@pytest.mark.parametrize("kernels", EVERY)
def test_every_draw_of_a_row_has_the_label_of_its_row(kernels: str) -> None:
    model, (x, _, y) = make(kernels=kernels), batch()
    eps = np.random.default_rng(4).standard_normal((8, 3, LATENT))
    nll = model.look(x, eps, y).nll.reshape(8, 3)
    for i in range(8):
        for k in range(3):
            alone = model.look(x[i : i + 1], eps[i : i + 1, k], y[i : i + 1]).nll
            assert_within(alone, nll[i, k : k + 1], 200 * EPS * 10)


def test_log_p_given_the_label_is_that_of_the_row_with_its_label() -> None:
    model, (x, _, y) = make(), batch()
    whole = tinyvae.log_likelihood(model, x, 2000, np.random.default_rng(5), y=y)
    others = tinyvae.log_likelihood(model, x, 2000, np.random.default_rng(5), y=(y + 1) % CLASSES)
    gaps = np.abs(whole.log_p - others.log_p) / np.hypot(whole.standard_error, others.standard_error)
    assert np.median(gaps) > 5  # standard errors: the label counts
    for i in (0, 5):
        alone = tinyvae.log_likelihood(model, x[i : i + 1], 2000, np.random.default_rng(6), y=y[i : i + 1])
        gap = abs(alone.log_p[0] - whole.log_p[i])
        assert gap < 5 * np.hypot(alone.standard_error[0], whole.standard_error[i])


def test_a_model_that_is_not_conditional_takes_no_labels() -> None:
    model, (x, eps, y), rng = make(classes=0), batch(), np.random.default_rng(0)
    calls = [
        lambda: model.encode(x, y), lambda: model.decode(eps, y), lambda: model.rows_loss(x, eps, y),
        lambda: model.loss_and_grad(x, eps, y=y), lambda: tinyvae.log_likelihood(model, x, 2, rng, y=y),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match="is not conditional"):
            call()


@pytest.mark.parametrize("y", [3, np.zeros(2 * CHUNK, int), np.zeros(3, int)], ids=["a number", "too many", "too few"])
def test_log_likelihood_checks_its_labels_before_it_cuts_them(y: Any) -> None:
    x = np.zeros((CHUNK, DATA))
    with pytest.raises(ValueError, match="labels must be"):
        tinyvae.log_likelihood(make(), x, 1, np.random.default_rng(0), y=y)


# ---------------------------------------------------------------------------------------------------------------- bugs


def relabelled(change: Any) -> Plant:
    """Other labels than were given."""
    true = VAE._labels
    return instead(VAE, "_labels", lambda self, y, rows: change(true(self, y, rows)))


def of_another_order(self: Labelled, k: Any, p: Any, x: Any, context: Any, true: Any = Labelled.forward) -> Any:
    """The labels of the rows laid end to end for all draws, in place of side by side."""
    rows = x.y.shape[0]
    return true(self, k, p, x, context._replace(labels=np.resize(context.labels, rows)))


BUGS: dict[str, tuple[Plant, Any]] = {
    "off by one": (
        relabelled(lambda y: y if y is None else (y + 1) % CLASSES),
        lambda: test_the_first_layer_of_each_half_adds_a_row_of_its_weights_for_the_label("reference")),
    "those of the first row for all": (
        relabelled(lambda y: y if y is None else y * 0 + y[0]),
        lambda: test_the_first_layer_of_each_half_adds_a_row_of_its_weights_for_the_label("numpy")),
    "not side by side for the draws": (
        instead(Labelled, "forward", of_another_order),
        lambda: test_every_draw_of_a_row_has_the_label_of_its_row("reference")),
    "wrong labels are not looked at": (
        instead(Description, "check_labels", lambda self, y, rows: None),
        lambda: test_a_model_that_is_not_conditional_takes_no_labels()),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, killer = BUGS[bug]

    def noticed() -> None:
        try:
            killer()
        except pytest.fail.Exception as failure:  # "did not raise"
            raise AssertionError(str(failure)) from failure

    assert_killed(monkeypatch, plant, noticed)

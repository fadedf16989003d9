"""Whole models in ONNX Runtime: every likelihood of the folder, every activation, each kind of architecture.

The oracle is the same model in float64, and the tolerance that of all kernels (`checking.agreement`).
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_models import LIKELIHOODS
from strategies import assert_within, eps_of

import tinyvae
from tinyvae import likelihoods
from tinyvae.checking.agreement import TOLERANCE, compare
from tinyvae.checking.examples import data
from tinyvae.errors import ExportError
from tinyvae.export import file, kernels
from tinyvae.export.arrays import Tensor
from tinyvae.export.file import onnx_models
from tinyvae.formula import exp, formula, log
from tinyvae.layers import BatchNorm, Conv, Dense, Labelled, Layer, Param, Residual, Tied
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.loop import Loop
from tinyvae.model.standard import Standard
from tinyvae.ops.activations import ACTIVATIONS

from .onnx_runs import run, session

N, LATENT = 6, 2
SIDES = (5, 7)  # of images: odd, so that strides leave remainders
IMAGES: dict[str, Any] = {"data_dim": 35, "image_shape": SIDES}
KINDS: dict[str, dict[str, Any]] = {
    "no hidden layer": {"hidden": ()},
    "another decoder": {"hidden": (5, 3), "decoder_hidden": (4,)},
    "tied": {"hidden": (5,), "tied": True},
    "labels": {"hidden": (5,), "classes": 3},
    "labels at once": {"hidden": (), "classes": 3},
    "batch norm": {"hidden": (5, 4), "batch_norm": True, "classes": 2},
    "batch norm, slope reads a": {"hidden": (5, 4), "batch_norm": True, "activation": "swish"},
    "conv": {"hidden": (4,), "conv": (3, 2), **IMAGES},
    "conv, slope reads a": {"hidden": (4,), "conv": (3, 2), "activation": "gelu", **IMAGES},
    "conv, batch norm, labels": {"hidden": (4,), "conv": (3, 2), "batch_norm": True, "classes": 3, **IMAGES},
    "conv in colour": {"hidden": (4,), "conv": (3, 2), "data_dim": 105, "image_shape": (*SIDES, 3)},
    "two outputs": {"hidden": (5,), "likelihood": "gaussian:sigma=predicted"},
}


def moved(model: tinyvae.VAE, seed: int = 0) -> tinyvae.VAE:
    """The model with nothing at 0, and variances above it."""
    rng = np.random.default_rng(seed)
    for name, a in model.params.items():
        more = 0.3 * rng.standard_normal(a.shape)
        a[...] += np.abs(more) if name.endswith("running_var") else more
    return model


def make(dtype: str, **options: Any) -> tinyvae.VAE:
    return moved(tinyvae.VAE(**{"data_dim": 6, "hidden": (5,), "latent_dim": LATENT, "dtype": dtype, **options}))


def wide(model: tinyvae.VAE) -> tinyvae.VAE:
    """The same numbers in float64."""
    found = tinyvae.VAE.of(model.architecture, "float64", kernels="reference")
    found.params.flat[...] = model.params.flat
    found.standard, found.labels = model.standard, model.labels
    return found


def check(model: tinyvae.VAE, made: dict[str, onnx.ModelProto] | None = None, rows: int = N) -> None:
    """Both files give the model's numbers, with data that was not observed."""
    made = made or onnx_models(model)
    rng = np.random.default_rng(1)
    x = data(model.likelihood, rng, rows, model.data_dim).astype(model.dtype)
    x[rng.random(x.shape) < 0.2] = np.nan
    z = rng.standard_normal((rows, model.latent_dim)).astype(model.dtype)
    y = rng.integers(0, model.classes, rows) if model.classes else None
    given = {} if y is None else {"y": y}
    truth = wide(model)
    expected = dict(zip(("mu", "logvar"), truth.encode(x, y), strict=True))
    expected |= {"mean": truth.decode(z, y), "output": truth.output(z, y)}
    found = run(made["encoder"], x=x, **given) | run(made["decoder"], z=z, **given)
    assert list(found) == list(expected)
    assert {a.dtype for a in found.values()} == {model.dtype}
    compare(found, expected, TOLERANCE[model.dtype.name], f"{model.architecture.as_arguments()}")


EVERY_LIKELIHOOD = sorted({*likelihoods.names(), *LIKELIHOODS.values()})
OTHER_OPTIONS = [*(f"discretized-logistic:scale={s}" for s in ("columns", "predicted", "fixed:0.1")),
                 "categorical:groups=2"]  # fmt: skip
EACH_DTYPE = pytest.mark.parametrize("dtype", TOLERANCE)


@EACH_DTYPE
@pytest.mark.parametrize("likelihood", EVERY_LIKELIHOOD + OTHER_OPTIONS)
def test_every_likelihood(likelihood: str, dtype: str) -> None:
    check(make(dtype, likelihood=likelihood))


@EACH_DTYPE
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str, dtype: str) -> None:
    check(make(dtype, activation=activation, likelihood="laplace"))


@EACH_DTYPE
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_architecture(kind: str, dtype: str) -> None:
    check(make(dtype, **KINDS[kind]))


FAR = Standard(np.array([1e7, -3e7, 0, 2e7, 0, 1e-3]), np.array([0.5, 2, 1, 1e-3, 1, 1e-6]))


def standardized(dtype: str, **options: Any) -> tinyvae.VAE:
    """Columns near 1e7, and in one of them a thousandth matters: float32 has no digits for it."""
    model = make(dtype, **{"likelihood": "gaussian:sigma=predicted", **options})
    model.standard = FAR
    return model


def check_standardized(model: tinyvae.VAE) -> None:
    """As `check`, with x and mean in the data's units: float64, and as close as std lets u be, and 1e7 the digits."""
    assert model.standard is not None
    made, truth, standard = onnx_models(model), wide(model), model.standard
    rng = np.random.default_rng(1)
    x = standard.outward(data(model.likelihood, rng, 2 * N, model.data_dim))
    x[rng.random(x.shape) < 0.2] = np.nan
    z = rng.standard_normal((N, model.latent_dim)).astype(model.dtype)
    found = run(made["encoder"], x=x)
    found |= run(made["decoder"], z=z)
    dtypes = {name: a.dtype for name, a in found.items()}
    own = model.dtype
    assert dtypes == {"mu": own, "logvar": own, "mean": np.dtype("f8"), "output": own}
    tolerance = TOLERANCE[model.dtype.name]
    mean, expected = found.pop("mean"), np.asarray(truth.decode(z))
    largest = np.abs(standard.inward(expected)).max()
    rounding = 4 * eps_of("float64") * (np.abs(standard.mean) + np.abs(expected))  # a product and a sum, twice
    assert_within(mean, expected, tolerance * standard.std * largest + rounding)
    others = dict(zip(("mu", "logvar"), truth.encode(x), strict=True)) | {"output": truth.output(z)}
    compare(found, others, tolerance, "standardized")


@EACH_DTYPE
def test_standardized_columns_are_in_the_data_s_units(dtype: str) -> None:
    check_standardized(standardized(dtype))


@EACH_DTYPE
def test_of_columns_of_several_kinds_the_real_ones_are_standardized(dtype: str) -> None:
    model = standardized(dtype, likelihood=LIKELIHOODS["mixed"])
    real = model.likelihood.real(6)
    model.standard = Standard(np.where(real, FAR.mean, 0), np.where(real, FAR.std, 1))
    assert real.tolist() == [True, *[False] * 5]
    check_standardized(model)


def test_where_the_columns_lie_is_a_constant_with_a_name_and_tells_files_apart() -> None:
    model = standardized("float32")
    said = lambda made: {p.key: p.value for p in made["encoder"].metadata_props}["parameters"]
    made = onnx_models(model)
    for half in made.values():
        assert {"standard.mean", "standard.std"} <= {i.name for i in half.graph.initializer}
    model.standard = Standard(FAR.mean + 1, FAR.std)
    assert said(onnx_models(model)) != said(made)


def inward_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Standard.inward
    monkeypatch.setattr(Standard, "inward", lambda self, x: right(self, x.astype("f4") if isinstance(x, Tensor) else x))


def outward_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Standard.outward
    narrow = lambda self, u: right(self, u).astype("f4") if isinstance(u, Tensor) else right(self, u)
    monkeypatch.setattr(Standard, "outward", narrow)


@pytest.mark.parametrize("bug", [inward_in_float32, outward_in_float32])
def test_a_planted_bug_of_units_is_found(bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        check_standardized(standardized("float32"))


@pytest.mark.parametrize("names", [("cat", "dog", 'Übel " 1'), (-1, 3, 10), (0.5, 1.5, 2.5)], ids=str)
def test_labels_by_their_names_are_numbers_in_the_graph(names: tuple[Any, ...]) -> None:
    model = make("float32", classes=names)
    assert model.labels is not None
    made = onnx_models(model)
    for half in made.values():
        assert json.loads({p.key: p.value for p in half.metadata_props}["labels"]) == list(model.labels)
    x, y = np.random.default_rng(0).uniform(size=(N, 6)).astype("f4"), np.arange(N) % 3
    mu, logvar = wide(model).encode(x, np.array(model.labels)[y])
    compare(run(made["encoder"], x=x, y=y), {"mu": mu, "logvar": logvar}, TOLERANCE["float32"], "labels")
    mean, output = (of(mu, np.array(model.labels)[y]) for of in (wide(model).decode, wide(model).output))
    found = run(made["decoder"], z=np.asarray(mu, "f4"), y=y)
    compare(found, {"mean": mean, "output": output}, TOLERANCE["float32"], "labels")


def layered() -> tinyvae.VAE:
    """Layer by layer: images of two channels, a residual block, labels in the decoder alone, shared weights."""
    head = Dense(9, 2 * LATENT)
    encoder = [Conv((4, 3, 2), 3, "elu", kernel=3, stride=1, pad=1), BatchNorm(36, 3, "gelu"), Dense(36, 9, "tanh"),
               Residual(9, 4), head]  # fmt: skip
    decoder = [Labelled(LATENT, LATENT, "softplus", count=4), Tied(head, LATENT, "swish"), Residual(9, 3, "gelu"),
               Dense(9, 24)]  # fmt: skip
    return moved(tinyvae.VAE(encoder=encoder, decoder=decoder, likelihood="gaussian:sigma=columns"))


def test_layers_one_by_one() -> None:
    check(layered())


@pytest.mark.parametrize("rows", [1, 40])
def test_any_number_of_rows(rows: int) -> None:
    model = make("float32", **KINDS["conv, batch norm, labels"])
    check(model, onnx_models(model), rows)


def test_a_stranger_s_parts_made_of_formulas() -> None:
    """The files of docs/extending."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "extending"))
    try:
        import gated  # pyright: ignore[reportMissingImports]
        import student_t  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.pop(0)
    encoder, decoder = [gated.Gated(6, 5), Dense(5, 4)], [gated.Gated(2, 5), Dense(5, 6)]
    check(moved(tinyvae.VAE(encoder=encoder, decoder=decoder, likelihood=student_t.StudentT())))


@dataclass(frozen=True, eq=False)
class Own(Layer):
    """A layer with array code, as a user may write it."""

    inputs: int
    width: int

    def params(self) -> Any:
        yield Param("weight", (self.inputs, self.width), 0.5)

    def forward(self, k: Any, p: Any, x: Any, context: Any) -> Any:
        y = x._replace(y=self.of(k, x.y, p["weight"]), f=ACTIVATIONS["linear"])
        return y, lambda da, g: None

    def of(self, k: Any, x: Any, W: Any) -> Any:
        raise NotImplementedError


class LogSoftmax(Own):
    """By the largest of each row and a sum along it; the bias is a row that a loop repeats for all rows."""

    def of(self, k: Any, x: Any, W: Any) -> Any:
        m = k.row_max(x)
        total = k.map(Loop(sums=[formula(lambda a, m: exp(a - m))]), a=x, m=m).reshape(-1, 1)
        y = k.map(Loop([formula(lambda a, m, s: a - m - log(s))]), a=x, m=m, s=total)
        again = k.map(Loop([formula(lambda a, b: (0.5 * b, a))]), a=y, b=W[0])
        return k.map(Loop([formula(lambda a, b: a + b)]), a=again[0], b=again[1])


class Halves(Own):
    """By array code too: x in one half, its exponential in the other, the last column out of a constant."""

    def of(self, k: Any, x: Any, W: Any) -> Any:
        y = k.new(x.shape[0], 2 * self.inputs)
        left, right = k.halves(y)
        k.map(Loop([formula(lambda a: (a, exp(a)))]), a=x, out=(left, right))
        copy = k.new(*y.shape)
        copy[...] = y
        out = k.new(x.shape[0], self.width)
        out[:, :-1], out[:, -1:] = copy[:, 1:], 2.0
        return out


def test_a_stranger_s_layers_by_the_other_methods_of_the_kernels() -> None:
    softmax, halves = (dataclass(frozen=True, eq=False)(cls) for cls in (LogSoftmax, Halves))
    encoder, decoder = [softmax(6, 6), Dense(6, 4)], [halves(2, 4), Dense(4, 6)]
    check(moved(tinyvae.VAE(encoder=encoder, decoder=decoder)))


# ----------------------------------------------------------------------------------------------------- what a file says


def test_the_files_say_what_they_are() -> None:
    made = onnx_models(make("float32", **KINDS["conv, batch norm, labels"]), image_shape="5x7", epoch=3)
    ends = {"encoder": (["x", "y"], ["mu", "logvar"]), "decoder": (["z", "y"], ["mean", "output"])}
    said = []
    for half, model in made.items():
        inputs, outputs = ([i.name for i in of] for of in (model.graph.input, model.graph.output))
        assert (inputs, outputs) == ends[half]
        for value in (*model.graph.input, *model.graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == "rows"
        assert {n.op_type for n in model.graph.node} >= {"Conv" if half == "encoder" else "ConvTranspose", "Gather"}
        assert half in model.doc_string
        assert "conv=(3, 2)" in model.doc_string
        assert (model.producer_name, model.producer_version) == ("tinyvae", tinyvae.__version__)
        said.append({p.key: p.value for p in model.metadata_props})
    assert said[0] == said[1]
    parameters = said[0].pop("parameters")
    assert len(parameters) == 16
    assert said[0] == {"likelihood": "bernoulli", "outputs": "logits", "data_dim": "35", "latent_dim": "2",
                       "classes": "3", "image_shape": "5x7", "epoch": "3"}  # fmt: skip
    other = onnx_models(make("float32"))["encoder"]
    assert parameters not in [p.value for p in other.metadata_props]


def test_constants_have_the_names_of_parameters() -> None:
    model = make("float32", classes=3)
    names = {i.name: list(i.dims) for i in onnx_models(model)["encoder"].graph.initializer}
    assert names["encoder.0.weight"] == [6, 5]
    assert names["encoder.0.weight.1"] == [3, 5]  # the labels' rows
    assert names["encoder.1.bias"] == [2 * LATENT]


def test_the_numbers_are_those_of_the_moment() -> None:
    model = make("float32")
    before = onnx_models(model)
    copy = {name: m.SerializeToString() for name, m in before.items()}
    model.params.flat += 1
    assert {name: m.SerializeToString() for name, m in before.items()} == copy
    check(model)


@pytest.mark.parametrize("label", [-1, 3, -3, 1000])
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_label_that_there_is_not_is_refused_by_the_runtime(half: str, label: int) -> None:
    """Of Gather alone, -1 would be the last label."""
    model = onnx_models(make("float32", classes=3))[half]
    ready, width = session(model), {"encoder": 6, "decoder": LATENT}[half]
    given = {model.graph.input[0].name: np.zeros((2, width), "f4")}
    ready.run(None, {**given, "y": np.array([2, 0])})
    with pytest.raises(Exception, match="out of data bounds"):
        ready.run(None, {**given, "y": np.array([0, label])})


def test_a_model_beyond_what_a_file_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "LARGEST", 4 * 30 - 1)
    with pytest.raises(ExportError, match="the encoder has more than 2 GiB of parameters"):
        onnx_models(make("float32"))


# ----------------------------------------------------------------------------------------------- what cannot be written


class Product(Own):
    def of(self, k: Any, x: Any, W: Any) -> Any:
        return np.dot(x, W)


class ReadFirst(Own):
    def of(self, k: Any, x: Any, W: Any) -> Any:
        y = k.new(x.shape[0], self.width)
        y[:, :1] = x[:, :1]
        return y


class Zeros(Own):
    def of(self, k: Any, x: Any, W: Any) -> Any:
        return k.zeros(x.shape[0], self.width)


class Chooses(Own):
    def of(self, k: Any, x: Any, W: Any) -> Any:
        return k.product(x if (x > 0).max(axis=1)[None] else -x, W, None, ACTIVATIONS["linear"]).y


class OverRows(Own):
    def of(self, k: Any, x: Any, W: Any) -> Any:
        y = k.product(x, W, None, ACTIVATIONS["linear"]).y
        return k.map(Loop([formula(lambda a, m: a - m)]), a=y, m=k.map(Loop(columns=[formula(lambda a: a)]), a=y))


class IntoItself(Own):
    def of(self, k: Any, x: Any, W: Any) -> Any:
        y = k.product(x, W, None, ACTIVATIONS["linear"]).y
        k.map(Loop([formula(lambda a: exp(a))]), a=y, out=(y,))
        return y


class AddsInto(Own):
    def of(self, k: Any, x: Any, W: Any) -> Any:
        y = k.new(x.shape[0], self.width)
        k.map(Loop([formula(lambda a: a)]), a=x, into=(y,))
        return y


class TooNarrow(Own):
    def of(self, k: Any, x: Any, W: Any) -> Any:
        return x[:, :1]


REFUSED = {
    Product: r"numpy\.dot has no text in ONNX",
    ReadFirst: "an array is read before it is written",
    Zeros: "zeros of the kernels is no part of the way forward, or has no text",
    Chooses: "a choice is made on a number",
    OverRows: "loop of <lambda> sums over all rows",
    IntoItself: "array code writes into an array",
    AddsInto: r"loop of <lambda> writes into an array \(into\)",
}


@pytest.mark.parametrize("layer", REFUSED, ids=lambda c: c.__name__)
def test_array_code_of_a_layer_is_refused_in_one_line_that_names_it(layer: type[Own]) -> None:
    layer = dataclass(frozen=True, eq=False)(layer)
    model = tinyvae.VAE(encoder=[Dense(6, 5, "tanh"), layer(5, 4)], decoder=[Dense(2, 6)])
    with pytest.raises(ExportError, match=REFUSED[layer]) as error:
        onnx_models(model)
    said = str(error.value)
    assert said.startswith(f"encoder.1 ({layer.__name__}) cannot be written as ONNX: ")
    assert said.endswith("; what is made of formulas and of the kernels' methods can")
    assert "\n" not in said


def test_a_layer_of_another_width_is_refused() -> None:
    model = tinyvae.VAE(encoder=[Dense(6, 5), dataclass(frozen=True, eq=False)(TooNarrow)(5, 4)], decoder=[Dense(2, 6)])
    with pytest.raises(ExportError, match=r"encoder\.1 \(TooNarrow\) makes the shape \(rows, 1\)"):
        onnx_models(model)


def test_array_code_of_a_likelihood_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("float32")
    monkeypatch.setattr(type(model.likelihood), "mean", lambda self, p, output: np.sort(output))
    with pytest.raises(ExportError, match=r"likelihood \(Bernoulli\) cannot be written as ONNX: numpy\.sort"):
        onnx_models(model)


# --------------------------------------------------------------------------------------------------------- planted bugs


def transposed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.Nodes.product
    monkeypatch.setattr(
        kernels.Nodes,
        "product",
        lambda self, x, W, *more: right(self, x, W.T if W.shape[0] == W.shape[1] else W, *more),
    )


def channels_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CHANNELS_LAST", (0, 3, 2, 1))


def nan_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Likelihood.encoded
    monkeypatch.setattr(Likelihood, "encoded", lambda self, k, x, missing=False: right(self, k, x, k.name != "onnx"))


def one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.group_sum
    monkeypatch.setattr(kernels, "group_sum", lambda a, groups: right(a, (sum(groups),)))


def by_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    right = BatchNorm.forward
    half = lambda k, p: {**p, "running_var": p["running_var"] * (0.5 if k.name == "onnx" else 1)}
    monkeypatch.setattr(BatchNorm, "forward", lambda self, k, p, x, c: right(self, k, half(k, p), x, c))


def other_label(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.Nodes._row_of
    monkeypatch.setattr(
        kernels.Nodes, "_row_of", lambda self, label: right(self, label._replace(table=label.table[::-1]))
    )


def end_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.Nodes._end
    monkeypatch.setattr(
        kernels.Nodes, "_end", lambda self, a, f, label=None: right(self, a, ACTIVATIONS["relu"], label)
    )


BUGS = {
    transposed: {"hidden": (6,)}, channels_swapped: KINDS["conv"], nan_is_seen: {}, by_the_batch: KINDS["batch norm"],
    one_group: {"likelihood": "categorical:groups=2+4"}, other_label: KINDS["labels"],
    end_left_out: {"activation": "leaky-relu"},
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS, ids=lambda b: b.__name__)
def test_a_planted_bug_is_found(bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("float32", **BUGS[bug])
    check(model)
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        check(model)

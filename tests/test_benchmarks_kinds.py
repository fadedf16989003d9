"""What the benchmarks train beside dense nets: its arithmetic, its agreement, and who is left out of it."""

from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture
from strategies import sampled

from benchmarks import agreement, check, step
from benchmarks.candidates import CANDIDATES, OURS, ours
from benchmarks.candidates.ours import GivenBatches
from benchmarks.shapes import SHAPES, TINY, Shape, given_batches
from tinyvae.kernels.numpy_loops import NumPyKernels
from tinyvae.layers.batch_norm import BatchNorm
from tinyvae.loop import Loop
from tinyvae.model.vae import DRAW
from tinyvae.objectives.iwae import IWAE, SHARE

EACH = pytest.mark.parametrize("shape", [*SHAPES.values(), *TINY], ids=lambda shape: shape.name)
KINDS = {shape.name.removeprefix("tiny "): shape for shape in TINY if not shape.is_plain}


def products(*sizes: tuple[int, int, int]) -> int:
    """FLOPs of y = x W, dW and dx for each (rows, in, out); the first has no dx."""
    return sum((4 if i == 0 else 6) * rows * n * m for i, (rows, n, m) in enumerate(sizes))


@pytest.mark.parametrize(
    ("name", "flops", "parameters"),
    [
        ("784-400-20-norm", SHAPES["784-400-20"].flops(), SHAPES["784-400-20"].parameters() + 400 + 400),
        (
            "784-400-20-labels",
            products((128, 794, 400), (128, 400, 40), (128, 30, 400), (128, 400, 784)),
            SHAPES["784-400-20"].parameters() + 2 * 10 * 400,
        ),
        (
            "784-200-200-50-iwae",
            products(
                (100, 784, 200), (100, 200, 200), (100, 200, 100),
                (500, 50, 200), (500, 200, 200), (500, 200, 784),
            ),
            SHAPES["784-200-200-50"].parameters(),
        ),
        (
            "conv-32-64",  # windows of 4 x 4 at 14 x 14 places, then at 7 x 7, and back
            products(
                (128 * 196, 16, 32), (128 * 49, 16 * 32, 64), (128, 3136, 200),
                (128, 100, 3136), (128 * 49, 64, 16 * 32), (128 * 196, 32, 16),
            ),
            (16 * 32 + 32) + (512 * 64 + 64) + (3136 + 1) * 200 + (100 + 1) * 3136 + (512 * 64 + 32) + (32 * 16 + 1),
        ),
        (
            "conv-32-64-norm-labels",
            products(
                (128 * 196, 16, 32), (128 * 49, 16 * 32, 64), (128, 3146, 200),
                (128, 110, 3136), (128 * 49, 64, 16 * 32), (128 * 196, 32, 16),
            ),
            SHAPES["conv-32-64"].parameters() + 10 * 200 + 10 * 3136 + 32 + 64 + 3136 + 32,
        ),
    ],
)  # fmt: skip
def test_the_arithmetic_worked_out_by_hand(name: str, flops: int, parameters: int) -> None:
    assert SHAPES[name].flops() == flops
    assert SHAPES[name].parameters() == parameters


@EACH
def test_every_product_has_its_weight(shape: Shape) -> None:
    weights = [np.prod(size) for name, size in shape.architecture().shapes().items() if name.endswith(".weight")]
    assert [i * o for _, i, o in shape.products()] == weights


@EACH
def test_a_shape_comes_back_from_json(shape: Shape) -> None:
    assert Shape.from_dict(shape.to_dict()) == Shape.from_dict(asdict(shape)) == shape


def test_a_shape_is_stored_without_its_defaults_and_read_as_it_was_before_these_kinds() -> None:
    old = {"name": "a", "data_dim": 4, "hidden": [3], "latent": 2, "activation": "relu", "batch": 128, "rows": 59_904,
           "dynamic": False}  # fmt: skip
    assert Shape.from_dict(old) == Shape("a", 4, (3,), 2)
    assert Shape("a", 4, (3,), 2).to_dict() == {"name": "a", "data_dim": 4, "hidden": (3,), "latent": 2}


def test_an_unknown_field_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^a shape has no heads, tied here: [^\n]*$"):
        Shape.from_dict({**TINY[0].to_dict(), "tied": True, "heads": 2})


def test_every_field_of_a_shape_is_measured_by_one() -> None:
    for field in fields(Shape)[4:]:
        assert any(getattr(shape, field.name) != field.default for shape in SHAPES.values()), field.name


# ------------------------------------------------------------------------------------------------------------ agreement


def backwards(truth: Any) -> Any:
    """Batches whose labels are those of other rows."""

    def shuffled(self: GivenBatches, *others: Any, **options: Any) -> Iterator[Any]:
        for batch in truth(self, *others, **options):
            yield batch._replace(y=batch.y[::-1])

    return shuffled


def louder(truth: Any) -> Any:
    """Batch normalization that makes a little more of everything."""

    def forward(self: BatchNorm, k: Any, p: Any, x: Any, context: Any) -> Any:
        y, back = truth(self, k, p, x, context)
        y.y[...] *= 1.001
        return y, back

    return forward


def evenly(truth: Any) -> Any:
    """Every draw weighs the same, whatever its weight."""

    def map_(self: NumPyKernels, loop: Loop, **given: Any) -> Any:
        result = truth(self, loop, **given)
        if loop is SHARE:
            result[...] = 1 / result.shape[1]
        return result

    return map_


def more_noise(truth: Any) -> Any:
    return lambda self, loop, **given: truth(
        self, loop, **({**given, "eps": 1.01 * given["eps"]} if loop is DRAW else given)
    )


def mirrored(truth: Any) -> Any:
    """Every window is turned around, left and right."""

    def turned(self: NumPyKernels, x: Any, W: Any, *others: Any) -> Any:
        w = others[-1]
        return truth(self, x, W.reshape(w.kernel, w.kernel, -1)[:, ::-1].reshape(W.shape), *others)

    return turned


@pytest.mark.parametrize(
    ("kind", "owner", "name", "plant"),
    [
        ("labels", GivenBatches, "shuffled", backwards),
        ("norm", BatchNorm, "forward", louder),
        ("iwae", NumPyKernels, "map", evenly),
        ("iwae", NumPyKernels, "map", more_noise),
        ("conv", NumPyKernels, "spread", mirrored),
        ("conv norm labels", NumPyKernels, "convolve", mirrored),
    ],
)
def test_other_work_is_refused(monkeypatch: pytest.MonkeyPatch, kind: str, owner: Any, name: str, plant: Any) -> None:
    shape, batches = KINDS[kind], given_batches(KINDS[kind], agreement.STEPS)
    truth = agreement.expected(asdict(shape))
    agreement.compare("right", ours.build(shape, "numpy", "numpy", False).given_losses(batches), truth)
    monkeypatch.setattr(owner, name, plant(getattr(owner, name)))
    losses = ours.build(shape, "numpy", "numpy", False).given_losses(batches)
    with pytest.raises(agreement.DisagreementError, match="does not do the same work"):
        agreement.compare("wrong", losses, truth)


@pytest.mark.parametrize("kind", KINDS)
def test_the_trainers_own_steps_are_timed(kind: str) -> None:
    built = ours.build(replace(KINDS[kind], rows=KINDS[kind].batch * 4), "numpy", "numpy", False)
    assert len(built.step_times(warmup=2, steps=5)) == 5
    trainer, _ = built.trainer(lambda _: None)
    shape, config = KINDS[kind], built.config
    assert (trainer.objective.samples, trainer.train_batches.draws) == (max(shape.draws, 1), max(shape.draws, 1))
    assert isinstance(trainer.objective, IWAE) == bool(shape.draws)
    assert trainer.model.architecture == shape.architecture()
    assert (trainer.train_batches.labels is not None) == config.conditional == bool(shape.classes)


@pytest.mark.parametrize("kind", sampled(KINDS, 4))
def test_on_a_gpu_they_are_given_their_batches(fake_cupy: FakeCupy, kind: str) -> None:
    built = ours.build(KINDS[kind], "fused", "cupy", False)
    assert not built.draws_on_device()  # the captured step is for dense nets
    losses = built.given_losses(given_batches(KINDS[kind], agreement.STEPS))
    assert agreement.compare("cupy", losses, agreement.expected(asdict(KINDS[kind]))) <= 1


# --------------------------------------------------------------------------------------------------------- who is there


def test_a_peer_takes_part_in_dense_nets_alone(capsys: pytest.CaptureFixture[str]) -> None:
    entries = list(CANDIDATES.values())
    assert step.able(entries, TINY[0]) == entries
    assert capsys.readouterr().out == ""
    for shape in KINDS.values():
        assert [entry.ours for entry in step.able(entries, shape)] == [True] * 4
        out = capsys.readouterr().out
        assert out.startswith(f"{shape.name}: left out: torch eager, ")
        assert out.count("\n") == 1
    assert OURS in CANDIDATES


def test_tf32_takes_dense_nets_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert step.measurable(TINY, tf32=False) == list(TINY)
    assert step.measurable(TINY, tf32=True) == list(TINY[:3])
    assert capsys.readouterr().out.count("(TF32 is for dense layers and the ELBO)\n") == len(KINDS)


def test_the_checks_table_has_a_gap_where_a_peer_is_left_out() -> None:
    shares = {"tiny relu": {"tinyvae": 0.5, "torch eager": 0.25}, "tiny conv": {"tinyvae": 0.1}}
    rows = check.tables({"shapes": shares})[0].rows
    assert rows == [("tinyvae", "50%", "10%"), ("torch eager", "25%", "-")]

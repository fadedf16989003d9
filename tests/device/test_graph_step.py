"""The captured training step, on the stand-in: its numbers, its noise, its order in time."""

import weakref

import fake_cuda
import numpy as np
import pytest
from fake_cupy import FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture
from kinds import BY_NAME, CAPTURED, DATA, LATENT, Kind
from strategies import assert_within, eps_of

from tinyvae.backend import to_host
from tinyvae.kernels.cuda.table import GROUP
from tinyvae.ops import adam
from tinyvae.training import streams
from tinyvae.training.batches import Batches
from tinyvae.training.graph_step import AHEAD, GraphStep

EPS = eps_of("float32")
LR = 1e-2
BATCH = 8
ROWS = 3 * BATCH + 3  # in an epoch: three full batches and a smaller one


class Steps:
    """A GraphStep on a small model, with the schedule of an epoch."""

    def __init__(
        self, fake: FakeCupy, kind: Kind = CAPTURED[0], *, data: int = DATA, latent: int = LATENT, rows: int = ROWS,
        batch: int = BATCH, dynamic: bool = False, real: bool = False, tf32: bool = False, steps_per_graph: int = 1,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(5)
        self.fake, self.kind, (self.beta,) = fake, kind, kind.loss.numbers()
        self.model = kind.build(data_dim=data, latent_dim=latent, backend="cupy")
        self.table = rng.integers(0, 256, (rows, data), dtype=np.uint8)
        stored, scale = (self.table / np.float32(255), 1.0) if real else (self.table, 1 / 255)
        self.batches = Batches(self.model, stored, scale, batch, dynamic)
        self.m, self.v = (fake.zeros(self.model.params.flat.size, "float32") for _ in range(2))
        self.step = GraphStep(self.model, self.batches, self.m, self.v, kind.loss, tf32, steps_per_graph)
        self.order = np.random.default_rng(6).permutation(rows)
        self.sizes = self.batches.sizes()
        self.begun = False  # an epoch, at the first step: until then the default stream may be given work

    def begin(self, key: tuple[int, int] = (1, 2), first_batch: int = 0) -> None:
        updates = [(self.beta * (1 + i / 4), LR / (i + 1)) for i in range(len(self.sizes))]
        self.updates = updates
        self.schedule = np.array(
            [(b, *adam.step_and_epsilon(i + 1, lr), 1 / self.sizes[i]) for i, (b, lr) in enumerate(updates)]
        )
        self.step.begin_epoch(self.order, key, self.schedule, first_batch)
        self.begun = True

    def replay(self) -> None:
        if not self.begun:
            self.begin()
        self.step.replay()

    def launch(self, rows: int) -> None:
        if not self.begun:
            self.begin()
        self.step.launch(rows)

    def run(self, first: int = 0, captured: bool = True) -> np.ndarray:
        for rows in self.sizes[first:]:
            if captured and rows == self.batches.batch_size:
                self.replay()
            else:
                self.launch(rows)
        return self.step.losses()

    def buffer(self, kernel: str, argument: str) -> np.ndarray:
        """What an argument of the first such kernel holds, once the steps so far are done."""
        self.step.stream.synchronize()
        return to_host(next(a for name, a in self.step.launches if name == kernel)[argument]).copy()

    def x(self) -> np.ndarray:
        return self.buffer(self.step.launches[0][0], "x")

    def eps(self) -> np.ndarray:
        return self.buffer("head_forward", "eps")

    def numbers(self) -> dict[str, np.ndarray]:
        """Parameters, moments and losses, now."""
        losses = self.step.losses()
        arrays = {"params": self.model.params.flat, "m": self.m, "v": self.v}
        return {"losses": losses, **{name: to_host(a).copy() for name, a in arrays.items()}}


def assert_same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


# ---------------------------------------------------------------------------------------------------------- the numbers

LARGE = [  # more than one tile of everything
    Kind(name, {"hidden": (40, 33), "activation": "tanh", **more}, "elbo:free_bits=0.01")
    for name, more in {
        "large": {}, "large, tied": {"tied": True}, "large, predicted": {"likelihood": "gaussian:sigma=predicted"},
        "large, learned": {"likelihood": "gaussian"},
    }.items()
]  # fmt: skip
each_kind = pytest.mark.parametrize("kind", CAPTURED, ids=lambda kind: kind.name)
each_large = pytest.mark.parametrize("kind", LARGE, ids=lambda kind: kind.name)


@each_kind
def test_steps_are_those_of_the_formulas(fake_cupy: FakeCupy, kind: Kind) -> None:
    check_formulas(Steps(fake_cupy, kind))


@each_large
def test_steps_of_a_model_of_many_tiles_are_those_of_the_formulas(fake_cupy: FakeCupy, kind: Kind) -> None:
    check_formulas(Steps(fake_cupy, kind, data=70, latent=20, rows=75, batch=40))


def test_steps_on_real_numbers_are_those_of_the_formulas(fake_cupy: FakeCupy) -> None:
    check_formulas(Steps(fake_cupy, real=True))


def test_steps_on_binarized_pixels_are_those_of_the_formulas(fake_cupy: FakeCupy) -> None:
    check_formulas(Steps(fake_cupy, dynamic=True))


def check_formulas(steps: Steps, precision: float = EPS) -> None:
    """An epoch beside the readable formulas in float64, which are given each batch's noise and data.

    Gradients are compared through Adam's moments, each number to 16 roundings of the largest of its tensor: in networks
    so small they are 8 at most. Parameters are compared with what Adam makes of the step's own moments: of a gradient
    as small as its rounding, m / sqrt(v) has no digit in common with the formulas'.
    """
    sizes = {"data_dim": steps.model.data_dim, "latent_dim": steps.model.latent_dim}
    truth = steps.kind.build(**sizes, dtype="float64", kernels="reference")
    free_bits = steps.kind.loss.free_bits  # pyright: ignore[reportAttributeAccessIssue] - it is an ELBO
    truth.params.flat[...] = to_host(steps.model.params.flat)
    p, m, v = truth.params.flat, np.zeros(truth.params.flat.size), np.zeros(truth.params.flat.size)
    for i, rows in enumerate(steps.sizes):
        if rows == steps.batches.batch_size and i != 1:
            steps.replay()
        else:
            steps.launch(rows)
        x, eps = steps.x()[:rows].astype(float), steps.eps()[:rows].astype(float)
        pixels = steps.table[steps.order[i * steps.batches.batch_size :][:rows]] / 255
        if steps.batches.dynamic:
            assert set(np.unique(x)) <= {0.0, 1.0}
            assert abs(x.mean() - pixels.mean()) < 0.25
        else:
            assert_within(x, pixels, 2 * EPS * pixels)
        beta, _ = steps.updates[i]
        losses = truth.loss_and_grad(x, eps, beta, free_bits)
        g = truth.grads.flat
        m, v = adam.BETA1 * m + (1 - adam.BETA1) * g, adam.BETA2 * v + (1 - adam.BETA2) * g * g
        assert_within(steps.step.losses()[i], losses, 16 * precision * np.abs(losses).max())
        scale = np.concatenate([np.full(t.size, np.abs(t).max()) for t in truth.grads.values()])
        assert_within(to_host(steps.m), m, 16 * precision * ((1 - adam.BETA1) * scale + np.abs(m)))
        assert_within(to_host(steps.v), v, 16 * precision * ((1 - adam.BETA2) * scale**2 + v))
        m, v = (to_host(moment).astype(float) for moment in (steps.m, steps.v))
        _, step, epsilon, _ = steps.schedule[i].astype(np.float32).astype(float)
        update = step * m / (np.sqrt(v) + epsilon)
        assert_within(to_host(steps.model.params.flat), p - update, EPS * (np.abs(p - update) + 2 * np.abs(update)))
        p[...] = to_host(steps.model.params.flat)
    assert steps.buffer("finish_step", "state").tolist() == [len(steps.sizes), 1, 2]


def test_tf32_is_near_the_formulas_and_not_float32(fake_cupy: FakeCupy) -> None:
    rounded, exact = Steps(fake_cupy, tf32=True), Steps(fake_cupy)
    assert not np.array_equal(rounded.run(), exact.run())
    check_formulas(Steps(fake_cupy, tf32=True), precision=2**-10)


def test_a_step_of_one_hidden_layer_is_ten_kernels(fake_cupy: FakeCupy) -> None:
    steps = Steps(fake_cupy)
    names = [name for name, _ in steps.step.launches]
    assert names == [
        "gather_bytes", "layer_forward", "head_forward", "layer_forward", "output_bernoulli",
        "layer_backward", "latent_backward", "layer_backward", "weights_and_adam", "finish_step",
    ]  # fmt: skip
    steps.replay()
    assert [node.kernel.name for node in steps.step.graph.nodes] == names


def test_every_parameter_belongs_to_exactly_one_group(fake_cupy: FakeCupy) -> None:
    for kind in (*CAPTURED, *LARGE):
        steps = Steps(fake_cupy, kind)
        groups = steps.buffer("weights_and_adam", "groups")
        covered = np.zeros(steps.model.params.flat.size, int)
        for row in groups:
            g = dict(zip(GROUP, row.tolist(), strict=True))
            covered[g["offset"] :][: (g["inputs"] + g["has_bias"]) * g["outputs"]] += 1
        if "likelihood.logvar" in steps.model.params:
            covered[-1] += 1  # by finish_step
        assert (covered == 1).all(), kind.name


# ----------------------------------------------------------------------------------------------- replays, noise, epochs


REPLAYED = [CAPTURED[0], BY_NAME["gaussian, sigma learned"], LARGE[1]]


@pytest.mark.parametrize("kind", REPLAYED, ids=lambda kind: kind.name)
def test_a_replay_is_the_eager_step_bit_for_bit(fake_cupy: FakeCupy, kind: Kind) -> None:
    captured, eager = Steps(fake_cupy, kind, dynamic=True), Steps(fake_cupy, kind, dynamic=True)
    captured.run()
    eager.run(captured=False)
    assert_same_bits(captured.numbers(), eager.numbers())
    assert eager.step.graph is None


def test_a_run_repeats_bit_for_bit_and_another_key_does_not(fake_cupy: FakeCupy) -> None:
    first, again, other = (Steps(fake_cupy) for _ in range(3))
    other.begin(key=(1, 3))
    for steps in (first, again, other):
        steps.run()
    assert_same_bits(first.numbers(), again.numbers())
    assert not np.array_equal(first.numbers()["losses"], other.numbers()["losses"])


def test_every_replay_has_its_own_noise_and_its_own_rows(fake_cupy: FakeCupy) -> None:
    steps = Steps(fake_cupy, dynamic=True)
    seen = []
    for _ in range(3):
        steps.replay()
        seen.append((steps.eps(), steps.x()))
    for i in (1, 2):
        assert not np.isin(seen[i][0], seen[0][0]).any()
        assert not np.array_equal(seen[i][1], seen[0][1])
    assert abs(np.concatenate([eps for eps, _ in seen]).mean()) < 0.5


def test_several_steps_in_a_graph_are_as_many_single_ones(fake_cupy: FakeCupy) -> None:
    three, single = Steps(fake_cupy, steps_per_graph=3), Steps(fake_cupy)
    three.replay()
    three.launch(3)
    single.run()
    assert len(three.step.graph.nodes) == 3 * len(single.step.graph.nodes)
    assert_same_bits(three.numbers(), single.numbers())


def test_the_graph_of_one_epoch_serves_the_next(fake_cupy: FakeCupy) -> None:
    """With another order, key and schedule; an eager twin does the same."""
    captured, eager = Steps(fake_cupy), Steps(fake_cupy)
    for steps in (captured, eager):
        steps.run(captured=steps is captured)
        graph = steps.step.graph
        steps.order = steps.order[::-1].copy()
        steps.beta = 3.0
        steps.begin(key=(7, 8))
        steps.run(captured=steps is captured)
        assert steps.step.graph is graph
    assert_same_bits(captured.numbers(), eager.numbers())


def test_there_are_no_more_steps_than_the_epoch_has_batches(fake_cupy: FakeCupy) -> None:
    steps = Steps(fake_cupy, steps_per_graph=2)
    with pytest.raises(RuntimeError, match="0 batches left, not 2"):
        steps.step.replay()
    steps.begin(first_batch=1)
    steps.replay()
    steps.launch(3)
    with pytest.raises(RuntimeError, match="0 batches left, not 1"):
        steps.launch(3)
    assert fake_cuda.clock.launches.count("finish_step") < 4


def test_an_epoch_can_begin_at_any_batch(fake_cupy: FakeCupy) -> None:
    """The steps before it were done by another step object, whose parameters and moments it takes over."""
    whole = Steps(fake_cupy)
    whole.run()
    for first in (1, 2, 3):
        before, after = Steps(fake_cupy), Steps(fake_cupy)
        for _ in range(first):
            before.replay()
        losses = before.step.losses()
        for name, a in [("params", after.model.params.flat), ("m", after.m), ("v", after.v)]:
            a[...] = fake_cupy.asarray(before.numbers()[name])
        after.begin(first_batch=first)
        losses[first:] = after.run(first)[first:]
        assert_same_bits({**after.numbers(), "losses": losses}, whole.numbers())


# ------------------------------------------------------------------------------------------------------ time and memory


def test_in_an_epoch_nothing_is_copied_allocated_or_waited_for(fake_cupy: FakeCupy) -> None:
    steps = Steps(fake_cupy)
    steps.run()  # the capture is behind it
    steps.begin()
    fake_cupy.reset_copies()
    fake_cuda.clock.operations.clear()
    fake_cuda.clock.synchronizations = 0
    for rows in steps.sizes:
        steps.replay() if rows == BATCH else steps.launch(rows)
    assert (fake_cupy.host_copies, fake_cupy.device_copies) == (0, 0)
    assert fake_cuda.clock.operations == []
    assert fake_cuda.clock.synchronizations == 0
    steps.step.losses()
    assert fake_cuda.clock.operations == ["a copy to the host"]


def test_the_host_keeps_pace_with_the_device(fake_cupy: FakeCupy) -> None:
    """On the stand-in a stream works only when it is waited for: so what waits there is how far the host is ahead."""
    steps = Steps(fake_cupy, rows=BATCH * 4 * AHEAD)
    steps.replay()
    most = 0
    for _ in range(4 * AHEAD - 1):
        steps.replay()
        most = max(most, len(steps.step.stream.waiting))
    assert most <= 2 * AHEAD * len(steps.step.launches)
    assert most > AHEAD  # but it does not wait for every step


def test_the_losses_are_those_of_all_steps_given_so_far(fake_cupy: FakeCupy) -> None:
    steps = Steps(fake_cupy)
    before = steps.step.losses()
    steps.replay()
    steps.replay()
    after = steps.step.losses()
    assert (after[:2] > 0).all()
    assert np.array_equal(after[2:], before[2:])


def test_the_steps_wait_for_what_the_default_stream_was_given(fake_cupy: FakeCupy) -> None:
    steps = Steps(fake_cupy)
    steps.replay()
    steps.step.losses()
    steps.model.params.flat[...] = 0.0
    with pytest.raises(fake_cuda.RaceError):
        steps.step.replay()
    steps.begin()
    steps.run()


def test_a_warm_up_leaves_no_trace(fake_cupy: FakeCupy) -> None:
    """Before the first replay of a graph that is replayed no time at all."""
    steps = Steps(fake_cupy)
    steps.begin()
    before = {**steps.numbers(), "state": steps.buffer("finish_step", "state")}
    steps.step._capture()
    steps.step.stream.synchronize()
    assert_same_bits({**steps.numbers(), "state": steps.buffer("finish_step", "state")}, before)


def test_the_step_keeps_all_that_its_graph_needs(fake_cupy: FakeCupy) -> None:
    steps = Steps(fake_cupy)
    steps.replay()
    steps.step.losses()
    table = weakref.ref(steps.batches.data._host)
    steps.batches = None  # type: ignore[assignment]  # whoever made it lets go
    assert table() is not None
    steps.replay()
    steps.step.losses()


def test_the_epochs_key_depends_on_seed_purpose_and_epoch() -> None:
    keys = [tuple(streams.key(*name)) for name in [(0, 2, 1), (1, 2, 1), (0, 3, 1), (0, 2, 2), (2, 2, 0)]]
    assert len(set(keys)) == 5
    assert all(0 <= word < 2**32 for key in keys for word in key)
    assert streams.key(0, streams.NOISE, 1) == list(keys[0])

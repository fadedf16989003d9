"""Proof of teeth: bugs planted in the captured step, each with the name of the test that must fail under it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fake_cuda
import numpy as np
import pytest
import test_graph_step as suite
from fake_cupy import FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture
from kinds import BY_NAME, CAPTURED
from strategies import sampled

from tinyvae.training import graph_step
from tinyvae.training.batches import Batches
from tinyvae.training.graph_step import GraphStep

Plant = Callable[[pytest.MonkeyPatch], None]


def _arguments_changed(kernel: str, **changes: Callable[[Any], Any]) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        original = GraphStep._plan

        def wrong(self: GraphStep, batches: Batches) -> list[Any]:
            plan = original(self, batches)
            for name, arguments in plan:
                if name == kernel:
                    for argument, change in changes.items():
                        arguments[argument] = change(arguments[argument])
            return plan

        patch.setattr(GraphStep, "_plan", wrong)

    return plant


def _without_a_twin(patch: pytest.MonkeyPatch) -> None:
    group = graph_step._group
    patch.setattr(graph_step, "_group", lambda offset, layer, twin: group(offset, layer, None))


def _wide_twin(patch: pytest.MonkeyPatch) -> None:
    group = graph_step._group
    patch.setattr(
        graph_step, "_group", lambda offset, layer, twin: group(offset, layer, twin) | {"columns2": layer.outputs}
    )


def _without_bias(patch: pytest.MonkeyPatch) -> None:
    group = graph_step._group
    patch.setattr(graph_step, "_group", lambda *arguments: group(*arguments) | {"has_bias": 0})


def _warm_up_not_undone(patch: pytest.MonkeyPatch) -> None:
    capture = GraphStep._capture

    def wrong(self: GraphStep) -> Any:
        graph = capture(self)
        with self.stream:
            before = self.state.copy()
            self._launch_all(self.capacity)
            self.state[...] = before  # or the last step would read beyond the epoch
        return graph

    patch.setattr(GraphStep, "_capture", wrong)


def _cold_capture(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: GraphStep) -> Any:
        with self.stream:
            self.stream.begin_capture()
            self._launch_all(self.capacity)
            return self.stream.end_capture()

    patch.setattr(GraphStep, "_capture", wrong)


def _begin(change: Callable[..., tuple[Any, ...]]) -> Plant:
    original = GraphStep.begin_epoch
    return lambda patch: patch.setattr(
        GraphStep, "begin_epoch", lambda self, *arguments: original(self, *change(*arguments))
    )


def _no_pace(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GraphStep, "_keep_pace", lambda self: None)


def _losses_without_waiting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GraphStep, "losses", lambda self: self.xp.asnumpy(self.ring))


def _no_wait_for_the_default_stream(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fake_cuda.Stream, "wait_event", lambda self, event: None)


def _with_last_column_of_first_row(schedule: np.ndarray) -> np.ndarray:
    return np.concatenate([schedule[:, :3], np.full((len(schedule), 1), schedule[0, 3])], axis=1)


@dataclass(frozen=True)
class Bug:
    name: str
    plant: Plant
    killer: Callable[..., None]
    arguments: tuple[Any, ...] = ()
    error: type[Exception] = AssertionError  # that the killer ends in


FORMULAS = suite.test_steps_are_those_of_the_formulas
TILES = suite.test_steps_of_a_model_of_many_tiles_are_those_of_the_formulas
SMALL = CAPTURED[0]

# fmt: off
BUGS = [
    Bug("the cursor is not advanced",
        _arguments_changed("finish_step", state=lambda a: a.copy()), FORMULAS, (SMALL,)),
    Bug("the schedule is off by one",
        _begin(lambda order, key, schedule, first: (order, key, np.roll(schedule, 1, axis=0), first)),
        FORMULAS, (SMALL,)),
    Bug("1 / rows of a full batch for the smaller one",
        _begin(lambda order, key, schedule, first: (order, key, _with_last_column_of_first_row(schedule), first)),
        FORMULAS, (BY_NAME["bernoulli, beta 4"],)),
    Bug("the rows are not in the epoch's order",
        _begin(lambda order, key, schedule, first: (np.arange(len(order)), key, schedule, first)), FORMULAS, (SMALL,)),
    Bug("the key is forgotten",
        _begin(lambda order, key, schedule, first: (order, (0, 0), schedule, first)),
        suite.test_a_run_repeats_bit_for_bit_and_another_key_does_not),
    Bug("every epoch begins at batch 0",
        _begin(lambda order, key, schedule, first: (order, key, schedule, 0)),
        suite.test_an_epoch_can_begin_at_any_batch),
    Bug("a tied gradient lacks its second part", _without_a_twin, FORMULAS, (BY_NAME["bernoulli, tied"],)),
    Bug("a tied head's second part goes into logvar too", _wide_twin, TILES, (suite.LARGE[1],)),
    Bug("biases are not trained", _without_bias, FORMULAS, (SMALL,)),
    Bug("free bits reach the loss but not the gradient",
        _arguments_changed("latent_backward", free_bits=lambda f: 0.0), FORMULAS, (BY_NAME["bernoulli, free bits"],)),
    Bug("a learned sigma is not trained",
        _arguments_changed("finish_step", logvar=lambda a: None), FORMULAS, (BY_NAME["gaussian, sigma learned"],)),
    Bug("the wrong activation",
        _arguments_changed("layer_backward", activation=lambda n: n + 1), FORMULAS, (BY_NAME["bernoulli, deep"],)),
    Bug("the warm-up is not undone", _warm_up_not_undone,
        suite.test_a_replay_is_the_eager_step_bit_for_bit, (SMALL,)),
    Bug("no warm-up before the capture", _cold_capture,
        suite.test_a_step_of_one_hidden_layer_is_ten_kernels, error=fake_cuda.CUDADriverError),
    Bug("the host runs ahead", _no_pace, suite.test_the_host_keeps_pace_with_the_device),
    Bug("losses are read before they are there", _losses_without_waiting,
        suite.test_the_losses_are_those_of_all_steps_given_so_far),
    Bug("the steps do not wait for the default stream", _no_wait_for_the_default_stream,
        suite.test_a_run_repeats_bit_for_bit_and_another_key_does_not, error=fake_cuda.RaceError),
]
# fmt: on


@pytest.mark.parametrize("bug", sampled(BUGS, 3), ids=lambda bug: bug.name)
def test_the_named_killer_fails_under_the_bug_and_passes_without(
    fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, bug: Bug
) -> None:
    bug.killer(fake_cupy, *bug.arguments)
    fake_cuda.clock.reset()
    bug.plant(monkeypatch)
    with pytest.raises(bug.error) as caught:
        bug.killer(fake_cupy, *bug.arguments)
    assert caught.type is bug.error

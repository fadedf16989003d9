"""The injector itself: a toy that writes rightly passes every trial, and each fault planted in it is noticed."""

import re
from collections.abc import Iterator

import pytest
from injector import problem
from scenarios import FAULTS, Bench, Scenario, assert_right


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    if reason := problem():
        pytest.skip(reason)
    bench = Bench(tmp_path_factory.mktemp("toys"), module="toy_runs")
    yield bench
    bench.commands.close()


def toy(bug: str) -> Scenario:
    more = f" --bug {bug.replace(' ', '-')}" if bug else ""
    run = "{root}/runs/one"
    return Scenario(f"toy {bug}", f"train --out {run}{more}", resume=f"train --resume {run}{more}")


def test_a_toy_without_a_fault_of_its_own_survives_some_power_losses(toys: Bench) -> None:
    assert_right(toys.trial(toy(""), loss) for loss in list(toys.power_losses(toy("")))[::4])


@pytest.mark.faults
def test_a_toy_without_a_fault_of_its_own_survives_every_power_loss(toys: Bench) -> None:
    assert_right(toys.trial(toy(""), loss) for loss in toys.power_losses(toy("")))


@pytest.mark.parametrize("bug", ["forgets the last fsync", "forgets to fsync the file", "forgets to fsync the parent"])
def test_a_forgotten_fsync_is_noticed(toys: Bench, bug: str) -> None:
    trials = (toys.trial(toy(bug), loss) for loss in toys.power_losses(toy(bug)))
    assert any("was saved, and the command went on" in each for trial in trials for each in trial.wrong)


def test_a_toy_without_a_fault_of_its_own_passes_some_trials(toys: Bench) -> None:
    assert_right(toys.trial(toy(""), fault) for fault in toys.spread(toy(""))[::2])


@pytest.mark.faults
@pytest.mark.parametrize(("kind", "action"), FAULTS)
def test_a_toy_without_a_fault_of_its_own_passes_every_trial(toys: Bench, kind: str, action: str) -> None:
    assert_right(toys.sweep(toy(""), kind, action))


NOTICED = {  # a planted fault, a fault that brings it to light, and what the judge says then
    "writes in place": ("write", "torn", "at the end, "),
    "deletes the old one first": ("any", "KILL", "was saved before the fault"),
    "swallows errors": ("any", "EIO", "exit code 0, but"),
    "leaves its temporary file": ("write", "EIO", "is left over"),
    "shows a traceback": ("any", "EIO", "a traceback"),
    "tells another cause": ("any", "EIO", "the cause is not told"),
}


@pytest.mark.parametrize("bug", NOTICED)
def test_a_fault_planted_in_the_toy_is_noticed(toys: Bench, bug: str) -> None:
    kind, action, said = NOTICED[bug]
    wrong = (each for trial in toys.sweep(toy(bug), kind, action) for each in trial.wrong)
    assert any(re.search(said, each) for each in wrong)

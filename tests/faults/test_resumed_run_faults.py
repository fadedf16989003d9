"""Faults while a run is resumed, while it runs out of patience, and two faults after each other."""

import random

import pytest
from injector import Fault
from scenarios import FAULTS, RUNS, Bench, Scenario, Trial, assert_right


def test_some_faults(bench: Bench) -> None:
    run = RUNS["resumed"]
    assert_right(bench.trial(run, fault) for fault in bench.spread(run)[::3])


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "action"), FAULTS)
@pytest.mark.parametrize("run", ["resumed", "patience"])
def test_every_fault(bench: Bench, run: str, kind: str, action: str) -> None:
    assert_right(bench.sweep(RUNS[run], kind, action))


def two(bench: Bench, run: Scenario, draw: random.Random) -> Trial:
    """Ended at some call, then another fault at some call of what goes on."""
    calls = bench.count(run, "any")
    kind, action = draw.choice([("any", "KILL"), ("any", "EIO"), ("any", "EROFS+"), ("reading", "EIO")])
    second = Fault(kind, draw.randint(1, 40), action)
    return bench.trial_of_two(run, Fault("any", draw.randint(1, calls), "KILL"), second)


def test_some_pairs_of_faults(bench: Bench) -> None:
    draw = random.Random(0)
    assert_right(two(bench, RUNS["fresh"], draw) for _ in range(3))


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_many_pairs_of_faults(bench: Bench) -> None:
    draw = random.Random(1)
    assert_right(two(bench, RUNS[draw.choice(["fresh", "resumed"])], draw) for _ in range(200))

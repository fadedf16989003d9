"""Faults in what writes one file: the old one or the new one is there, and nothing else."""

import pytest
from scenarios import FAULTS, FILES, Bench, assert_right

HEAVY = ("generate-png",)  # half a second each


@pytest.mark.parametrize("name", ["generate-npy", "save"])
def test_some_faults(bench: Bench, name: str) -> None:
    file = FILES[name]
    assert_right(bench.trial(file, fault) for fault in bench.spread(file)[::2])


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FILES)
def test_every_fault(bench: Bench, name: str) -> None:
    faults = FAULTS[::4] if name in HEAVY else FAULTS
    assert_right(trial for kind, action in faults for trial in bench.sweep(FILES[name], kind, action))

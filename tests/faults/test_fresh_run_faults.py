"""Faults in a run from its start: at every call that it makes on its files. `pytest -m faults` runs all of them."""

import re

import pytest
from injector import Fault
from scenarios import FAULTS, RUNS, Bench, assert_right, read_tree, write_tree


def test_some_faults(bench: Bench) -> None:
    run = RUNS["fresh"]
    assert_right(bench.trial(run, fault) for fault in bench.spread(run))


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "action"), FAULTS)
def test_every_fault(bench: Bench, kind: str, action: str) -> None:
    assert_right(bench.sweep(RUNS["fresh"], kind, action))


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "action"), [("any", "KILL"), ("any", "EIO"), ("any", "INT"), ("room", "full")])
def test_faults_while_figures_are_drawn(bench: Bench, kind: str, action: str) -> None:
    run = RUNS["figures"]
    calls = [call for call in bench.undisturbed(run).outcome.calls if call.kind in Fault(kind, 0, action).kinds]
    first = next(n for n, call in enumerate(calls, 1) if "/figures" in call.path)
    places = range(first, len(calls) + 1, 3)
    assert_right(bench.trial(run, Fault(kind, n, action)) for n in places)


FRESH = ["any:20:KILL", "write:3:EIO", "any:9:INT", "any:30:TERM"]


@pytest.mark.parametrize("fault", [FRESH[0], *(pytest.param(each, marks=pytest.mark.faults) for each in FRESH[1:])])
def test_a_child_of_the_fork_server_does_as_a_fresh_process(bench: Bench, fault: str) -> None:
    scenario, reference = RUNS["fresh"], bench.undisturbed(RUNS["fresh"])
    seen = []
    for start in (bench.commands.run, bench.commands.run_fresh):
        write_tree(bench.root, reference.before)
        done = start(bench.words(scenario.command), bench.root, Fault.parse(fault))
        calls = [_without_numbers(str(call).replace(str(bench.root), "")) for call in done.calls]
        files = sorted(_without_numbers(name) for name in read_tree(bench.root))
        seen.append((done.code, done.err, calls, files))
    assert seen[0] == seen[1]


def _without_numbers(name: str) -> str:
    """Names without what is random in a temporary one's."""
    return re.sub(r"[0-9a-f]{3,}|\d+", "#", name)

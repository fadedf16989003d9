"""The sweeps take minutes: only `python -m pytest -m faults` runs them. A few trials of each run in every run."""

from collections.abc import Iterator

import pytest
from injector import problem
from scenarios import Bench


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "faults: every fault at every call of a short run: minutes; only `-m faults` runs it"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "faults" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("faults")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A place for trials of tinyvae's commands."""
    if reason := problem():
        pytest.skip(reason)
    bench = Bench(tmp_path_factory.mktemp("faults"))
    yield bench
    bench.commands.close()

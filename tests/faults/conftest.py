"""A place for trials."""

from collections.abc import Iterator

import pytest
from injector import problem
from scenarios import Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A place for trials of tinyvae's commands."""
    if reason := problem():
        pytest.skip(reason)
    bench = Bench(tmp_path_factory.mktemp("faults"))
    yield bench
    bench.commands.close()

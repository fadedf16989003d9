"""The published files: there and right, from a mirror, or one line that says what to put where."""

import gzip
import hashlib
import http.server
import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from stored_arrays import idx

from tinyvae.errors import DataError
from tinyvae.training.data import load, published
from tinyvae.training.data.published import Published, Source, fetch, load_idx_set
from tinyvae.training.progress import DownloadBar

# ------------------------------------------------------------------------------------------------------------- download


CONTENT = b"what the world publishes\n" * 200


FILE = Published("data.bin", f"sha256:{hashlib.sha256(CONTENT).hexdigest()}", len(CONTENT))


class Mirrors(http.server.ThreadingHTTPServer):
    """Mirrors on the loopback interface, one for each folder of the address, each with its own manners."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    def source(self, *manners: str) -> Source:
        return Source(
            tuple(f"http://127.0.0.1:{self.server_port}/{m}/" for m in manners), (FILE, Published("b", "", 0))
        )


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        manner = self.path.split("/")[1]
        assert isinstance(self.server, Mirrors)
        self.server.asked.append(manner)
        self.send_response({"forbidden": 403, "down": 503}.get(manner, 200))
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write({"other": CONTENT.swapcase(), "short": CONTENT[:1000]}.get(manner, CONTENT))

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirrors]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Mirrors() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def nothing(file: str) -> None:
    pass


def test_a_file_that_is_there_and_right_is_used_without_a_network(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(CONTENT)
    assert fetch(Source((), (FILE,)), FILE, tmp_path, nothing) == tmp_path / "data.bin"


def test_its_gzipped_form_is_as_good(tmp_path: Path) -> None:
    (tmp_path / "data.bin.gz").write_bytes(gzip.compress(CONTENT))
    assert fetch(Source((), (FILE,)), FILE, tmp_path, nothing) == tmp_path / "data.bin.gz"
    md5 = Published("data.bin", f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}", len(CONTENT))
    assert fetch(Source((), (md5,)), md5, tmp_path, nothing) == tmp_path / "data.bin.gz"


@pytest.mark.parametrize("name", ["data.bin", "data.bin.gz"])
def test_a_file_with_another_content_is_refused_and_left_alone(tmp_path: Path, mirrors: Mirrors, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content := gzip.compress(CONTENT[1:] + b"x"))
    with pytest.raises(DataError, match=r"is not the published file .its sha256 is [0-9a-f]{16}.*--data-dir.*delete"):
        fetch(mirrors.source("good"), FILE, tmp_path, nothing)
    assert path.read_bytes() == content
    assert mirrors.asked == []


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.bin").mkdir()
    with pytest.raises(DataError, match=r"data\.bin: is a folder, not a file"):
        fetch(Source((), (FILE,)), FILE, tmp_path, nothing)


def test_a_missing_file_comes_from_the_first_mirror_that_serves_it(tmp_path: Path, mirrors: Mirrors) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    told: list[str] = []
    path = fetch(mirrors.source("forbidden", "good", "never asked"), FILE, folder, told.append)
    assert path == folder / "data.bin"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in folder.iterdir()] == ["data.bin"]
    assert mirrors.asked == ["forbidden", "good"]
    assert set(told) == {"data.bin"}
    fetch(mirrors.source("good"), FILE, folder, nothing)
    assert mirrors.asked == ["forbidden", "good"]  # once is enough


@pytest.mark.parametrize("manner", ["forbidden", "down", "other", "short"])
def test_when_every_mirror_fails_nothing_is_left_and_the_message_says_what_to_put_where(
    tmp_path: Path, mirrors: Mirrors, manner: str
) -> None:
    with pytest.raises(DataError) as caught:
        fetch(mirrors.source(manner, manner), FILE, tmp_path, nothing)
    message = str(caught.value)
    assert "data.bin could not be downloaded" in message
    assert message.count("http://127.0.0.1") == 2  # each mirror with its own reason
    assert f"put these files into {tmp_path} (or name their folder with --data-dir): data.bin, b" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_message_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers there, and nobody else can take it
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(published, "MNIST", Source((address,), published.MNIST.files))
        monkeypatch.setattr("tinyvae.training.data.MNIST", published.MNIST)
        with pytest.raises(
            DataError, match=r"it refuses the connection.*train-images-idx3-ubyte\.gz, .*t10k-labels"
        ) as caught:
            load("mnist", tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, mirrors: Mirrors) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            DataError, match=r"file.*(cannot be written|is a file, not a folder).*choose another --data-dir"
        ):
            fetch(mirrors.source("good"), FILE, folder, nothing)


def test_an_idx_set_is_put_together_from_its_four_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [p.file for p in published.MNIST.files]
    arrays = [
        np.full(shape, i, np.uint8)
        for i, shape in enumerate([(60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,)])
    ]
    files = []
    for name, a in zip(names, arrays, strict=True):
        (tmp_path / name).write_bytes(content := gzip.compress(idx(a), compresslevel=1))
        files.append(Published(name, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)))
    mnist = load_idx_set("mnist", Source((), tuple(files)), tmp_path, nothing)
    assert mnist.y_train is not None
    assert mnist.y_test is not None
    assert [int(a.flat[0]) for a in (mnist.x_train, mnist.y_train, mnist.x_test, mnist.y_test)] == [0, 1, 2, 3]


# -------------------------------------------------------------------------------------------------------- progress bars


class Bar:
    """What a download drives."""

    def __init__(self) -> None:
        self.total, self.done, self.closed = 0, 0, False

    def update(self, n: int) -> None:
        self.done += n

    def close(self) -> None:
        self.closed = True


def test_a_progress_bar_is_filled_and_closed(tmp_path: Path, mirrors: Mirrors) -> None:
    bar = Bar()
    fetch(mirrors.source("good"), FILE, tmp_path, lambda file: bar)
    assert (bar.total, bar.done, bar.closed) == (len(CONTENT), len(CONTENT), True)


@pytest.mark.parametrize("manner", ["forbidden", "short"])
def test_the_bar_of_a_mirror_that_failed_is_closed_too(tmp_path: Path, mirrors: Mirrors, manner: str) -> None:
    bars: list[Bar] = []
    fetch(mirrors.source(manner, "good"), FILE, tmp_path, lambda file: bars.append(Bar()) or bars[-1])
    assert [bar.closed for bar in bars] == [True, True]


def test_the_bar_of_a_terminal_is_drawn_and_gives_the_cursor_back(tmp_path: Path, mirrors: Mirrors) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    fetch(mirrors.source("good"), FILE, tmp_path, lambda file: DownloadBar(console))
    drawn = screen.getvalue()
    assert "5.0/5.0 kB" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")  # shown after it was hidden

"""Downloads end, whatever a mirror sends and whenever they stop; nothing half-done stays, and each cause is named."""

import fcntl
import hashlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tinyvae.errors import DataError
from tinyvae.training.data import download
from tinyvae.training.data.published import Published, Source, fetch

CONTENT = b"what the world publishes\n" * 200
FILE = Published("data.bin", f"sha256:{hashlib.sha256(CONTENT).hexdigest()}", len(CONTENT))


class Mirrors(http.server.ThreadingHTTPServer):
    """Mirrors on the loopback interface, one for each folder of the address, each with its own manners."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.closing = threading.Event()
        self.sent = 0

    def address(self, manner: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{manner}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up is what is tested


class Handler(http.server.BaseHTTPRequestHandler):
    server: Mirrors  # pyright: ignore[reportIncompatibleVariableOverride] - it is no other here

    def do_GET(self) -> None:
        getattr(self, self.path.split("/")[1])()

    def begin(self, code: int = 200, **headers: object) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def good(self) -> None:
        self.begin(Content_Length=len(CONTENT))
        self.wfile.write(CONTENT)

    def missing(self) -> None:
        self.begin(404)

    def busy(self) -> None:
        self.begin(503)

    def another(self) -> None:
        self.begin(Content_Length=len(CONTENT))
        self.wfile.write(CONTENT.swapcase())

    def short(self) -> None:
        self.begin(Content_Length=len(CONTENT))
        self.wfile.write(CONTENT[:1000])

    def page(self) -> None:
        self.begin(Content_Type="text/html; charset=utf-8")
        self.wfile.write(b"<html>sign in</html>")

    def endless(self) -> None:
        self.begin()
        self.pour(bytes(1 << 16), 0.0)

    def trickle(self) -> None:
        self.begin(Content_Length=len(CONTENT))
        self.pour(b"x", 0.01)

    def silent(self) -> None:
        self.begin(Content_Length=len(CONTENT))
        self.pour(b"", 0.01)

    def loop(self) -> None:
        self.begin(302, Location=self.server.address("loop") + "data.bin", Content_Length=0)

    def poured_redirection(self) -> None:
        self.begin(302, Location=self.server.address("good") + "data.bin")
        self.pour(bytes(1 << 16), 0.0)

    def noise(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")

    def pour(self, block: bytes, pause: float) -> None:
        while not self.server.closing.wait(pause):
            self.wfile.write(block)
            self.server.sent += len(block)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def mirrors() -> Iterator[Mirrors]:
    with pytest.MonkeyPatch.context() as patch, Mirrors() as server:
        patch.setenv("NO_PROXY", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)


def refusal(folder: Path, *addresses: str) -> str:
    """What is said when no mirror serves the file; and nothing is left, not even the folders."""
    with pytest.raises(DataError) as caught:
        fetch(Source(addresses, (FILE,)), FILE, folder / "a" / "b", lambda file: None)
    assert list(folder.iterdir()) == []
    message = str(caught.value)
    assert "\n" not in message
    assert "Error" not in message  # the name of an exception is no cause
    return message


CAUSES = {
    "missing": "it answers 404 Not Found",
    "busy": "it answers 503 Service Unavailable",
    "another": "what it serves is not the published file (it has another hash)",
    "short": f"it sent 1,000 of {len(CONTENT):,} bytes",
    "page": "it answers with a web page, not with the file",
    "endless": f"what it serves is not the published file (it is longer than {len(CONTENT):,} bytes)",
    "loop": "it redirects without an end",
    "noise": "it does not answer as a web server does",
    "trickle": "it sends too slowly",
    "silent": "no answer within 0.2 s",
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("manner", CAUSES)
def test_each_misbehaving_mirror_is_left_soon_and_its_true_cause_is_named(
    tmp_path: Path, mirrors: Mirrors, manner: str
) -> None:
    began = time.monotonic()
    assert f"{mirrors.address(manner)}: {CAUSES[manner]}" in refusal(tmp_path, mirrors.address(manner))
    assert time.monotonic() - began < 10


def test_no_more_than_the_published_size_is_written(
    tmp_path: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    transfer = download._transfer

    def watched(url: str, file: Any, *args: Any) -> str | None:
        problem = transfer(url, file, *args)
        written.append(file.tell())
        return problem

    monkeypatch.setattr(download, "_transfer", watched)
    refusal(tmp_path, mirrors.address("endless"))
    assert written[0] <= len(CONTENT)


def test_an_endless_text_beside_a_redirection_is_not_read(tmp_path: Path, mirrors: Mirrors) -> None:
    before = mirrors.sent
    path = fetch(Source((mirrors.address("poured_redirection"),), (FILE,)), FILE, tmp_path, lambda file: None)
    assert path.read_bytes() == CONTENT
    assert mirrors.sent - before < 50_000_000  # what fits into the sockets' buffers; the rest meets a closed door


def test_what_is_wrong_with_the_network_is_named(
    tmp_path: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no secure connection" in refusal(tmp_path, mirrors.address("good").replace("http:", "https:"))
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        assert "it refuses the connection" in refusal(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}/")

    def unknown(*args: Any, **options: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "its name cannot be found" in refusal(tmp_path, "http://mirror.invalid/")


def test_each_mirror_has_its_own_cause(tmp_path: Path, mirrors: Mirrors) -> None:
    message = refusal(tmp_path, mirrors.address("missing"), mirrors.address("another"))
    assert message.index("404") < message.index("another hash")


def test_a_full_disk_is_called_so(tmp_path: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = refusal(tmp_path, mirrors.address("good"))
    assert "cannot be written (No space left on device)" in message


# ------------------------------------------------------------------------------------------------- stopped and killed

DOWNLOAD = """
import sys
from pathlib import Path
from tinyvae.commands import main, train
from tinyvae.training.data import published
source = published.Source((sys.argv[1],), published.MNIST.files)
published.MNIST = source
import tinyvae.training.data
tinyvae.training.data.MNIST = source
sys.exit(main(["train", "--data", "mnist", "--data-dir", sys.argv[2], "--out", sys.argv[3]]))
"""


def downloading(address: str, folder: Path) -> subprocess.Popen[str]:
    """A process that has begun to download into folder/a/b."""
    command = [sys.executable, "-c", DOWNLOAD, address, str(folder / "a" / "b"), str(folder / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(folder.glob("a/b/.*.partial")) and time.monotonic() < end:
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_download_is_one_line_and_leaves_nothing(
    tmp_path: Path, mirrors: Mirrors, number: int, code: int
) -> None:
    process = downloading(mirrors.address("silent"), tmp_path)
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (code, "tinyvae train: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_download_leaves_goes_at_the_next_start_and_nothing_else_does(
    tmp_path: Path, mirrors: Mirrors
) -> None:
    ours, others = (
        tmp_path / f".data.bin.{'0' * 16}.partial",
        [
            tmp_path / name
            for name in (
                "tmp1234",
                "data.bin.partial",
                ".data.bin.xyz.partial",
                f".other.bin.{'0' * 16}.partial",
                "note.txt",
            )
        ],
    )
    running = tmp_path / f".data.bin.{'1' * 16}.partial"
    link = tmp_path / f".data.bin.{'2' * 16}.partial"
    for path in (ours, running, *others):
        path.write_bytes(b"some")
    link.symlink_to(others[-1])
    with running.open("rb") as file:  # another process is downloading into it
        fcntl.flock(file, fcntl.LOCK_EX)
        fetch(Source((mirrors.address("good"),), (FILE,)), FILE, tmp_path, lambda file: None)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"data.bin", running.name, link.name, *(path.name for path in others)}
    fetch(Source((), (FILE,)), FILE, tmp_path, lambda file: None)  # the file is there; who wrote the other has gone
    assert not running.exists()


def test_a_killed_process_leaves_one_file_of_our_name_that_can_be_taken(tmp_path: Path, mirrors: Mirrors) -> None:
    process = downloading(mirrors.address("silent"), tmp_path)
    process.kill()
    process.communicate(timeout=10)
    folder = tmp_path / "a" / "b"
    assert len(list(folder.iterdir())) == 1
    published = Published("train-images-idx3-ubyte.gz", FILE.hash, FILE.size)
    path = fetch(Source((mirrors.address("good"),), (published,)), published, folder, lambda file: None)
    assert list(folder.iterdir()) == [path]

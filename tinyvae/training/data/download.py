"""One published file from one of its mirrors: of a known size and hash, in its folder whole or not at all."""

import hashlib
import http.client
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from tinyvae.errors import DataError
from tinyvae.training.data.partial import partial_file
from tinyvae.training.data.published import Progress
from tinyvae.training.data.regular import exists, reason
from tinyvae.training.signals import termination_interrupts

TIMEOUT = 30.0  # seconds without an answer before the next mirror is tried
SLOWEST = 2_000  # bytes per second, on average after the first TIMEOUT seconds: what sends less may send for ever
BLOCK = 1 << 16


class NoMirrorError(Exception):
    """No mirror served the file; the message says why, for each."""


def download(mirrors: tuple[str, ...], name: str, digest: str, size: int, folder: Path, progress: Progress) -> Path:
    """The path of the file in `folder`, which is made if need be.

    name, digest, size  the file's name, "sha256:..." or "md5:..." of it, and its bytes: no more are taken

    Raises NoMirrorError if no mirror serves it, DataError if the folder cannot be written. Then, and if it is
    interrupted, nothing that was made is left, no file and no folder; `remove_leftovers` takes what a kill leaves.
    """
    made = [path for path in (folder, *folder.parents) if not exists(path)]  # from the innermost
    with termination_interrupts():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return _from_any(mirrors, name, digest, size, folder, progress)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({reason(error)}); choose another --data-dir") from error
        finally:
            for path in made:
                with suppress(OSError):
                    path.rmdir()  # only if nothing is in it


def _from_any(mirrors: tuple[str, ...], name: str, digest: str, size: int, folder: Path, progress: Progress) -> Path:
    problems = []
    for mirror in mirrors:
        bar = progress(name)
        try:
            with partial_file(folder, name) as (file, path):
                problem = _transfer(mirror + name, file, digest, size, bar)
                if problem is None:
                    file.flush()
                    os.fsync(file.fileno())
                    path.replace(folder / name)
                    return folder / name
                problems.append(f"{mirror}: {problem}")
        finally:
            if bar is not None:
                bar.close()
    raise NoMirrorError(f"{name} could not be downloaded ({'; '.join(problems)})")


def _transfer(url: str, file: BinaryIO, digest: str, size: int, bar: Any) -> str | None:
    """Copy the address into the file; None, or in a few words why it is not the published file that came."""
    algorithm, expected = digest.split(":")
    h, came, began = hashlib.new(algorithm, usedforsecurity=False), 0, time.monotonic()
    if bar is not None:
        bar.total = size
    for block in _blocks(url):
        if isinstance(block, str):
            return block
        came += len(block)
        if came > size:
            return f"what it serves is not the published file (it is longer than {size:,} bytes)"
        h.update(block)
        file.write(block)
        if bar is not None:
            bar.update(len(block))
        seconds = time.monotonic() - began
        if seconds > TIMEOUT and came < SLOWEST * seconds:
            return f"it sends too slowly ({came:,} bytes in {seconds:.0f} s)"
    if h.hexdigest() == expected:
        return None
    if came < size:
        return f"it sent {came:,} of {size:,} bytes"
    return "what it serves is not the published file (it has another hash)"


def _blocks(url: str) -> Iterator[bytes | str]:
    """What comes from an address, as it comes; should it fail, the reason last."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "tinyvae", "Accept-Encoding": "identity"})
        opener = urllib.request.build_opener(_Redirects, urllib.request.HTTPSHandler(context=_certificates()))
        with opener.open(request, timeout=TIMEOUT) as response:
            if response.headers.get_content_type() == "text/html":
                yield "it answers with a web page, not with the file"
                return
            while block := response.read1(BLOCK):  # what is there already: a trickle is seen as such
                yield block
    except (OSError, http.client.HTTPException, ValueError) as error:
        yield _cause(error)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows as usual, but does not read what comes with a redirection: it could be endless."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        fp.close()
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _certificates() -> ssl.SSLContext:
    """Those of the system, and where they are lacking (Python on a Mac) those that come with certifi."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:
        with suppress(ImportError):
            import certifi

            context.load_verify_locations(certifi.where())
    return context


def _cause(error: BaseException) -> str:
    """A failed transfer in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if 300 <= error.code < 400:
            return "it redirects without an end"
        return f"it answers {error.code} {http.client.responses.get(error.code, '')}".rstrip()
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return _cause(error.reason)
    if isinstance(error, socket.gaierror):
        return "its name cannot be found: is there a network?"
    if isinstance(error, ssl.SSLError):
        return f"no secure connection ({getattr(error, 'verify_message', '') or error.reason or 'TLS failed'})"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "it refuses the connection"
    if isinstance(error, http.client.IncompleteRead | ConnectionError):
        return "it broke off the connection"
    if isinstance(error, http.client.HTTPException):
        return "it does not answer as a web server does"
    return reason(error)

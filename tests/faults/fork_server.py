"""The fork server: a process with everything imported, which makes a child for each command. Run by injector.py.

A fresh Python takes most of a second to import NumPy and matplotlib; a child of this one takes some milliseconds. The
child is what a fresh `python -m tinyvae` would be: its own standard streams, Python's signal handlers, the module run
as `__main__`, the streams flushed and the exit functions called at the end. What a command has imported is imported
here too when it is done, so that the next child finds it there.

A request is a line of JSON, and so is the answer: {"code": exit code or -signal, "hung": bool}.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import time
import traceback
import warnings
from typing import Any

sys.modules["numba"] = None  # type: ignore[assignment]  - not to be compiled with in every child


def serve() -> None:
    """Answer until the input ends."""
    while line := sys.stdin.readline():
        request = json.loads(line)
        done = _in_a_child(request)
        if request["modules"]:
            _import_all(request["modules"])
        print(json.dumps(done), flush=True)


def _in_a_child(request: dict[str, Any]) -> dict[str, Any]:
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = _run(request)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    deadline = time.monotonic() + request["limit"]
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return {"code": os.waitstatus_to_exitcode(status), "hung": False}
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"code": -signal.SIGKILL, "hung": True}
        time.sleep(0.001)


def _run(request: dict[str, Any]) -> int:
    """In the child: run the module as a fresh process would; the exit code."""
    streams = [(os.devnull, os.O_RDONLY), *((request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in "oe")]
    for number, (path, flags) in enumerate(streams):
        os.dup2(os.open(path, flags, 0o600), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)
    os.chdir(request["cwd"])
    sys.argv = [request["module"], *request["argv"]]
    if request["root"]:
        arm = ctypes.CDLL(None).fault_setup  # of the shim, which is preloaded
        arm(*(request[name].encode() for name in ("root", "spec", "log")))
    code = _call(request)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if request["modules"]:
        with open(request["modules"], "w") as file:  # noqa: PTH123 - the path is a plain string here
            json.dump(sorted(sys.modules), file)
    return code


def _call(request: dict[str, Any]) -> int:
    try:
        if request["argv"][0] == "-c":
            exec(compile(request["argv"][1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if isinstance(stop.code, int) or stop.code is None:
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _import_all(path: str) -> None:
    with open(path) as file:  # noqa: PTH123 - the path is a plain string here
        names = json.load(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            if not name.endswith("__main__"):
                with contextlib.suppress(BaseException):
                    importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the children share these pages


if __name__ == "__main__":
    serve()

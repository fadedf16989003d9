"""Every candidate runs in a process of its own, with an environment that is the same for all and written down.

OpenBLAS reads OPENBLAS_* when NumPy loads it. A benchmark measures defaults, so none of these variables reaches a
candidate, whatever the shell has set. tinyvae's training command chooses some for the CPU it finds (`tinyvae.blas`);
its candidates get what it chooses.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyvae import blas

HERE = Path(__file__).resolve().parent.parent
ERROR = re.compile(r"[\w.]*(Error|Exception)(:|$)")  # how Python begins the line that says what went wrong
ANSWER = "answer: "  # begins the line that holds it; libraries print what they like on other lines


class ChildError(Exception):
    """A measurement failed; the message is the last line it wrote that names an error, else the last line."""


def child_environment(environ: Mapping[str, str], *, ours: bool, tf32: bool = False) -> dict[str, str]:
    """The environment of a candidate's process. `ours`: with the variables that the training command chooses."""
    env = {name: value for name, value in environ.items() if not name.startswith("OPENBLAS_")}
    if ours:
        env |= blas.choose(env)
    env["CUPY_TF32"] = "1" if tf32 else "0"
    env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # JAX would take most of the GPU's memory, and others run beside it
    return env


def with_packages_of(checkout: Path, env: Mapping[str, str]) -> dict[str, str]:
    """An environment whose Python finds the packages of a checkout, and these first."""
    return {**env, "PYTHONPATH": os.pathsep.join([str(checkout), *filter(None, [env.get("PYTHONPATH")])])}


def checkout_environment(environ: Mapping[str, str], checkout: Path, threads: int | None) -> dict[str, str]:
    """The environment of a process that runs a checkout's code. It chooses OpenBLAS's variables itself (`side`)."""
    env = with_packages_of(checkout, child_environment(environ, ours=False))
    return env | ({} if threads is None else {"OPENBLAS_NUM_THREADS": str(threads)})


class Child:
    """A process that calls functions of this package, one after the other, until it is closed.

    With `checkout`, a folder: of the package there, and of the tinyvae there.
    """

    def __init__(
        self, *, ours: bool, tf32: bool = False, checkout: Path | None = None, threads: int | None = None
    ) -> None:
        if checkout is None:
            env = with_packages_of(HERE, child_environment(os.environ, ours=ours, tf32=tf32))
        else:
            env = checkout_environment(os.environ, checkout, threads)
        self.stderr = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.processes"],
            cwd=checkout, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, text=True,
        )  # fmt: skip

    def ask(self, task: str, **request: Any) -> Any:
        """What `module.function` returns for the request; both ways through JSON. Raises ChildError if it fails."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([task, request]) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # it has ended; why is told below
            pass
        for line in self.process.stdout:
            if line.startswith(ANSWER):
                return json.loads(line.removeprefix(ANSWER))
        code = self.process.wait()
        self.stderr.seek(0)
        lines = [line.strip() for line in self.stderr if line.strip()]
        errors = [line for line in lines if ERROR.match(line)]
        raise ChildError((errors or lines or [f"exit code {code}"])[-1])

    def peak(self) -> int:
        """The most memory that it has had so far, in bytes, as Linux counts it. Raises OSError on other systems."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])  # kB there

    def close(self) -> None:
        """Let it end, once it has done what it is at."""
        self.process.communicate()  # closes its stdin, which ends its loop
        self.stderr.close()


class Children:
    """The processes of a measurement. Use it in a `with` statement.

    On a CPU each task gets a fresh one: where its buffers come to lie is luck, and a round should not repeat the luck
    of the last. On a GPU, where starting takes far longer than measuring, each candidate keeps the process it has.
    `checkout` and `threads` (of OpenBLAS there): see `Child`.
    """

    def __init__(
        self, backend: str, tf32: bool = False, checkout: Path | None = None, threads: int | None = None
    ) -> None:
        self.keep, self.tf32 = backend == "cupy", tf32
        self.checkout, self.threads = checkout, threads
        self.kept: dict[str, Child] = {}

    def ask(self, name: str, task: str, *, ours: bool, **request: Any) -> Any:
        """Let the candidate `name` do a task."""
        child = self.kept.pop(name, None)
        child = child or Child(ours=ours, tf32=self.tf32, checkout=self.checkout, threads=self.threads)
        try:
            answer = child.ask(task, **request)
        except BaseException:
            child.process.kill()  # nobody waits for its answer any more
            child.close()
            raise
        if self.keep:
            self.kept[name] = child
        else:
            child.close()
        return answer

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.kept.values():
            child.close()


def ask_once(task: str, *, ours: bool, **request: Any) -> Any:
    """A single task in a process of its own."""
    with Children("numpy") as children:
        return children.ask("", task, ours=ours, **request)


def main() -> None:
    """The child's side: a request on each line of stdin."""
    for line in sys.stdin:
        task, request = json.loads(line)
        module, function = task.split(".")
        answer = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**request)
        print(f"{ANSWER}{json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    main()

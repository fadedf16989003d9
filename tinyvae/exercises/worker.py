"""A check in a process of its own: a learner's file may print, never end, or end the process.

    python -m tinyvae.exercises.worker NAME FILE RESULT LIMIT

judges FILE as the exercise NAME and writes the verdict to RESULT as JSON; after LIMIT seconds Python's own fault
handler writes where the file was to RESULT.stack, and ends the process.
"""

import contextlib
import faulthandler
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tinyvae.errors import TinyvaeError
from tinyvae.exercises.learner import Failure, Found, load

LIMIT = 20.0  # seconds; a check takes about one
GRACE = 15.0  # more, for Python to start


def check(name: str, path: Path, limit: float = LIMIT) -> tuple[tuple[str, ...], Failure | None]:
    """What holds of the learner's file, and the first failure, or None.

    Raises TinyvaeError if Hypothesis is not installed.
    """
    if find_spec("hypothesis") is None:
        raise TinyvaeError("checking needs Hypothesis: python -m pip install hypothesis")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "tinyvae.exercises.worker", name, str(path), str(result), str(limit)]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "HYPOTHESIS_STORAGE_DIRECTORY": folder}
        errors, code = "", None
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                command, env=environment, timeout=limit + GRACE, stdin=subprocess.DEVNULL, check=False, text=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, errors="replace",
            )  # fmt: skip
            errors, code = done.stderr, done.returncode
        if result.exists():
            content = json.loads(result.read_text(encoding="utf-8"))
            return tuple(content["holds"]), _failure(content["failure"])
        if code == 1 and "Traceback (most recent call last)" in errors:  # Python's own code for that
            raise RuntimeError(f"the check itself is at fault:\n{errors}")
        return (), _ended(path, Path(f"{result}.stack"), limit)


def main(name: str, file: str, result: str, limit: str) -> None:
    """The child's side."""
    with Path(f"{result}.stack").open("w") as stack:
        faulthandler.dump_traceback_later(float(limit), exit=True, file=stack)
        holds, failure = judged(name, Path(file))
        faulthandler.cancel_dump_traceback_later()
    content = {"holds": holds, "failure": None if failure is None else asdict(failure)}
    Path(result).write_text(json.dumps(content), encoding="utf-8")


def judged(name: str, path: Path) -> tuple[tuple[str, ...], Failure | None]:
    """The check itself, in this process."""
    from tinyvae.exercises.judge import judge  # these need Hypothesis
    from tinyvae.exercises.tasks import TASKS

    warnings.simplefilter("ignore")
    task, printed = TASKS[name], io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            function = load(path, task.solution)
    except Found as found:
        return (), found.failure
    verdict = judge(task, function, path)
    return verdict.holds, verdict.failure


def _failure(content: dict[str, Any] | None) -> Failure | None:
    if content is None:
        return None
    lines = tuple((label, text) for label, text in content["lines"])
    return Failure(content["says"], lines, content["look"], content["printed"])


def _ended(path: Path, stack: Path, limit: float) -> Failure:
    """The process left no verdict: it was stopped, or the learner's file ended it."""
    said = stack.read_text(encoding="utf-8", errors="replace") if stack.exists() else ""
    if not said:
        return Failure("the check ended with the process: does the file call os._exit, or crash in a library?")
    places = re.findall(rf'File "{re.escape(str(path))}", line (\d+)', said)
    lines = path.read_text(encoding="utf-8").splitlines()
    where = ((f"line {places[0]}", lines[int(places[0]) - 1].strip()),) if places else ()
    return Failure(f"it had not ended after {limit:g} seconds", where, "is there a loop that never ends?")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Commands that run under a fault: which call fails or kills, and what came of it. Nothing here knows tinyvae."""

import errno
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent

KINDS = (
    "open",
    "write",
    "fsync",
    "rename",
    "mkdir",
    "unlink",
    "truncate",
    "link",
    "close",
    "lock",
    "read-open",
    "read",
    "list",
)  # fmt: skip - in the shim's order; "open" is for writing, "unlink" has rmdir in it
CHANGING = KINDS[:10]
GROUPS = {
    "any": CHANGING,
    "name": ("open", "rename", "mkdir", "unlink", "link"),  # what permissions can forbid
    "room": ("open", "write", "mkdir"),  # what a full disk can refuse
    "reading": KINDS[10:],
}
HALVES = {"short": "h", "torn": "t", "full": "f"}


def problem() -> str | None:
    """Why no fault can be injected here, or None."""
    if sys.platform != "linux":
        return f"faults are injected by LD_PRELOAD, which {sys.platform} has not"
    if platform.libc_ver()[0] != "glibc":
        return "the shim that injects faults is written for glibc"
    return None if _compiler() else "no C compiler (cc or gcc) to build the shim with"


def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path) -> Path:
    """The shim, compiled into the folder."""
    shim = folder / "shim.so"
    compiler = _compiler()
    assert compiler
    options = ["-Wall", "-O1", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"]
    done = subprocess.run(
        [compiler, *options, "-o", str(shim), str(HERE / "shim.c"), "-ldl"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the shim does not compile:\n{done.stderr}")
    return shim


@dataclass(frozen=True)
class Fault:
    """KIND:N:ACTION. The N-th call (from 1) of a kind or group of kinds meets an ACTION.

    KILL, TERM, INT, HUP   this signal comes before the call
    EIO, ENOSPC, ...       the call fails so; EIO+: and every later one of the kind
    short                  half of a write is done, and the call says so
    torn                   half of a write is done, then SIGKILL comes
    full                   half of a write is done; then and later nothing that needs room succeeds

    And power:N:MIXTURE, no fault of a call: the power fails after the N-th line of the log (see power_loss.py).
    """

    kind: str
    n: int
    action: str

    @classmethod
    def parse(cls, text: str) -> "Fault":
        kind, n, action = text.split(":")
        return cls(kind, int(n), action)

    def __str__(self) -> str:
        return f"{self.kind}:{self.n}:{self.action}"

    @property
    def kinds(self) -> tuple[str, ...]:
        return GROUPS.get(self.kind, (self.kind,))

    @property
    def signal(self) -> int:
        """The signal that ends the process, or 0."""
        if self.action == "torn":
            return signal.SIGKILL
        return getattr(signal, f"SIG{self.action}", 0)

    @property
    def error(self) -> int:
        """The errno that the process is told, or 0."""
        return errno.ENOSPC if self.action == "full" else getattr(errno, self.action.rstrip("+"), 0)

    @property
    def lasts(self) -> bool:
        """Later calls fail too: what is left behind cannot be cleaned up."""
        return self.action == "full" or self.action.endswith("+")

    @property
    def spec(self) -> str:
        """As the shim reads it."""
        if self.action in HALVES:
            letter, value = HALVES[self.action], 0
        elif self.signal:
            letter, value = "s", self.signal
        else:
            letter, value = "E" if self.lasts else "e", self.error
            assert value, self.action
        return f"{mask(self.kinds)} {self.n} {letter} {value}"


def mask(kinds: tuple[str, ...]) -> int:
    """The kinds as the shim's sum of bits."""
    return sum(1 << KINDS.index(kind) for kind in kinds)


@dataclass(frozen=True)
class Call:
    """A line of the shim's log."""

    kind: str
    outcome: str  # ok, an errno, or the shim's letter and !
    path: str
    new_path: str

    @property
    def spoiled(self) -> bool:
        return self.outcome.endswith("!")

    @property
    def ok(self) -> bool:
        return self.outcome.startswith("ok")

    def __str__(self) -> str:
        return f"{self.kind} {self.path}{' -> ' + self.new_path if self.new_path else ''}"


@dataclass(frozen=True)
class Outcome:
    """What came of a command."""

    argv: tuple[str, ...]
    code: int  # the exit code, or -signal
    hung: bool
    out: str
    err: str
    calls: tuple[Call, ...]

    def count(self) -> Counter[str]:
        """How often each kind and group of kinds was called."""
        kinds = Counter(call.kind for call in self.calls)
        groups = {name: sum(kinds[kind] for kind in members) for name, members in GROUPS.items()}
        return Counter({**kinds, **groups})

    @property
    def spoiled(self) -> Call | None:
        """The first call that the fault met."""
        return next((call for call in self.calls if call.spoiled), None)


class Commands:
    """Runs commands of a Python module, each in a child of one process that has the module's imports behind it."""

    def __init__(self, folder: Path, module: str, limit: float = 30) -> None:
        self.folder, self.module, self.limit = folder, module, limit
        self.shim = build(folder)
        self.known: set[str] = set()  # commands whose imports the server has
        with (folder / "server.err").open("wb") as errors:
            self.server = subprocess.Popen(
                [sys.executable, str(HERE / "fork_server.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=errors, text=True, env=self._environment(),
            )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        folders = [str(HERE.parents[1]), str(HERE), os.environ.get("PYTHONPATH")]  # of the package and of the toy
        here = os.pathsep.join(filter(None, folders))
        return {**os.environ, "PYTHONPATH": here, "LD_PRELOAD": str(self.shim), "OPENBLAS_NUM_THREADS": "1"}

    def close(self) -> None:
        """End the server."""
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait()

    def run(
        self, argv: list[str], root: Path | None = None, fault: Fault | None = None, copies: bool = False
    ) -> Outcome:
        """`python -m MODULE ARGV` (or `-c CODE`), with the calls under `root` logged, and one of them spoiled.

        copies: what each fsync makes safe is kept beside the log.
        """
        assert self.server.stdin
        assert self.server.stdout
        known = argv[0]
        request = {
            "module": self.module, "argv": argv, "cwd": str(self.folder), "limit": self.limit,
            "o": str(self.folder / "out"), "e": str(self.folder / "err"),
            "root": str(root) if root else "", "spec": self._spec(fault, copies), "log": str(self.folder / "log"),
            "modules": "" if known in self.known else str(self.folder / "modules"),
        }  # fmt: skip
        if fault is None:
            self.known.add(known)
        else:
            request["modules"] = ""
        (self.folder / "log").write_text("")
        try:
            self.server.stdin.write(json.dumps(request) + "\n")
            self.server.stdin.flush()
            done = json.loads(self.server.stdout.readline())
        except (OSError, ValueError) as error:
            raise RuntimeError(f"the fork server ended: {(self.folder / 'server.err').read_text()}") from error
        return self._outcome(argv, done["code"], done["hung"])

    def run_fresh(self, argv: list[str], root: Path, fault: Fault | None = None) -> Outcome:
        """The same in a process of its own, slowly."""
        (self.folder / "log").write_text("")
        environment = {
            **self._environment(), "FAULT_ROOT": str(root), "FAULT_SPEC": self._spec(fault),
            "FAULT_LOG": str(self.folder / "log"),
        }  # fmt: skip
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            done = subprocess.run(
                [sys.executable, "-m", self.module, *argv], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env=environment, cwd=self.folder, timeout=60, check=False,
            )  # fmt: skip
        return self._outcome(argv, done.returncode, False)

    def _spec(self, fault: Fault | None, copies: bool = False) -> str:
        return fault.spec if fault else f"{mask(KINDS)} 0 {'c' if copies else 'n'} 0"

    def _outcome(self, argv: list[str], code: int, hung: bool) -> Outcome:
        out, err, log = ((self.folder / name).read_text(errors="replace") for name in ("out", "err", "log"))
        calls = tuple(Call(*line.split("\t")) for line in log.splitlines())
        return Outcome(tuple(argv), code, hung, out, err, calls)

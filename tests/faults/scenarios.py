"""What is run under faults, and what a user may expect then. Known of tinyvae: its commands, and what a run holds.

A trial is a scenario and a fault. A run's trial: the command under the fault, then what a user would do: `--resume`,
and where no checkpoint was made yet, the command again. In the end the run must hold what the undisturbed one holds.
"""

import csv
import io
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from injector import CHANGING, KINDS, Call, Commands, Fault, Outcome
from power_loss import Disk, Tree
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors

SMALL = (
    "train --data {data} --hidden 6 --latent 2 --batch-size 12 --checkpoint-every 1 --backend numpy --kernels numpy "
    "--lr 0.3"
)
STEP = re.compile(r"step-(\d+)\.safetensors$")
VARYING = {"command", "versions", "platform", "history"}  # keys of config.json that tell one command from another
EXTRA = " is there too"
GOLDEN = (math.sqrt(5) - 1) / 2
TIMES = {"seconds"}  # columns of metrics.csv


@dataclass(frozen=True)
class Scenario:
    """A command under faults. In the words, {root} is the folder under watch, {data} a file, {model} a trained run."""

    name: str
    command: str
    before: tuple[str, ...] = ()  # commands that make what is there already
    resume: str = ""  # of a run: what goes on with it
    run: str = "runs/one"  # of a run: its directory under {root}
    target: str = ""  # of a command that writes one file: that file's name under {root}
    library: bool = False  # a call of the library: it raises


RUNS = {
    each.name: each
    for each in (
        Scenario(
            "fresh",
            f"{SMALL} --epochs 3 --no-figures --out {{root}}/runs/one",
            resume="train --resume {root}/runs/one --no-figures",
        ),
        Scenario(
            "resumed",
            "train --resume {root}/runs/one --epochs 4 --no-figures",
            before=(f"{SMALL} --epochs 2 --no-figures --out {{root}}/runs/one",),
            resume="train --resume {root}/runs/one --epochs 4 --no-figures",
        ),
        Scenario(
            "patience",
            f"{SMALL} --epochs 20 --patience 2 --no-figures --out {{root}}/runs/one",
            resume="train --resume {root}/runs/one --no-figures",
        ),
        Scenario(
            "figures",
            f"{SMALL} --epochs 1 --out {{root}}/runs/one",
            resume="train --resume {root}/runs/one",
        ),
    )
}

FILES = {
    each.name: each
    for each in (
        Scenario("generate-npy", "generate {model} --n 500 --out {root}/x.npy", target="x.npy"),
        Scenario("generate-png", "generate {model} --n 3 --out {root}/x.png", target="x.png"),
        Scenario("embed-csv", "embed {model} {data} --out {root}/z.csv", target="z.csv"),
        Scenario("embed-npz", "embed {model} {data} --out {root}/z.npz", target="z.npz"),
        Scenario(
            "save",
            "-c import tinyvae; tinyvae.save(tinyvae.VAE(9, (6,), 2), r'{root}/m.safetensors')",
            target="m.safetensors",
            library=True,
        ),
        Scenario(
            "generate-from-it",
            "generate {root}/runs/one --n 3 --out {root}/x.npy",
            before=(f"{SMALL} --epochs 3 --no-figures --out {{root}}/runs/one",),
            target="x.npy",
        ),
        Scenario("anomaly-csv", "anomaly {model} {data} --out {root}/s.csv", target="s.csv"),
    )
}
OLD = b"what was here before\n"

# every fault, at every call that it can meet
FAULTS = (
    ("any", "KILL"), ("write", "torn"), ("any", "TERM"), ("any", "INT"), ("any", "HUP"),
    ("any", "EIO"), ("any", "EIO+"), ("any", "EROFS+"), ("any", "ENOSPC"), ("room", "full"), ("name", "EACCES"),
    ("write", "short"), ("reading", "EIO"), ("reading", "EACCES"),
)  # fmt: skip

SCENARIOS = RUNS | FILES


@dataclass
class Trial:
    """What a trial showed: the commands in their order, and what was wrong, if anything."""

    scenario: Scenario
    fault: Fault
    folder: str  # of the bench: left out in messages
    outcomes: list[Outcome] = field(default_factory=list)
    first: Fault | None = None  # one that had come before, in a trial of two
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        name = " ".join(map(str, filter(None, [self.scenario.name, self.first, self.fault])))
        lines = [name]
        for outcome in self.outcomes:
            if outcome.spoiled:
                lines.append(f"  the fault met:  {outcome.spoiled}")
            lines.append(f"  tinyvae {' '.join(outcome.argv)}")
            said = outcome.err.strip().splitlines() or ["(nothing)"]
            shown = said if len(said) < 6 else [*said[:2], "...", *said[-3:]]
            lines.append(f"    exit code {outcome.code}, stderr: " + "\n      ".join(shown))
        lines += [f"  wrong: {wrong}" for wrong in self.wrong]
        lines.append(f"  again: python tests/faults/trial.py {name}")
        return "\n".join(lines).replace(self.folder, "...")


@dataclass(frozen=True)
class Undisturbed:
    """A scenario without a fault: what is there before and after, and the calls."""

    before: Tree
    after: Tree
    outcome: Outcome


class Bench:
    """A place for trials: a folder, the commands, the data, a trained model, and each scenario without a fault."""

    def __init__(self, folder: Path, module: str = "tinyvae") -> None:
        self.folder = folder
        self.commands = Commands(folder, module)
        self.data, self.model, self.root = folder / "x.npy", folder / "model", folder / "root"
        np.save(self.data, np.random.default_rng(0).uniform(0, 1, (60, 9)).astype(np.float32))
        self.references: dict[str, Undisturbed] = {}
        self.logs: dict[str, tuple[tuple[Call, ...], Path]] = {}

    def words(self, command: str) -> list[str]:
        """A scenario's command with the paths of this place."""
        if "{model}" in command and not self.model.exists():
            made = self.commands.run(self.words(f"{SMALL} --epochs 1 --no-figures --out {self.model}"))
            assert made.code == 0, made.err
        words = command.format(root=self.root, data=self.data, model=self.model)
        return words.split(" ", maxsplit=1) if words.startswith("-c ") else words.split()

    def undisturbed(self, scenario: Scenario) -> Undisturbed:
        """The scenario without a fault; run once."""
        if scenario.name not in self.references:
            shutil.rmtree(self.root, ignore_errors=True)
            self.root.mkdir()
            if scenario.target:
                (self.root / scenario.target).write_bytes(OLD)
            for command in scenario.before:
                done = self.commands.run(self.words(command))
                assert done.code == 0, done.err
            before = read_tree(self.root)
            done = self.commands.run(self.words(scenario.command), root=self.root)
            assert done.code == 0, done.err
            assert not done.err
            self.references[scenario.name] = Undisturbed(before, read_tree(self.root), done)
        return self.references[scenario.name]

    def count(self, scenario: Scenario, kind: str) -> int:
        """How many calls of a kind the scenario makes."""
        return self.undisturbed(scenario).outcome.count()[kind]

    def sweep(self, scenario: Scenario, kind: str, action: str) -> Iterator["Trial"]:
        """A trial for every N."""
        for n in range(1, self.count(scenario, kind) + 1):
            yield self.trial(scenario, Fault(kind, n, action))

    def spread(self, scenario: Scenario) -> list[Fault]:
        """Every fault once, EIO once for every kind, each at another place."""
        pairs = [*(pair for pair in FAULTS if pair[1] != "EIO"), *((kind, "EIO") for kind in KINDS)]
        counts = self.undisturbed(scenario).outcome.count()
        places = ((i * GOLDEN) % 1 for i in itertools.count(1))  # spread evenly, however many are taken
        return [
            Fault(kind, 1 + int(counts[kind] * place), action)
            for (kind, action), place in zip(pairs, places, strict=False)
            if counts[kind]
        ]

    def trial(self, scenario: Scenario, fault: Fault) -> Trial:
        """Run a scenario under a fault, do what a user would do then, and judge."""
        if fault.kind == "power":
            return self.trial_of_power_loss(scenario, fault)
        reference = self.undisturbed(scenario)
        write_tree(self.root, reference.before)
        trial = Trial(scenario, fault, str(self.folder))
        done = self.commands.run(self.words(scenario.command), self.root, fault)
        trial.outcomes.append(done)
        if done.spoiled is None:
            trial.wrong.append("the fault never came: the command does not make the same calls each time")
        if not scenario.library:
            trial.wrong += wrong_ending(done, fault, self.root)
        elif done.code > 0 and fault.error and os.strerror(fault.error) not in done.err:
            trial.wrong.append(f"what is raised does not tell the cause: {os.strerror(fault.error)!r}")
        (self.judge_run if scenario.resume else self.judge_file)(trial, reference)
        return trial

    def trial_of_two(self, scenario: Scenario, first: Fault, second: Fault) -> Trial:
        """A fault, and another one while the user goes on; then as `trial`."""
        write_tree(self.root, self.undisturbed(scenario).before)
        trial = Trial(scenario, second, str(self.folder), first=first)
        earlier = self.commands.run(self.words(scenario.command), self.root, first)
        resumable = bool(whole_steps(read_tree(self.root)))
        again = scenario.resume if resumable else (*scenario.before, scenario.command)[0]
        done = self.commands.run(self.words(again), self.root, second)
        trial.outcomes += [earlier, done]
        if done.spoiled is not None:
            trial.wrong += wrong_ending(done, second, self.root)
        self.judge_run(trial, self.undisturbed(scenario))
        return trial

    # ------------------------------------------------------------------------------------------------------- a run

    def judge_run(self, trial: Trial, reference: Undisturbed) -> None:
        """Nothing is lost at once, nothing is left over, and in the end the run is the undisturbed one."""
        fault, faulted = trial.fault, trial.outcomes[-1]
        tree = read_tree(self.root)
        finished = [int(found[1]) for name in reference.before if (found := STEP.search(name))]
        calls = [call for outcome in trial.outcomes for call in outcome.calls]
        finished += [int(found[1]) for call in calls if call.ok and (found := STEP.search(call.new_path))]
        whole = whole_steps(tree)
        if finished and max(finished) > max(whole, default=-1):
            trial.wrong.append(f"step {max(finished)} was saved before the fault, whole now are only {whole}")
        if not fault.signal and not fault.lasts and not trial.first:
            trial.wrong += [f"{name} is left over" for name in leftovers(tree, reference)]
        if faulted.code == 0:
            wrong = differences(tree, reference.after)
            told = fault.error and os.strerror(fault.error) in faulted.out + faulted.err
            if told:  # what could not be deleted
                wrong = [each for each in wrong if not each.endswith(EXTRA)]
            trial.wrong += [f"exit code 0, but {each}" for each in wrong]
        self.go_on(trial, whole)

    def go_on(self, trial: Trial, whole: list[int]) -> None:
        """What a user would do: resume, or begin again where nothing was saved. In the end nothing must be missing."""
        scenario, run = trial.scenario, self.root / trial.scenario.run
        again = self.commands.run(self.words(scenario.resume))
        trial.outcomes.append(again)
        if again.code and not whole:
            trial.wrong += one_line(again)
            again = self.commands.run(self.words((*scenario.before, scenario.command)[0]))
            trial.outcomes.append(again)
            if again.code:
                trial.wrong.append(f"a dead directory: neither --resume nor --out take it ({listing(run)})")
                return
        after = differences(read_tree(self.root), self.undisturbed(scenario).after)
        trial.wrong += [f"at the end, {each}" for each in after]
        if again.code:
            trial.wrong += one_line(again)

    # -------------------------------------------------------------------------------------------------- a power loss

    def power_losses(self, scenario: Scenario) -> Iterator[Fault]:
        """Every moment and mixture that leaves another disk, or asks more of it, than one before."""
        seen = set()
        for n, disk, due in self._moments(scenario):
            for mixture in disk.mixtures():
                at_the_end = n == len(self._log(scenario)[0])
                state = frozenset(disk.after_power_loss(mixture).items()), due, at_the_end
                if state not in seen:
                    seen.add(state)
                    yield Fault("power", n, mixture)

    def trial_of_power_loss(self, scenario: Scenario, fault: Fault) -> Trial:
        """What was saved is still there; what the command has ended with is; and the run goes on."""
        trial = Trial(scenario, fault, str(self.folder))
        disk, due = next((disk, due) for n, disk, due in self._moments(scenario) if n == fault.n)
        tree = disk.after_power_loss(fault.action)
        write_tree(self.root, tree)
        whole, after = whole_steps(tree), self.undisturbed(scenario).after
        lost = [str(change.call) for change, bit in zip(disk.unsafe, fault.action, strict=True) if bit == "0"]
        about = f"; never fsynced, and lost: {', '.join(lost)}" if lost else ""
        if due > max(whole, default=0):
            trial.wrong.append(f"step {due} was saved, and the command went on; whole are only {whole}{about}")
        if fault.n == len(self._log(scenario)[0]):
            gone = [each for each in differences(tree, after) if not each.endswith(EXTRA)]
            if gone:
                trial.wrong.append(f"the command has ended, but {', '.join(gone)}{about}")
        self.go_on(trial, whole)
        return trial

    def _log(self, scenario: Scenario) -> tuple[tuple[Call, ...], Path]:
        """The calls of the scenario without a fault, and the log whose copies hold what each fsync made safe."""
        if scenario.name not in self.logs:
            write_tree(self.root, self.undisturbed(scenario).before)
            done = self.commands.run(self.words(scenario.command), self.root, copies=True)
            kept = self.folder / f"log of {scenario.name}"
            for path in self.folder.glob("log.*"):
                path.rename(f"{kept}{path.suffix}")
            self.logs[scenario.name] = done.calls, kept
        return self.logs[scenario.name]

    def _moments(self, scenario: Scenario) -> Iterator[tuple[int, Disk, int]]:
        """After each call: its number, the disk, and the step that must be safe (0: none yet).

        A step must be when, after its file got its name, anything else is begun, or the command ends.
        """
        calls, copies = self._log(scenario)
        disk, steps, due = Disk(self.root, self.undisturbed(scenario).before), [], 0
        for n, call in enumerate(calls, 1):
            if call.kind in CHANGING and call.kind not in ("fsync", "close"):
                due = max(steps, default=0)
            disk.do(call, copies)
            if found := STEP.search(call.new_path):
                steps.append(int(found[1]))
            yield n, disk, due if n < len(calls) else max(steps, default=0)

    # ------------------------------------------------------------------------------------------------------ one file

    def judge_file(self, trial: Trial, reference: Undisturbed) -> None:
        """The old file or the new one, and no other."""
        target, faulted, fault = trial.scenario.target, trial.outcomes[0], trial.fault
        tree, new = read_tree(self.root), reference.after[target]
        found = tree.pop(target, None)
        if found not in (OLD, new):
            trial.wrong.append(
                f"{target} is neither the old nor the new one: " + ("gone" if found is None else f"{len(found)} bytes")
            )
        if faulted.code == 0 and found != new:
            trial.wrong.append(f"exit code 0, but {target} is not the new one")
        others = {name: content for name, content in reference.after.items() if name != target}
        if not (fault.signal or fault.lasts) or set(others) - set(tree):
            trial.wrong += [f"of other files, {each}" for each in differences(tree, others)]
        again = self.commands.run(self.words(trial.scenario.command))
        trial.outcomes.append(again)
        if again.code or (self.root / target).read_bytes() != new:
            trial.wrong.append(f"the command again does not give {target}")


def report(trials: Iterable[Trial]) -> str:
    """Of the trials that went wrong, the first with each list of wrongs in full, the others by name; "" if none did."""
    groups: dict[str, list[Trial]] = {}
    tried = 0
    for trial in trials:
        tried += 1
        if trial.wrong:
            groups.setdefault(re.sub(r"\d+", "#", "; ".join(trial.wrong)), []).append(trial)
    if not groups:
        return ""
    lines = [f"{sum(map(len, groups.values()))} of {tried} trials went wrong, in {len(groups)} ways"]
    for first, *others in groups.values():
        lines += ["", str(first)]
        if others:
            lines.append(f"  so too: {' '.join(str(trial.fault) for trial in others)}")
    return "\n".join(lines)


def assert_right(trials: Iterable[Trial]) -> None:
    """Fails with the report of the trials that went wrong."""
    told = report(trials)
    if told:
        pytest.fail(told, pytrace=False)


def wrong_ending(done: Outcome, fault: Fault, root: Path) -> list[str]:
    """What is wrong with how a command under a fault ended."""
    if done.hung:
        return ["it hung"]
    if fault.signal and done.code == -fault.signal:
        return []
    if fault.signal and done.code == 128 + fault.signal:
        return one_line(done, at_most=True)
    if done.code == 0:
        return one_line(done, at_most=True)
    if done.code < 0:
        return [f"it died of signal {-done.code}"]
    wrong = one_line(done)
    if fault.signal:
        wrong.append(f"exit code {done.code} is not {128 + fault.signal}")
    elif not fault.error:
        wrong.append("it need not have failed")
    elif os.strerror(fault.error).lower() not in done.err.lower():
        wrong.append(f"the cause is not told: {os.strerror(fault.error)!r}")
    if str(root) not in done.err:
        wrong.append("no path is told")
    return wrong


def one_line(done: Outcome, at_most: bool = False) -> list[str]:
    """A command that fails says why in one line."""
    lines = done.err.count("\n")
    if "Traceback" in done.err:
        return ["a traceback"]
    return [] if lines == 1 or (at_most and lines == 0) else [f"{lines} lines on stderr"]


# ------------------------------------------------------------------------------------------------------ folders


def read_tree(root: Path) -> Tree:
    """Everything under the folder."""
    tree = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_dir() and not path.is_symlink():
            tree[f"{name}/"] = b""
        else:
            tree[name] = path.read_bytes()
    return tree


def write_tree(root: Path, tree: Tree) -> None:
    """A new folder with these contents."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, content in tree.items():
        if name.endswith("/"):
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content)


def listing(run: Path) -> str:
    """For messages: what a directory holds."""
    if not run.is_dir():
        return "it is not there"
    return ", ".join(str(p.relative_to(run)) for p in sorted(run.rglob("*"))) or "it is empty"


def whole_steps(tree: Tree) -> list[int]:
    """The steps whose checkpoint is whole, as far as safetensors tells."""
    steps = []
    for name, content in tree.items():
        found = STEP.search(name)
        if found:
            try:
                if parse_safetensors(content):
                    steps.append(int(found[1]))
            except SafetensorError:
                pass
    return sorted(steps)


def leftovers(tree: Tree, reference: Undisturbed) -> list[str]:
    """Files of a form (digits aside) that no undisturbed run leaves behind."""
    form = lambda name: re.sub(r"\d+", "#", name)
    usual = {form(name) for name in (*reference.before, *reference.after)}
    return [name for name in tree if form(name) not in usual]


def differences(found: Tree, expected: Tree) -> list[str]:
    """What sets a folder apart from the undisturbed one: names, and contents but for times and the like."""
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    wrong = [f"{name} is missing" for name in missing] + [f"{name}{EXTRA}" for name in extra]
    for name in sorted(set(found) & set(expected)):
        try:
            same = _essence(name, found[name]) == _essence(name, expected[name])
        except ValueError as error:
            wrong.append(f"{name} cannot be read: {error}")
            continue
        if not same:
            wrong.append(f"{name} ({len(found[name])} bytes) is not the undisturbed run's")
    return wrong


def _essence(name: str, content: bytes) -> object:
    if name.endswith(".csv"):
        rows = csv.DictReader(io.StringIO(content.decode()))
        return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    if name.endswith(".json"):
        return {k: v for k, v in json.loads(content).items() if k not in VARYING}
    return content

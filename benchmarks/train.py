"""Seconds of training on MNIST until the test loss falls to a target: tinyvae beside PyTorch eager.

784-400-20, batch 128, grey pixels, the same initial weights for each seed. After every epoch both estimate the loss on
the 10,000 test digits with one draw of z each. Only training counts: no evaluation, no start, no reading of data. Each
seed is a round, each candidate a process of its own, in turns.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.candidates import OURS
from benchmarks.candidates.ours import wait
from benchmarks.output import Save, Table, times_ours
from benchmarks.processes import Children, ask_once
from benchmarks.rounds import ratio, summary
from benchmarks.shapes import LR, SCALE, Shape
from benchmarks.step import positive, present
from tinyvae.errors import UsageError
from tinyvae.model.vae import VAE
from tinyvae.training import data
from tinyvae.training.config import Config
from tinyvae.training.engine import Engine, RunState
from tinyvae.training.metrics import Row

HELP = "seconds of training on MNIST to a given test loss, beside PyTorch"
SHAPE = Shape("784-400-20", 784, (400,), 20, rows=60_000)
PEER = "torch eager"
TARGET = 108.0
EVALUATED = 1000  # test rows that PyTorch evaluates at a time
Curve = list[tuple[float, float]]  # after each epoch: seconds of training so far, test loss


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `train`, and of nothing else."""
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="the folder with MNIST's four files, or to download them to"
    )
    parser.add_argument("--target", type=float, default=TARGET, help=f"test loss in nats (default: {TARGET:g})")
    parser.add_argument("--max-epochs", type=positive, default=20, help="give up after these (default: 20)")


class Stopwatch:
    """A trainer's listener: runs during the epochs, stands while the test set is evaluated.

    batches: of an epoch. After the last of them the clock stops only when the device has done it.
    """

    def __init__(self, model: VAE, batches: int) -> None:
        self.model, self.batches = model, batches
        self.seconds, self.curve, self.began = 0.0, [], time.perf_counter()

    def batch(self, state: RunState, loss: float) -> None:
        if state.batch == self.batches:
            wait(self.model)
            self.last = time.perf_counter()

    def epoch(self, row: Row) -> None:
        self.seconds += self.last - self.began
        self.curve.append((self.seconds, row.valid_loss))
        self.began = time.perf_counter()


def ours(folder: str, seed: int, target: float, max_epochs: int, backend: str, tf32: bool) -> Curve:
    """The trainer of `tinyvae train`."""
    dataset = data.load("mnist", Path(folder))
    config = Config(
        data="mnist", backend=backend, hidden=SHAPE.hidden, latent=SHAPE.latent, batch_size=SHAPE.batch, lr=LR,
        epochs=max_epochs, seed=seed, tf32=tf32,
    ).resolved(len(dataset.x_train))  # fmt: skip
    model = VAE(SHAPE.data_dim, SHAPE.hidden, SHAPE.latent, backend=backend, seed=seed)
    stopwatch = Stopwatch(model, -(-len(dataset.x_train) // SHAPE.batch))
    trainer = Engine(model, replace(dataset, x_valid=dataset.x_test), config, stopwatch)  # the test rows, each epoch
    stopwatch.began = time.perf_counter()
    trainer.run(stop=lambda: bool(stopwatch.curve) and stopwatch.curve[-1][1] <= target)
    return stopwatch.curve


def peer(folder: str, seed: int, target: float, max_epochs: int, backend: str, tf32: bool) -> Curve:
    """PyTorch, eager, with fused Adam. On a GPU nobody waits before an epoch's end, as in ours."""
    import torch  # pyright: ignore[reportMissingImports]  # not installed for the type checker

    from benchmarks.candidates.torch_peer import build

    torch.manual_seed(seed)
    dataset = data.load("mnist", Path(folder))
    p = build(SHAPE, "eager", backend, tf32)
    p.data = torch.from_numpy(dataset.x_train).to(p.device)
    x_test = torch.from_numpy(dataset.x_test).to(p.device)
    p.reset(seed)
    seconds, curve = 0.0, []
    for epoch in range(1, max_epochs + 1):
        began = time.perf_counter()
        order = np.random.default_rng([seed, 1, epoch]).permutation(len(dataset.x_train))
        for rows in torch.from_numpy(order).to(p.device).split(SHAPE.batch):
            loss = p.step(rows)
            if backend == "numpy":
                loss.item()
        if backend == "cupy":
            torch.cuda.synchronize()
        seconds += time.perf_counter() - began
        total = 0.0
        with torch.no_grad():
            for x in x_test.split(EVALUATED):
                eps = torch.randn(len(x), SHAPE.latent, device=p.device)
                total += p.loss(x.to(torch.float32) * SCALE, eps, p.parameters).item() * len(x)
        curve.append((seconds, total / len(x_test)))
        if curve[-1][1] <= target:
            break
    return curve


def run(args: argparse.Namespace, save: Save) -> dict[str, Any]:
    """Measure; the results as JSON values."""
    check_folder(args.data_dir)
    entries, left_out = present([PEER], args.backend)
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})")
    tasks = {OURS: "train.ours", PEER: "train.peer"}
    curves: dict[str, list[Curve]] = {entry.name: [] for entry in entries}
    results = {
        "backend": args.backend, "tf32": args.tf32, "kernels": ask_once("machine.kernels_here", ours=True,
        backend=args.backend), "target": args.target, "left_out": left_out, "curves": curves,
    }  # fmt: skip
    with Children(args.backend, args.tf32) as children:
        for seed in range(args.rounds):
            for entry in entries:
                curve = children.ask(
                    entry.name, tasks[entry.name], ours=entry.ours, folder=str(args.data_dir), seed=seed,
                    target=args.target, max_epochs=args.max_epochs, backend=args.backend, tf32=args.tf32,
                )  # fmt: skip
                print(f"seed {seed}, {entry.name}: {curve[-1][1]:.2f} nats after {curve[-1][0]:.1f} s", flush=True)
                curves[entry.name].append(curve)
            save(results)
    return results


def check_folder(folder: Path) -> None:
    """Raises TinyvaeError, before anything starts, if MNIST is not there and cannot be downloaded to there."""
    if not folder.is_dir():
        raise UsageError(f"--data-dir {folder}: there is no such folder")
    data.load("mnist", folder)


def reached(curve: Curve, target: float) -> float | None:
    """Seconds until the first epoch whose test loss is at most the target; None if there was none."""
    return next((seconds for seconds, loss in curve if loss <= target), None)


def tables(results: dict[str, Any]) -> list[Table]:
    """A line for each candidate."""
    target, curves = results["target"], results["curves"]
    seconds = {name: [reached(curve, target) for curve in found] for name, found in curves.items()}
    whole = {name: [s for s in found if s is not None] for name, found in seconds.items()}
    rows = []
    for name, found in seconds.items():
        epochs = [len(curve) for curve in curves[name]]
        made = f"{min(epochs)} to {max(epochs)}"
        if len(whole[name]) < len(found):
            rows.append((name, "not reached", "-", made, "-"))
            continue
        s = summary(whole[name])
        compared = "1" if name == OURS else "-"  # the latter where ours has missed the target
        if name != OURS and len(whole[OURS]) == len(whole[name]):
            compared = times_ours(ratio(whole[name], whole[OURS]))
        rows.append((name, f"{s.median:.2f}", f"{s.low:.2f} to {s.high:.2f}", made, compared))
    precision = ", TF32" if results["tf32"] else ""
    title = f"MNIST to a test loss of {target:g} nats{precision}: seconds of training, {len(curves[OURS])} seeds"
    return [Table(title, ("", "median", "min to max", "epochs", "time over tinyvae's"), rows)]

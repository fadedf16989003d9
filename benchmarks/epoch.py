"""An epoch of MNIST, tinyvae beside PyTorch eager: same weights, same rows in the same order, on the same machine.

    python -m benchmarks.epoch --data-dir DIR

Each candidate runs in a process of its own, in turns. Each step draws noise, takes the loss and its gradient, makes a
step of Adam (PyTorch's fused one) and reads the loss. First both compute the losses of the same steps with the same
noise; no time is printed unless they agree. Then: the time of an epoch after a warm-up epoch, the median over the
rounds, and the median of the rounds' ratios with their range. `numpy twice` is tinyvae against itself: the noise.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import tinyvae
from tinyvae.training import data
from tinyvae.training.config import Config
from tinyvae.training.metrics import Row
from tinyvae.training.trainer import RunState, Trainer

HIDDEN, LATENT, BATCH, LR = 400, 20, 128, 1e-3
AGREE_STEPS = 20
CANDIDATES = ("tinyvae", "torch", "tinyvae again")


class Silent:
    def batch(self, state: RunState, loss: float) -> None:
        pass

    def epoch(self, row: Row) -> None:
        pass


def make_trainer(folder: Path) -> Trainer:
    dataset = data.load("mnist", folder)
    config = Config(data="mnist", backend="numpy", hidden=(HIDDEN,), latent=LATENT, batch_size=BATCH, lr=LR, epochs=2)
    config = config.resolved(len(dataset.x_train))
    return Trainer(tinyvae.VAE(784, (HIDDEN,), LATENT), dataset, config, Silent())


def run_tinyvae(folder: Path) -> dict[str, Any]:
    trainer = make_trainer(folder)
    first = first_losses_tinyvae(make_trainer(folder))
    trainer._epoch(lambda: False)  # warm-up; the test set is not part of it
    trainer._close_epoch()
    began = time.perf_counter()
    trainer._epoch(lambda: False)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "first_losses": first, "loss": trainer.state.sums[0] / trainer.state.rows}


def first_losses_tinyvae(trainer: Trainer) -> list[float]:
    losses = []
    for x, eps in trainer.train_batches.shuffled(seed=0, epoch=1):
        losses.append(float(trainer.model.forward_backward(x, eps)[0]))
        trainer._update()
        if len(losses) == AGREE_STEPS:
            break
    return losses


def run_torch(folder: Path) -> dict[str, Any]:
    import torch  # pyright: ignore[reportMissingImports]  # not installed for the type checker, here and below
    from torch import nn  # pyright: ignore[reportMissingImports]
    from torch.nn import functional as F  # noqa: N812 - its usual name  # pyright: ignore[reportMissingImports]

    trainer = make_trainer(folder)
    start = trainer.model.params

    class Vae(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList()
            for part in ("encoder.0", "encoder.1", "decoder.0", "decoder.1"):
                W, b = start[f"{part}.weight"], start[f"{part}.bias"]
                layer = nn.Linear(*W.shape)
                with torch.no_grad():
                    layer.weight.copy_(torch.from_numpy(W.T.copy()))
                    layer.bias.copy_(torch.from_numpy(b.copy()))
                self.layers.append(layer)

        def forward(self, x: Any, eps: Any) -> Any:
            hidden, head, up, out = self.layers
            mu, logvar = head(F.relu(hidden(x))).chunk(2, dim=1)
            z = mu + torch.exp(0.5 * logvar) * eps
            logits = out(F.relu(up(z)))
            nll = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
            return (nll + kl) / x.shape[0]

    def new() -> tuple[Any, Any]:
        model = Vae()
        return model, torch.optim.Adam(model.parameters(), lr=LR, fused=True)

    def step(model: Any, adam: Any, x: Any, eps: Any) -> float:
        adam.zero_grad(set_to_none=True)
        loss = model(x, eps)
        loss.backward()
        adam.step()
        return loss.item()

    model, adam = new()
    first = []
    for x, eps in trainer.train_batches.shuffled(seed=0, epoch=1):
        first.append(step(model, adam, torch.from_numpy(x), torch.from_numpy(eps)))
        if len(first) == AGREE_STEPS:
            break

    model, adam = new()
    pixels = torch.from_numpy(data.load("mnist", folder).x_train)

    def epoch(number: int) -> float:
        total = 0.0
        order = torch.from_numpy(np.random.default_rng([0, 1, number]).permutation(len(pixels)))
        for start in range(0, len(pixels), BATCH):
            x = pixels[order[start : start + BATCH]].float().div_(255)
            total += step(model, adam, x, torch.randn(len(x), LATENT)) * len(x)
        return total / len(pixels)

    epoch(1)
    began = time.perf_counter()
    loss = epoch(2)
    return {"seconds": time.perf_counter() - began, "first_losses": first, "loss": loss, "torch": torch.__version__}


def measure(candidate: str, folder: Path) -> dict[str, Any]:
    """One candidate, in a fresh process."""
    name = candidate.split()[0]
    command = [sys.executable, "-m", "benchmarks.epoch", "--data-dir", str(folder), "--candidate", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def check_agreement(results: dict[str, dict[str, Any]]) -> None:
    """The same steps must give the same losses: float32 sums of 784 terms in another order, so to about 1e-5."""
    ours, theirs = (np.array(results[name]["first_losses"]) for name in ("tinyvae", "torch"))
    worst = float(np.max(np.abs(ours - theirs) / theirs))
    print(f"losses of the first {AGREE_STEPS} steps, same noise: largest relative difference {worst:.1e}")
    if not worst < 1e-4:
        sys.exit("the candidates do not do the same work: no time is printed")


def machine() -> str:
    """The processor, cores and versions."""
    cpu = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if "model name" in line]
        if cpu.exists()
        else []
    )
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    settings = {k: v for k, v in os.environ.items() if k.startswith(("OPENBLAS", "OMP", "MKL"))}
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"NumPy {np.__version__} ({blas['name']} {blas['version']}); {settings or 'no thread or BLAS settings'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--candidate", choices=("tinyvae", "torch"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.candidate:
        run = run_tinyvae if args.candidate == "tinyvae" else run_torch
        print(json.dumps(run(args.data_dir)))
        return
    print(f"machine: {machine()}")
    rounds: list[dict[str, dict[str, Any]]] = []
    for i in range(args.rounds):
        rounds.append({name: measure(name, args.data_dir) for name in CANDIDATES})
        if i == 0:
            check_agreement(rounds[0])
            print(f"PyTorch {rounds[0]['torch']['torch']}; {args.rounds} rounds\n")
    for name in CANDIDATES:
        seconds = [r[name]["seconds"] for r in rounds]
        print(f"{name:14} {median(seconds):6.2f} s an epoch ({min(seconds):.2f} to {max(seconds):.2f})  "
              f"train loss of epoch 2: {rounds[0][name]['loss']:.2f}")  # fmt: skip
    for name in CANDIDATES[1:]:
        ratios = [r[name]["seconds"] / r["tinyvae"]["seconds"] for r in rounds]
        print(f"{name} / tinyvae: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()

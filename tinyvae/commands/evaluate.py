"""`tinyvae evaluate`: what a trained model says of its test set."""

import argparse
import json
import math
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tinyvae.backend import to_host
from tinyvae.commands import add_keep_blas, loading
from tinyvae.errors import UsageError
from tinyvae.model.estimates import LogLikelihood, log_likelihood, repair_log_likelihood
from tinyvae.training import streams
from tinyvae.training.baseline import independent_loss, verdict
from tinyvae.training.metrics import evaluate
from tinyvae.training.run import batches_to_test, is_cross_entropy

SUMMARY = "loss, nll, kl, active units and log-likelihood of a run's test set"
DESCRIPTION = """\
Evaluate a run on its test set, in nats for each datum: loss = nll + beta * kl (of an
iwae run, minus that bound), active units (latent dimensions whose mu
varies), and log p(x) by importance sampling with K samples of z for each datum (Burda et al. 2016): on average a
lower bound, closer with larger K.

Where q(z|x) misses a part of the posterior, log p(x) of that row comes out too low, by many nats even, and more samples
need not help. So each row is looked at a second time without relying on q, and the rows that cannot be trusted within
half a nat are counted. With --repair they are estimated anew, from a mixture fitted to the posterior of each."""
EXAMPLES = """\
examples:
  tinyvae evaluate runs/digits-20250101-120000
  tinyvae evaluate runs/mnist-20250101-120000 --nll-samples 1000 --json
  tinyvae evaluate runs/mnist-20250101-120000 --repair"""

SAMPLES = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options."""
    loading.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    samples = f"samples of z for each datum in log p(x); more are closer; 0: leave it out (default: {SAMPLES})"
    parser.add_argument("--nll-samples", type=int, default=SAMPLES, metavar="K", help=samples)
    repair = "estimate the rows whose log p(x) cannot be trusted anew; each of them takes some 5 to 10 times as long"
    parser.add_argument("--repair", action="store_true", help=repair)
    add_keep_blas(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    if args.nll_samples < 0:
        raise UsageError(f"--nll-samples must be at least 0, not {args.nll_samples}")
    if args.repair and not args.nll_samples:
        raise UsageError("--repair is for log p(x), which --nll-samples 0 leaves out: give one or the other")
    trained = loading.open_run(args)
    config, model, dataset = trained.config, trained.model, trained.dataset(args.data_dir)
    objective, batches = config.objective_part(), batches_to_test(model, dataset, config)
    result = evaluate(model, batches, objective, config.seed)
    found: dict[str, Any] = {
        "run": str(args.run_dir),
        "epoch": trained.epoch,
        "rows": batches.rows,
        "likelihood": config.likelihood,
        "objective": config.objective,
        "draws": objective.samples,  # of z for each datum
        "conditional": config.conditional,
        "loss": result.loss,
        "nll": result.nll,
        "kl": result.kl,
        "independent_columns": independent_loss(model, dataset, dataset.x_test),
        "active_units": result.active_units,
        "latent_dim": model.architecture.latent_dim,
    }
    if args.nll_samples:
        if batches.dynamic:  # the very pixels that were drawn for the losses
            x = np.concatenate([to_host(x).copy() for x, _, _ in batches.in_order(config.seed)])  # (rows, data)
        else:
            x = dataset.values(dataset.x_test[:])
        found |= _log_likelihood(args, trained, x, dataset.y_test if model.architecture.classes else None)
    if model.likelihood.bits:
        nats = -found["log_likelihood"] if args.nll_samples else result.nll + result.kl
        found["bits_per_dimension"] = model.likelihood.bits_per_dimension(nats, model.data_dim)
    worse = verdict(result.nll + result.kl, found["independent_columns"], "columns")
    if worse is not None:
        found["warning"] = worse
    if is_cross_entropy(config, dataset):
        found["note"] = (
            f"{type(model.likelihood).__name__} on grey values: these are cross-entropies, not log-likelihoods"
        )
    if args.json:
        print(json.dumps({name: _finite(value) for name, value in found.items()}))
    else:
        _print_table(found, args.nll_samples, objective.measured().formula())
    return 0


def _log_likelihood(
    args: argparse.Namespace, trained: loading.Trained, x: np.ndarray, y: np.ndarray | None
) -> dict[str, float | int | None]:
    rng = np.random.default_rng([trained.config.seed, streams.IMPORTANCE])
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=args.json or not console.is_terminal) as bar:
        task = bar.add_task(f"log p(x), {args.nll_samples} samples for each datum", total=len(x))
        estimate = log_likelihood(
            trained.model, x, args.nll_samples, rng, lambda rows: bar.update(task, completed=rows), y
        )
        distrusted = int((~estimate.trusted).sum())
        found = {
            "nll_samples": args.nll_samples,
            "log_likelihood": float(estimate.log_p.mean()),
            "log_likelihood_se": _over_the_data(estimate),
            "log_likelihood_mc_se": _of_the_sampling(estimate),
            "distrusted": distrusted,
        }
        if args.repair:
            again = bar.add_task("log p(x) of the rows that cannot be trusted", total=max(distrusted, 1))
            repaired = repair_log_likelihood(
                trained.model, x, estimate, args.nll_samples, rng, lambda rows: bar.update(again, completed=rows), y
            )
            found |= {
                "repaired_log_likelihood": float(repaired.log_p.mean()),
                "repaired_log_likelihood_se": _over_the_data(repaired),
                "repaired_log_likelihood_mc_se": _of_the_sampling(repaired),
                "repaired_distrusted": int((~repaired.trusted).sum()),
            }
    return found


def _finite(value: Any) -> Any:
    """JSON knows neither infinity nor NaN: null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _over_the_data(estimate: LogLikelihood) -> float:
    return float(estimate.log_p.std(ddof=1)) / math.sqrt(len(estimate.log_p))


def _of_the_sampling(estimate: LogLikelihood) -> float | None:
    """The standard error of the mean by chance of the draws; None where it cannot be known."""
    if not estimate.trusted.all():
        return None  # the error of a row that is not trusted may be any
    error = math.sqrt(float((estimate.standard_error**2).sum())) / len(estimate.log_p)
    return error if math.isfinite(error) else None


def _print_table(found: dict[str, Any], samples: int, meaning: str) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    draws = "one z" if found["draws"] == 1 else f"mean over {found['draws']} z"
    table.add_row("loss", f"{found['loss']:.2f}", f"nats for each datum: {meaning}")
    table.add_row("nll", f"{found['nll']:.2f}", f"-log p(x|z), {draws} for each datum")
    table.add_row("kl", f"{found['kl']:.2f}", "from q(z|x) to the prior")
    if found["independent_columns"] is not None:
        alone = f"{found['independent_columns']:.2f}"
        table.add_row("independent columns", alone, "each by itself, fitted to the training rows: to be beaten")
    table.add_row("active units", str(found["active_units"]), f"of {found['latent_dim']} latent dimensions")
    if samples:
        repaired = "repaired_distrusted" in found
        name = "log p(x|y)" if found["conditional"] else "log p(x)"
        _add_log_p(table, name, found, "", f"importance sampling, K = {samples}")
        count, of_rows = found["distrusted"], f"of {found['rows']:,} rows"
        remedy = "anew below" if repaired else "--repair estimates them anew"
        table.add_row("cannot be trusted", f"{count:,}", of_rows + (f": too low, as a rule; {remedy}" if count else ""))
        if repaired:
            _add_log_p(
                table, f"{name}, repaired", found, "repaired_", "those from a mixture fitted to each one's posterior"
            )
            table.add_row("cannot be trusted", f"{found['repaired_distrusted']:,}", f"{of_rows}, even so")
    if "bits_per_dimension" in found:
        of = "-log p(x|y)" if samples and found["conditional"] else "-log p(x)" if samples else "nll + kl"
        table.add_row("bits per dimension", f"{found['bits_per_dimension']:.3f}", f"{of} / (numbers of a row * log 2)")
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    console.print(f"{found['run']} after epoch {found['epoch']}, on {found['rows']:,} test rows", markup=False)
    console.print(table)
    if "warning" in found:
        console.print(f"warning: {found['warning']}", markup=False)
    if "note" in found:
        console.print(f"note: {found['note']}")


def _add_log_p(table: Table, name: str, found: dict[str, Any], prefix: str, how: str) -> None:
    error = found[f"{prefix}log_likelihood_mc_se"]
    by_chance = "" if error is None else f", of the sampling {error:.3f}"
    table.add_row(name, f"{found[f'{prefix}log_likelihood']:.2f}", how)
    spread = found[f"{prefix}log_likelihood_se"]
    table.add_row("", f"+- {spread:.2f}", f"standard error over the data{by_chance}")

"""`tinyvae recipes`: models from published articles, put right: what they are, and how to run them."""

import argparse
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from tinyvae import recipes
from tinyvae.commands import add_keep_blas, loading, train
from tinyvae.errors import TinyvaeError, UsageError
from tinyvae.recipes import Recipe, Variant, evidence
from tinyvae.training.progress import Reporter
from tinyvae.training.run import measured_on_test

SUMMARY = "models from published articles, put right, with what they show"
DESCRIPTION = """\
Five articles print VAEs whose code or formulas do not work as they stand. For each there is a recipe: what the article
says, what is wrong in it, and the runs of tinyvae train that do it right, with evidence."""
EXAMPLES = """\
examples:
  tinyvae recipes list
  tinyvae recipes show two-gaussians
  tinyvae recipes run two-gaussians
  tinyvae recipes run manifold --data digits --epochs 100        a short version, without a download"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """list, show and run."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="all recipes, in a table")
    show = actions.add_parser("show", help="a recipe's page, and its commands")
    show.add_argument("name", metavar="NAME", help="a recipe, as list shows them")
    run = actions.add_parser("run", help="train a recipe's variants and measure what it is about")
    run.add_argument("name", metavar="NAME", help="a recipe, as list shows them")
    run.add_argument("--epochs", type=int, metavar="N", help="passes over the data (default: the recipe's)")
    run.add_argument("--data", metavar="NAME", help="another data set, such as digits: small, and shipped with tinyvae")
    run.add_argument("--data-dir", metavar="DIR", help="where published data sets lie or are downloaded to")
    run.add_argument("--out", metavar="DIR", help="a new directory (default: runs/<recipe>-<date and time>)")
    run.add_argument("--quiet", action="store_true", help="print nothing of the training, only what was found")
    add_keep_blas(run)


def run(args: argparse.Namespace) -> int:
    """Do what was asked; the exit code."""
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    if args.action == "list":
        _list(console)
        return 0
    recipe = recipes.load(args.name)
    if args.action == "show":
        _show(console, recipe)
        return 0
    return _run(args, console, recipe)


def _list(console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("name", "model", "data", "what it shows"):
        table.add_column(column, no_wrap=column != "what it shows")
    for name in recipes.names():
        recipe = recipes.load(name)
        table.add_row(*map(Text, (name, recipe.model, recipe.data, recipe.shows)))
    console.print(table)


def _show(console: Console, recipe: Recipe) -> None:
    page = recipe.page + "\n" + "\n".join(["The same, run by run:", "", "```", *_commands(recipe), "```"])
    if console.is_terminal:
        Console(emoji=False).print(Markdown(page))
    else:
        console.print(page, markup=False)


def _commands(recipe: Recipe) -> list[str]:
    return [variant.command(f"runs/{recipe.name}/{variant.name}") for variant in recipe.variants]


def _run(args: argparse.Namespace, console: Console, recipe: Recipe) -> int:
    """Train each variant by the train command's own code, then measure."""
    variants = recipes.changed(recipe, args.data, args.data_dir, args.epochs)
    out = _directory(args.out, recipe)
    for variant in variants:
        if not args.quiet:
            line = variant.command(str(out / variant.name))
            console.print(f"{recipe.name}, variant {variant.name}: {line}\n", markup=False)
        reporter = Reporter(quiet=args.quiet, every=recipe.report_every)
        code = train.train(variant.options, out / variant.name, reporter=reporter)
        if code:
            return code
        if not args.quiet:
            console.print()
    outcomes = [_outcome(variant, out / variant.name) for variant in variants]
    status = Console(stderr=True)
    with status.status("measuring") as spinner:
        found = evidence.measure(recipe.name, outcomes, lambda stage: spinner.update(f"measuring: {stage}"))
    for findings in found:
        table = Table(box=None, pad_edge=False)
        for i, column in enumerate(findings.columns):
            table.add_column(column, justify="right" if i else "left", no_wrap=True)
        for row in findings.rows:
            table.add_row(*map(Text, row))
        console.print(findings.title, markup=False)
        console.print(table)
        console.print()
    for outcome in outcomes:
        console.print(f"pictures: {outcome.path / 'figures'}", markup=False)
    return 0


def _directory(out: str | None, recipe: Recipe) -> Path:
    """Where the runs go: a directory that is not there yet, or empty. Raises before anything is trained."""
    if out is None:
        return Path("runs") / f"{recipe.name}-{datetime.now():%Y%m%d-%H%M%S}"
    if out == "":
        raise UsageError("--out must name a directory")
    path = Path(out)
    try:
        if path.exists() and any(path.iterdir()):
            raise TinyvaeError(f"{path}: is not empty; choose another --out")
    except OSError as error:
        reason = error.strerror or error
        raise TinyvaeError(f"{path}: cannot be written ({reason}); choose another --out") from error
    return path


def _outcome(variant: Variant, path: Path) -> evidence.Outcome:
    """The variant's run as it is stored."""
    trained = loading.opened(path)
    test = measured_on_test(trained.model, trained.dataset(None), trained.config)
    return evidence.Outcome(variant.name, path, trained.config, trained.model, test)

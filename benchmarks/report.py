"""Write the tables of benchmarks/README.md and its pictures, and QUALITY.md, from the JSON files alone."""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from benchmarks import kernels, memory, plots, scaling, step, train
from benchmarks.output import PARTIAL, RESULTS
from benchmarks.quality import page
from tinyvae.errors import UsageError

HELP = "write the tables of benchmarks/README.md and the pictures, from the stored results"
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- results: begin (written by python -m benchmarks report) -->", "<!-- results: end -->"
TITLES: dict[str, tuple[str, Any]] = {
    "step": ("A training step", step),
    "train": ("Training to a given test loss", train),
    "kernels": ("The kernels", kernels),
    "scaling": ("How a step grows", scaling),
    "memory": ("Memory", memory),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where to read and where to write."""
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: benchmarks/results")
    parser.add_argument("--readme", type=Path, default=README, metavar="FILE", help="default: benchmarks/README.md")


def run(args: argparse.Namespace) -> None:
    """Replace what stands between the markers; figures go to the folder `figures` beside the file."""
    quality = set(args.results.glob("quality-*.json"))
    found = [read(path) for path in sorted(set(args.results.glob("*.json")) - quality)]
    documents = [(stem, document) for stem, document in found if not ignored(document)]
    text = args.readme.read_text(encoding="utf-8") if args.readme.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UsageError(f"{args.readme}: has no lines '{BEGIN}' and '{END}'")
    body = sections(documents, args.readme.parent / "figures")
    args.readme.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")
    print(f"{args.readme}: {len(documents)} results")
    for stem, document in found:
        if ignored(document):
            print(f"ignored: {stem}.json ({ignored(document)})")
    for path in sorted(args.results.glob(f"*{PARTIAL}")):
        print(f"ignored: {path.name} (its run did not come to an end)")
    if quality:
        sheet = args.readme.with_name("QUALITY.md")
        print(f"{sheet}: {page.write(args.results, sheet, args.readme.parent / 'figures' / 'quality')} parts")


def read(path: Path) -> tuple[str, dict[str, Any]]:
    """The file's name without its ending, and its document. Raises UsageError if it is none of ours."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["command"] in TITLES and {"machine", "arguments", "results"} <= document.keys():
            return path.stem, document
        raise ValueError(f"command {document['command']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: is no result of python -m benchmarks ({error})") from error


def ignored(document: dict[str, Any]) -> str | None:
    """Why a result is not for the page; None if it is."""
    reasons = {"--quick": "a first look", "--beside": "two checkouts"}
    return next((f"{option}: {why}" for option, why in reasons.items() if option in document["arguments"]), None)


def sections(documents: list[tuple[str, dict[str, Any]]], figures: Path) -> str:
    """A section for each command, and in it a part for each machine."""
    parts = []
    for command, (title, module) in TITLES.items():
        found = [(stem, d) for stem, d in documents if d["command"] == command]
        if found:
            parts.append(f"## {title}")
        for stem, document in found:
            parts.append(describe(document))
            figure = plots.draw(document)
            if figure is not None:
                figures.mkdir(exist_ok=True)
                figure.savefig(figures / f"{stem}.png", dpi=plots.DPI)
                parts.append(f"![{title}, {stem}](figures/{stem}.png)")
            parts += [table.markdown() for table in module.tables(document["results"])]
            left_out = document["results"].get("left_out", {})
            parts += [f"Left out: {name} ({reason})." for name, reason in left_out.items()]
    return "\n\n".join(parts) or "No results yet."


def describe(document: dict[str, Any]) -> str:
    """One paragraph: the machine, the versions, the BLAS, the command."""
    m = document["machine"]
    on_gpu = document["results"].get("backend") == "cupy"
    where = f"{m['gpu']}, host " if on_gpu and m["gpu"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    blas = "; ".join(
        f"{who}: {b['name']}{_kernels(b['kernels'])}{_settings(b['settings'])}" for who, b in m["blas"].items()
    )
    command = f"python -m benchmarks {shlex.join(document['arguments'])}"
    kernels_name = document["results"].get("kernels")
    ran = f"tinyvae's kernels: {kernels_name}. " if kernels_name else ""
    return (
        f"{where}{m['cpu']}, {m['cores']} cores, {m['os']}, Python {m['python']}. {versions}. {ran}"
        f"BLAS of NumPy, {blas}{_settings(m['settings'])}. Command: `{command}`"
    )


def _kernels(name: str | None) -> str:
    return f", {name} kernels" if name else ""


def _settings(settings: dict[str, str]) -> str:
    return f" ({', '.join(f'{name}={value}' for name, value in settings.items())})" if settings else ""

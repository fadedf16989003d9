"""Write benchmarks/QUALITY.md and the charts, from the JSON files alone."""

import json
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.quality import aids, anomaly, collapse, conditional, iwae, latent, recipes, restore, starts
from benchmarks.quality.shown import save
from tinyvae.errors import UsageError

PARTS: dict[str, ModuleType] = {
    "recipes": recipes, "collapse": collapse, "aids": aids, "iwae": iwae, "latent": latent, "restore": restore,
    "anomaly": anomaly, "conditional": conditional, "starts": starts,
}  # fmt: skip
INTRO = """\
# What each model reaches, and what it is good for

Written by `python -m benchmarks quality` from `benchmarks/results/quality-*.json`; do not edit it. DIR is a folder
with MNIST's four files, or where to download them to. One part alone: `--parts NAME`. Runs are kept in `runs/quality`
and used again; what was stopped goes on where it was. How fast training is stands in [README.md](README.md).

All losses are in nats for each datum, on the test set (of MNIST: 10,000 digits): loss = nll + beta kl, or minus the
importance-weighted bound where that is the objective; one draw of z for each row. Ten epochs are a short training, and
a comparison after ten epochs is just that. Every run has one seed unless said. Where seeds are mentioned, the range of
three is a rough yardstick and no test. What helps nothing is shown just the same. The sentences below the pictures were
written by hand, after a look at them."""


def path_of(results: Path, part: str) -> Path:
    """Where a part's numbers lie."""
    return results / f"quality-{part}.json"


def read(results: Path) -> dict[str, dict[str, Any]]:
    """The documents of the parts that have been measured. Raises UsageError for a file that is none of ours."""
    found = {}
    for part in PARTS:
        path = path_of(results, part)
        if not path.is_file():
            continue
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["command"] != "quality" or not {"machine", "threads", "results"} <= document.keys():
                raise ValueError(f"command {document['command']!r}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: is no result of python -m benchmarks quality ({error})") from error
        found[part] = document
    return found


def write(results: Path, page: Path, pictures: Path) -> int:
    """The page and the charts; the number of parts that it shows. Raises UsageError for numbers that it cannot read."""
    documents = read(results)
    noise = {}  # what seeds alone change, in nats, by the part that measured it
    for name, seeded in (("aids", aids), ("collapse", collapse)):
        with suppress(KeyError, TypeError, ValueError):  # said below
            noise[name] = seeded.seed_noise(documents[name]["results"])
    parts = [INTRO]
    for name, document in documents.items():
        try:
            parts += section(name, document, noise, page.parent, pictures)
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{path_of(results, name)}: lacks what the page needs ({error}); measure it again"
            ) from error
    missing = [f"`{name}`" for name in PARTS if name not in documents]
    if missing:
        parts.append(f"Not measured yet: {', '.join(missing)}.")
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return len(documents)


def section(name: str, document: dict[str, Any], noise: dict[str, float], folder: Path, pictures: Path) -> list[str]:
    """Title, protocol, command, tables, what follows from them, pictures."""
    module, results = PARTS[name], document["results"]
    known = noise.get(getattr(module, "NOISE", "aids"))  # of this part's net, or of the one that it was measured for
    parts = [f"## {module.TITLE}", module.ABOUT, machine(document)]
    command = f"python -m benchmarks quality --parts {name} --data-dir DIR"
    parts.append(f"```\nOPENBLAS_NUM_THREADS={document['threads']} {command}\n```")
    parts += [table.markdown() for table in module.tables(results)]
    parts.append("\n".join(f"- {note}" for note in module.notes(results, known)))
    pictures.mkdir(parents=True, exist_ok=True)
    for stem, figure in module.draw(results).items():
        save(figure, pictures / f"{stem}.png")
    for stem, seen in module.PICTURES.items():
        path = pictures / f"{stem}.png"
        if path.is_file():
            parts += [f"![{stem}]({path.relative_to(folder).as_posix()})", seen]
    return parts


def machine(document: dict[str, Any]) -> str:
    """What the part was measured on, in a line."""
    m = document["machine"]
    versions = ", ".join(
        f"{name} {m['versions'][name]}" for name in ("tinyvae", "numpy", "numba") if name in m["versions"]
    )
    threads = "1 BLAS thread" if document["threads"] == 1 else f"{document['threads']} BLAS threads"
    return f"{m['cpu']}, {m['cores']} cores, {m['os']}, Python {m['python']}. {versions}. float32, {threads}."

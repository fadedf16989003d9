"""The size of the latent space: what it does to the bound, and to classifiers on the posterior means."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.output import Table
from benchmarks.quality.runs import Workshop, losses
from benchmarks.quality.shown import BLUE, GREY, LOSS_HEADER, ORANGE, loss_cells, panels, percent
from tinyvae.training import streams
from tinyvae.uses.classifier import accuracy, fit_softmax, knn_predict
from tinyvae.uses.features import embed, fit_pca, run_rows

TITLE = "The size of the latent space, and features for classifiers"
SIZES = (2, 5, 10, 20, 50)
NEIGHBOURS = 5
ABOUT = f"""\
784-512-[d], grey MNIST, 10 epochs, seed 0. A softmax classifier (logistic regression) and {NEIGHBOURS} nearest
neighbours learn from the posterior means of the 60,000 training rows, and label the 10,000 test rows; beside them the
same on a PCA of the same size and on the raw pixels. The VAE has seen no label. Accuracies in %; their standard error
by chance of the test rows is 0.3 at 90 % and 0.1 at 98 %. (`tinyvae embed RUN mnist --compare` prints
such a table for one run.)"""
PICTURES = {
    "latent": "Left: minus the test loss, the ELBO; higher is better. Right: accuracy of the two classifiers on the "
    "test digits, by the posterior means (blue), by PCA (orange) and by all 784 pixels (grey)."
}


def run(shop: Workshop, pictures: Path) -> dict[str, Any]:
    """Train every size; classify."""
    found: dict[str, Any] = {"sizes": {}}
    for size in SIZES[:2] if shop.quick else SIZES:
        made = shop.train(hidden=(512,), latent=size, epochs=10)
        x_train, x = (run_rows(made.dataset, part, made.config) for part in ("train", "test"))  # (rows, data) each
        y_train, y = made.dataset.y_train, made.dataset.y_test
        assert y_train is not None
        assert y is not None
        latent = made.model.architecture.latent_dim
        pca = fit_pca(x_train, latent)
        kinds = {
            "vae": (embed(made.model, x_train), embed(made.model, x)),
            "pca": (pca.transform(x_train), pca.transform(x)),
        }
        found["sizes"][str(size)] = losses(made) | {
            name: scores(*features, y_train, y) for name, features in kinds.items()
        }
        if "raw" not in found:
            found["raw"] = scores(x_train, x, y_train, y)
            found["rows"] = len(x)
        print(f"  d = {size}: {found['sizes'][str(size)]['vae']}", flush=True)
    return found


def scores(train: np.ndarray, test: np.ndarray, y_train: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The shares of test rows that the two classifiers label rightly, as `compare_features` finds them."""
    softmax = fit_softmax(train, y_train, np.random.default_rng([0, streams.ORDER])).accuracy(test, y)
    return {"softmax": softmax, "knn": accuracy(knn_predict(train, y_train, test, NEIGHBOURS), y)}


def tables(results: dict[str, Any]) -> list[Table]:
    """Losses, then accuracies."""
    sizes = results["sizes"]
    shares = [
        [d, *(percent(r[kind][by]) for by in ("softmax", "knn") for kind in ("vae", "pca"))] for d, r in sizes.items()
    ]
    raw = results["raw"]
    shares.append(["raw pixels", percent(raw["softmax"]), "", percent(raw["knn"]), ""])
    header = ("d", "softmax: mu", "softmax: PCA", f"{NEIGHBOURS} neighbours: mu", f"{NEIGHBOURS} neighbours: PCA")
    return [
        Table("test set, nats for each datum", ("d", *LOSS_HEADER), [[d, *loss_cells(r)] for d, r in sizes.items()]),
        Table(f"right labels in %, of {results['rows']:,} test rows", header, shares),
    ]


def notes(results: dict[str, Any], noise: float | None) -> list[str]:
    """Where the features beat PCA and the raw pixels."""
    sizes, raw, found = results["sizes"], results["raw"], []
    best = min(sizes, key=lambda d: sizes[d]["loss"])
    close = [d for d in sizes if noise is not None and d != best and sizes[d]["loss"] - sizes[best]["loss"] <= noise]
    same = f"; {' and '.join(close)} within the seed noise of 784-400-[20]" if close else ""
    found.append(f"The best loss has d = {best} ({sizes[best]['loss']:.2f} nats){same}.")
    for by, name in (("softmax", "softmax classifier"), ("knn", "neighbours")):
        shares = {d: (r["vae"][by], r["pca"][by]) for d, r in sizes.items()}
        wins = [d for d, (mu, pca) in shares.items() if _surely_above(mu, pca, results["rows"])]
        worse = [d for d, (mu, pca) in shares.items() if _surely_above(pca, mu, results["rows"])]
        over = [d for d, (mu, _) in shares.items() if _surely_above(mu, raw[by], results["rows"])]
        found.append(
            f"{name}: by more than two standard errors, mu is better than PCA at d = {', '.join(wins) or 'none'}, "
            f"worse at {', '.join(worse) or 'none'}, and better than the raw pixels at {', '.join(over) or 'none'}."
        )
    return found


def _surely_above(share: float, other: float, rows: int) -> bool:
    """The one accuracy is higher by more than two standard errors of the difference."""
    return share - other > 2 * math.sqrt((share * (1 - share) + other * (1 - other)) / rows)


def draw(results: dict[str, Any]) -> dict[str, Figure]:
    """Two panels over d."""
    figure, (left, right) = panels(2, 3.6)
    sizes, x = results["sizes"], [int(d) for d in results["sizes"]]
    left.plot(x, [-r["loss"] for r in sizes.values()], "o-", color=BLUE)
    left.set(ylabel="ELBO on the test set (nats per digit)")
    for by, marker, style, name in (("softmax", "o", "-", "softmax"), ("knn", "s", "--", f"{NEIGHBOURS} neighbours")):
        for kind, colour, label in (("vae", BLUE, "mu"), ("pca", ORANGE, "PCA")):
            shares = [100 * r[kind][by] for r in sizes.values()]
            right.plot(x, shares, marker + style, color=colour, ms=5, label=f"{label}, {name}")
        right.axhline(100 * results["raw"][by], color=GREY, ls=style, lw=1.2, label=f"raw pixels, {name}")
    right.set(ylabel="right labels (% of the test digits)")
    right.legend(frameon=False, fontsize=9)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(x, [str(d) for d in x])
        axes.minorticks_off()
        axes.set_xlabel("d, dimensions of the latent space (logarithmic)")
    return {"latent": figure}

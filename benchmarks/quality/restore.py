"""Damaged digits, restored by a model that has seen none: against fills that need no model."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.output import Table
from benchmarks.quality.runs import Workshop
from benchmarks.quality.shown import save
from tinyvae.training import streams
from tinyvae.training.data.scale import column_moments
from tinyvae.uses import restoring
from tinyvae.uses.masks import add_noise, parse_mask
from tinyvae.uses.pictures import GAP, restoration

TITLE = "Restoring damaged digits"
MASKS = {"half": "the right half is missing", "random:0.5": "half of the pixels are missing",
         "noise": "a quarter of the pixels are random"}  # fmt: skip
ROWS, DRAWN = 1000, 4
ABOUT = f"""\
784-512-[20], the run of the `features` recipe after 10 epochs, seed 0; {ROWS:,} test digits. Missing pixels are
filled in by {restoring.CHAINS} Markov chains of {restoring.STEPS} steps for each digit; noisy digits are encoded and
decoded (see `tinyvae restore --help`). The error is counted over the missing pixels; under noise, which leaves none
known, over all. It is shown as the root mean squared error of grey values from 0 to 1, and as cross-entropy in nats
for each pixel where the estimate is a probability; +- is the standard error over the digits. The command for one
mask: `tinyvae restore RUN --mask half`."""
PICTURES = {
    "restore": "Four test digits for each damage: the truth, what was given (coloured: missing), and the mean of what "
    "the model made of it. Where the visible part leaves several digits open, this mean is blurred."
}


def run(shop: Workshop, pictures: Path) -> dict[str, Any]:
    """Damage, restore, compare, for each mask as `tinyvae restore` does."""
    made = shop.train(hidden=(512,), latent=20, epochs=10)
    x, _ = made.test_rows(20 if shop.quick else ROWS)  # (rows, data)
    shape = made.dataset.image_shape
    assert shape is not None
    mean, spread = column_moments(made.dataset)  # (data,) each
    found: dict[str, Any] = {"rows": len(x), "masks": {}}
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for text in MASKS:
        mask, rng = parse_mask(text), np.random.default_rng([0, streams.NOISE])
        print(f"  {text}", flush=True)
        if mask.kind == "noise":
            given, _ = add_noise(x, spread, rng)  # (rows, data)
            restored, counted = restoring.denoise(made.model, given, rng), np.zeros(x.shape, dtype=bool)
            others = {
                "as given": given,
                "training mean": np.tile(mean, (len(x), 1)),
                "3 x 3 mean": restoring.blurred(given, shape),
            }
        else:
            counted = mask.observed(len(x), x.shape[1], shape, rng)  # (rows, data), True where x is known
            restored = restoring.fill_in(made.model, x, counted, mean, rng).estimate
            given, others = np.where(counted, x, np.nan), {"training mean": np.where(counted, x, mean)}
        lines = restoring.compare({"VAE": restored, **others}, x, counted, ("VAE", "training mean"))
        found["masks"][text] = [
            {"name": line.name, "rmse": vars(line.rmse),
             "cross_entropy": vars(line.cross_entropy) if line.cross_entropy else None} for line in lines
        ]  # fmt: skip
        columns.append((x[:DRAWN], given[:DRAWN], restored[:DRAWN]))
    truth, given, restored = (np.concatenate(images) for images in zip(*columns, strict=True))
    figure = restoration(truth, given, restored, shape, "")
    axes, width = figure.axes[0], DRAWN * (shape[1] + GAP)  # of the digits of one mask, in pixels
    axes.xaxis.tick_top()
    axes.set_xticks([width * (i + 0.5) for i in range(len(MASKS))], list(MASKS.values()))
    for i in range(1, len(MASKS)):
        axes.axvline(i * width - 1, color="black", lw=1)
    save(figure, pictures / "restore.png")
    return found


def tables(results: dict[str, Any]) -> list[Table]:
    """A line for each way to restore."""
    rows = []
    for text, lines in results["masks"].items():
        for line in lines:
            entropy = line["cross_entropy"]
            rows.append([f"{text}: {line['name']}", _error(line["rmse"]), _error(entropy) if entropy else "-"])
    title = f"errors on {results['rows']:,} test digits"
    return [Table(title, ("damage: restored by", "root mean squared error", "cross-entropy, nats a pixel"), rows)]


def _error(error: dict[str, float]) -> str:
    return f"{error['value']:.4f} +- {error['standard_error']:.4f}"


def notes(results: dict[str, Any], noise: float | None) -> list[str]:
    """The VAE against the best simple rule."""
    found = []
    for text, (vae, *others) in results["masks"].items():
        best = min(others, key=lambda line: line["rmse"]["value"])
        ratio = vae["rmse"]["value"] / best["rmse"]["value"]
        found.append(f"`{text}`: the VAE's error is {ratio:.2f} times that of the best simple rule ({best['name']}).")
    return found


def draw(results: dict[str, Any]) -> dict[str, Figure]:
    """The picture is made from the model, by `run`."""
    return {}

"""What comes of a training: the model, the rows of its epochs, the best of them."""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyvae.backend import Array
from tinyvae.errors import UsageError
from tinyvae.model.vae import VAE
from tinyvae.training.metrics import Row


class History(list[Row]):
    """The rows of a training's epochs (see `Row`), which a notebook shows as a table."""

    def frame(self) -> Any:
        """The same as a pandas data frame. Raises UsageError where pandas is not installed."""
        try:
            import pandas as pd
        except ImportError as error:
            raise UsageError("a data frame needs pandas: pip install pandas") from error
        return pd.DataFrame([asdict(row) for row in self])

    def _repr_html_(self) -> str | None:
        try:
            return self.frame().to_html(index=False, float_format="{:.2f}".format)
        except UsageError:
            return None  # a notebook shows the list


@dataclass(frozen=True)
class Result:
    """What came of a training."""

    model: VAE  # the very model that was handed over, with the last epoch's weights
    history: Sequence[Row]
    complete: bool  # all epochs are done, or patience ran out; else it was stopped
    run: Path | None  # its directory
    best_epoch: int | None  # that with the smallest validation loss; None if nothing was held out
    best_params: Array | None  # (parameters,) of that epoch

    def best_model(self) -> VAE:
        """A copy of the model with the best epoch's weights. Raises ValueError if nothing was held out."""
        if self.best_params is None:
            raise ValueError("no epoch is known to be the best: hold rows out with valid=0.1 or valid=(x, y)")
        best = copy.deepcopy(self.model)
        best.params.flat[...] = self.best_params
        return best

    def __repr__(self) -> str:
        last = self.history[-1] if self.history else None
        said = [
            f"{len(self.history)} epochs" if self.complete else f"stopped after {len(self.history)} epochs",
            "" if last is None else f"training loss {last.train_loss:.2f}",
            "" if last is None or last.valid_loss is None else f"validation loss {last.valid_loss:.2f}",
            "" if self.best_epoch is None else f"best after epoch {self.best_epoch}",
            "" if self.run is None else f"run {self.run}",
        ]
        return f"Result({', '.join(filter(None, said))})"

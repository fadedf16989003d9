"""What is asked of a model and data before any training: whether the likelihood can have made it, and where its real
columns lie."""

from tinyvae.errors import DataError
from tinyvae.model.standard import Standard
from tinyvae.model.vae import VAE
from tinyvae.training.data import Dataset
from tinyvae.training.data.scale import check_representable, check_unit_interval


def standardize(model: VAE, dataset: Dataset, how: str) -> str | None:
    """Set the model's `standard` by the training rows, as the option of this name says; a line if that was done.

    Raises DataError for `on` where no column is real, or where numbers are beyond float64.
    """
    real = model.likelihood.real(model.data_dim)  # (data,)
    if how == "on" and not real.any():
        who = type(model.likelihood).__name__
        raise DataError(f"{dataset.name}: has no column that a {who} takes as real: nothing can be standardized")
    pixels = dataset.image_shape is not None or dataset.x_train.dtype == "uint8"
    if how == "off" or not real.any() or (how == "auto" and pixels):
        return None
    try:
        rows = (dataset.values(x) for x in dataset.chunks("train"))
        model.standard = Standard.of(rows, real)
    except ValueError as error:
        raise DataError(f"{dataset.name}: {error}") from error
    return (
        f"{int(real.sum()):,} real columns are standardized by the training rows; all that is said stays in their own "
        "units (--standardize off leaves them as they are)"
    )


def check_support(model: VAE, dataset: Dataset) -> None:
    """Raises DataError if the likelihood cannot have made the data."""
    if model.likelihood.interval is not None and model.likelihood.bytes == "pixels":
        check_unit_interval(dataset, f"a {type(model.likelihood).__name__} likelihood")
    elif model.standard is None:
        check_representable(dataset, model.dtype.name)
    try:
        model.architecture.check_support(*dataset.range(), dataset.is_whole() if model.likelihood.discrete else None)
        for x in dataset.chunks():
            model.likelihood.check_rows(dataset.values(x))
    except ValueError as error:
        raise DataError(f"{dataset.name}: {error}") from error

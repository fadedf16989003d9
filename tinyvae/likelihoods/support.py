"""What likelihoods ask of data, and of their options: the line that says what is wrong, and what to do."""

import numpy as np

ROUNDING = 0.01  # beyond [0, 1] by so little is rounding, or an image that was resized: clip it


def shown(value: float) -> str:
    """The number in six digits, or in all it has where six would put it inside [0, 1]: 1.0000001 is not shown as 1."""
    short = f"{value:g}"
    return short if 0 <= value <= 1 or not 0 <= float(short) <= 1 else repr(float(value))


def into_unit_interval(low: float, high: float, whole: bool | None = None) -> str:
    """What to do with data in [low, high], which is not in [0, 1]. whole: all numbers are whole (None: not known)."""
    if max(-low, high - 1) <= ROUNDING:
        return "clip it: x = np.clip(x, 0, 1)"
    real = "for real values use the gaussian likelihood (--likelihood gaussian)"
    pixels = "pixels in 0..255 must be divided by 255 first: x = x / np.float32(255)"
    if whole is None:
        whole = float(high).is_integer()
    if low >= 0:
        if whole and high <= 16:
            return (
                f"whole numbers up to {high:g} must be divided by {high:g} first: x = x / np.float32({high:g}); {real}"
            )
        if 16 < high <= 255:
            return f"{pixels}; {real}"
        if whole and high <= 65535:
            return f"pixels in 0..65535 must be divided by 65535 first: x = x / np.float32(65535); {real}"
    elif low >= -1 - ROUNDING and high <= 1 + ROUNDING:
        return f"images in [-1, 1] become (x + 1) / 2: x = np.clip((x + 1) / 2, 0, 1); {real}"
    elif whole and low >= -128 and high <= 127:
        return f"signed pixels in -128..127 become (x + 128) / 255: x = (x + np.float32(128)) / np.float32(255); {real}"
    return f"scale it there: x = (x - x.min()) / (x.max() - x.min()); {real}"


def check_unit_interval(who: str, smallest: float, largest: float, whole: bool | None = None) -> None:
    """Raises ValueError if data between these is not in [0, 1]. whole: see `Likelihood.check`."""
    if smallest < 0 or largest > 1:
        raise ValueError(
            f"the data lies in [{shown(smallest)}, {shown(largest)}], but {who} needs [0, 1]; "
            f"{into_unit_interval(smallest, largest, whole)}"
        )


def check_counts(who: str, smallest: float, largest: float, whole: bool | None = None) -> None:
    """Raises ValueError if data between these is not made of counts. whole: see `Likelihood.check`."""
    if whole is None:
        whole = float(smallest).is_integer() and float(largest).is_integer()
    if smallest >= 0 and whole:
        return
    real = "for real values use the gaussian or laplace likelihood"
    if whole:
        remedy = f"where a negative number stands for a missing one, put NaN there: x[x < 0] = np.nan; {real}"
    elif smallest >= 0:
        remedy = f"counts up to rounding become x = np.round(x); of logarithms or shares give the counts; {real}"
    else:
        remedy = f"give the counts themselves, not scaled or in logarithms; {real}"
    wrong = "negative numbers" if whole else "numbers that are not whole"
    raise ValueError(
        f"the data lies in [{smallest:g}, {largest:g}] and holds {wrong}, but {who} needs counts 0, 1, 2, ...; {remedy}"
    )


def totals(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of each column and how many numbers it is of: (rows, data), NaN where not observed -> (data,) each."""
    seen = ~np.isnan(x)
    return np.where(seen, x, 0).sum(axis=0, dtype="float64"), seen.sum(axis=0)


def log_means(x: np.ndarray) -> np.ndarray:
    """log of the mean count of each column, with half a count more: (rows, data) -> (data,)."""
    total, count = totals(x)
    return np.log((total + 0.5) / np.maximum(count, 1))


def learned_or_fixed(option: str, text: str, kinds: tuple[str, ...] = ("learned", "columns")) -> float | None:
    """None for one of the kinds, or the number after "fixed:". Raises ValueError if there is none above 0."""
    if text in kinds:
        return None
    kind, _, number = str(text).partition(":")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if kind != "fixed" or not 0 < value < float("inf"):
        every = ", ".join(repr(k) for k in kinds)
        raise ValueError(f"{option} must be {every} or 'fixed:VALUE' with VALUE > 0, not {text!r}")
    return value

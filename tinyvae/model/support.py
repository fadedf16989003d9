"""Data outside [0, 1], where a Bernoulli lives: how it is shown, and the line that most likely brings it there."""

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

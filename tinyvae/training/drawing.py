"""The one door to matplotlib: a picture is the same whatever the environment says.

MPLBACKEND, matplotlibrc files and what other code puts into rcParams are for plots of the user's own. Nothing here
opens a window: pictures are Figure objects, drawn by Agg. So a name that matplotlib does not know, LaTeX that is not
installed, or a folder that cannot be written costs no picture.
"""

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType

from tinyvae.errors import TinyvaeError


@contextmanager
def _quiet() -> Iterator[None]:
    """No lines about the user's settings, and none about fonts that are looked for."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _loaded() -> ModuleType:
    """matplotlib. It refuses to be imported where MPLBACKEND is no backend, so it is not shown that until later."""
    new = "matplotlib" not in sys.modules
    asked = os.environ.pop("MPLBACKEND", None) if new else None
    try:
        with _quiet():
            matplotlib = importlib.import_module("matplotlib")
            importlib.import_module("matplotlib.figure")  # and the fonts
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # a matplotlibrc that is no text, no place for its cache at all
        reason = str(error).partition("\n")[0]
        raise TinyvaeError(f"no pictures: matplotlib does not load ({type(error).__name__}: {reason})") from error
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked
    if asked:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = asked  # for the user's own plots, in a notebook say
    return matplotlib


matplotlib = _loaded()

from matplotlib.axes import Axes as Axes  # noqa: E402 - after `_loaded`
from matplotlib.colors import to_rgb as to_rgb  # noqa: E402
from matplotlib.figure import Figure as Figure  # noqa: E402

colormaps = matplotlib.colormaps


@contextmanager
def own_style() -> Iterator[None]:
    """matplotlib's defaults and nothing else; text is text, whatever dollar signs are in it. Also as a decorator."""
    with matplotlib.rc_context(), warnings.catch_warnings(), _quiet():
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a run's name in letters that the font lacks
        yield

"""A folder of images: .png and .jpg, all of one size, as bytes. Pillow decodes them.

Images in sub-folders have the sub-folder's name as their label. Sub-folders train, valid (or val) and test are parts,
with images or with folders of labels in them. Files and folders are taken in the order of their names.
"""

import importlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.found import Found, Part
from tinyvae.training.data.memory import enough_memory
from tinyvae.training.data.regular import open_regular, problem, reason

ORIENTATION = 0x0112  # of EXIF: how a camera was held; a JPEG is taken as it is shown
ENDINGS = (".png", ".jpg", ".jpeg")
PARTS = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
INSTALL = "python -m pip install 'tinyvae[images]'"
GREY = ("1", "L")
COLOUR = ("RGB", "P", "CMYK", "YCbCr")
CLEAR = ("RGBA", "LA", "PA")  # with opacity
LISTED = 5


@dataclass(frozen=True)
class _Named:
    """An image, and the folder whose name is its label."""

    path: Path
    label: str | None


def read(path: Path) -> Found:
    """The images of a folder: (height, width) if all are grey, else (height, width, 3)."""
    pillow = _pillow(path)
    others: list[Path] = []
    folders = {PARTS[p.name.lower()]: p for p in _entries(path) if p.name.lower() in PARTS and p.is_dir()}
    if folders and "train" not in folders:
        raise DataError(f"{path}: has a folder {next(iter(folders.values())).name}, but none called train")
    if len(folders) < sum(p.name.lower() in PARTS and p.is_dir() for p in _entries(path)):
        raise DataError(f"{path}: two of its folders mean the same part; leave one of train, valid (val), test each")
    listed = {part: _images(folder, others) for part, folder in (folders or {"train": path}).items()}
    if folders:
        others += [p for p in _entries(path) if p not in folders.values()]
    for part, images in listed.items():
        if not images:
            raise DataError(f"{folders.get(part, path)}: holds no image that ends in {', '.join(ENDINGS)}")
    size, colour = _common(pillow, path, [image for images in listed.values() for image in images])
    shape = (size[1], size[0], 3) if colour else (size[1], size[0])
    count = sum(map(len, listed.values()))
    parts: dict[str, Part] = {}
    with enough_memory(
        count * int(np.prod(shape)), f"{path}: {count:,} images of {_by(size)}", "take fewer, or smaller"
    ):
        for part, images in listed.items():
            x = np.empty((len(images), int(np.prod(shape))), np.uint8)
            for i, image in enumerate(images):
                x[i] = _decoded(pillow, image.path, size, colour)
            labels = [image.label for image in images]
            parts[part] = Part(x, None if labels[0] is None else np.array(labels))
    notes = []
    if colour and all(_is_grey(part.x) for part in parts.values()):
        notes.append(
            f"{path}: every image is stored in colour, but grey; as grey images they are a third: "
            "Image.open(p).convert('L').save(p)"
        )
    if others:
        named = ", ".join(str(p.relative_to(path)) for p in others[:LISTED]) + (", ..." if len(others) > LISTED else "")
        notes.append(f"{path}: not read: {len(others):,} of its entries ({named})")
    return Found(path.resolve().name, parts["train"], parts.get("valid"), parts.get("test"), shape, notes=tuple(notes))


def _is_grey(x: np.ndarray) -> bool:
    """Red, green and blue are alike in every pixel."""
    return all(bool((row[::3] == row[1::3]).all() and (row[::3] == row[2::3]).all()) for row in x)


def _images(folder: Path, others: list[Path]) -> list[_Named]:
    """The images of a folder, or those of its folders with their names as labels; what is neither joins the others."""
    entries = _entries(folder)
    images = [_Named(p, None) for p in entries if _is_image(p)]
    labelled: list[_Named] = []
    for entry in entries:
        if _is_image(entry):
            continue
        inside = _entries(entry) if entry.is_dir() else []
        found = [_Named(p, entry.name) for p in inside if _is_image(p)]
        labelled += found
        others += [p for p in inside if not _is_image(p)] if found else [entry]
    if images and labelled:
        raise DataError(
            f"{folder}: holds images both in itself ({images[0].path.name}) and in folders ({labelled[0].label}); if "
            "the folders are labels, put every image into one"
        )
    return images or labelled


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({reason(error)})") from error


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.is_dir()


def _pillow(path: Path) -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise DataError(f"{path}: to read images, Pillow is needed ({error}): {INSTALL}") from error


def _common(pillow: Any, folder: Path, images: list[_Named]) -> tuple[tuple[int, int], bool]:
    """The size, (width, height), and whether there is colour, from the files' headers."""
    sizes: dict[tuple[int, int], list[Path]] = {}
    colour = False
    for image in images:
        size, mode = _header(pillow, image.path)
        sizes.setdefault(size, []).append(image.path)
        colour = colour or mode not in (*GREY, "LA")
    if len(sizes) > 1:
        usual = max(sizes, key=lambda s: len(sizes[s]))
        others = [(paths[0], size) for size, paths in sizes.items() if size != usual]
        count = sum(len(paths) for size, paths in sizes.items() if size != usual)
        out = folder.resolve().name + "-resized"
        raise DataError(
            f"{folder}: {len(sizes[usual]):,} images are {_by(usual)}, but {count:,} are not, {others[0][0]} for one, "
            f"which is {_by(others[0][1])}; make them all of one size, in Python: import pathlib; from PIL import "
            f"Image; a, b = pathlib.Path({str(folder)!r}), pathlib.Path({out!r}); [((b / p.relative_to(a)).parent."
            f"mkdir(parents=True, exist_ok=True), Image.open(p).resize({usual}).save(b / p.relative_to(a))) for p in "
            f"a.rglob('*') if p.suffix.lower() in {ENDINGS}]"
        )
    return next(iter(sizes)), colour


def _header(pillow: Any, path: Path) -> tuple[tuple[int, int], str]:
    with _opened(pillow, path) as image:
        if image.mode not in (*GREY, *COLOUR, *CLEAR):
            raise DataError(
                f"{path}: its pixels are of the kind {image.mode}, not bytes; save numbers with numpy.save, as floats, "
                "or images of 8 bits"
            )
        size = image.size
        if image.format == "JPEG":  # of a PNG, Pillow would decode all to know
            try:
                size = size[::-1] if image.getexif().get(ORIENTATION, 1) > 4 else size  # a quarter turn
            except Exception as error:  # nearly anything, of a damaged file
                raise _damaged(path, error) from error
        return size, image.mode


def _decoded(pillow: Any, path: Path, size: tuple[int, int], colour: bool) -> np.ndarray:
    """(height * width * channels,) bytes."""
    with _opened(pillow, path) as image:
        try:
            if image.format == "JPEG":
                image = importlib.import_module("PIL.ImageOps").exif_transpose(image)
            if "transparency" in image.info or image.mode in CLEAR:
                image = image.convert("RGBA" if colour else "LA")
                if image.getchannel("A").getextrema()[0] < 255:
                    raise DataError(
                        f"{path}: is transparent in places, and opacity is not learned; put images on a background, in "
                        f"Python: from PIL import Image; i = Image.open({str(path)!r}).convert('RGBA'); b = "
                        "Image.new('RGBA', i.size, 'white'); b.alpha_composite(i); b.convert('RGB').save('opaque.png')"
                    )
            x = np.asarray(image.convert("RGB" if colour else "L"))
        except (DataError, MemoryError):
            raise
        except Exception as error:  # nearly anything, of a damaged file
            raise _damaged(path, error) from error
    if x.shape[:2] != (size[1], size[0]):
        raise _damaged(path, ValueError("its size has changed"))
    return x.reshape(-1)


class _opened:  # noqa: N801 - reads as a function
    """The image, opened as PNG or JPEG alone."""

    def __init__(self, pillow: Any, path: Path) -> None:
        self.pillow, self.path = pillow, path

    def __enter__(self) -> Any:
        wrong = problem(self.path)
        if wrong:
            raise DataError(f"{self.path}: {wrong}")
        self.file = open_regular(self.path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                self.image = self.pillow.open(self.file, formats=("PNG", "JPEG"))
        except MemoryError:
            self.file.close()
            raise
        except Exception as error:
            self.file.close()
            raise _damaged(self.path, error) from error
        return self.image

    def __exit__(self, *error: object) -> None:
        self.image.close()
        self.file.close()


def _damaged(path: Path, error: Exception) -> DataError:
    why = "it is damaged, or no PNG or JPEG" if "cannot identify" in str(error) else reason(error)
    return DataError(f"{path}: is not a readable image ({why}); remove it, or save it again")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} pixels"

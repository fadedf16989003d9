"""`tinyvae export`: a trained model in a format that other programs run."""

import argparse
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from tinyvae.commands import loading
from tinyvae.errors import ExportError, TinyvaeError
from tinyvae.training.files import make_folder, remove_folders, write_atomically, write_bytes

SUMMARY = "encoder and decoder as two ONNX files, for ONNX Runtime and others"
DESCRIPTION = """\
Write a run's model as DIR/encoder.onnx and DIR/decoder.onnx.

encoder.onnx takes x (rows, data), where NaN was not observed, and gives mu and logvar (rows, latent) of q(z|x);
decoder.onnx takes z (rows, latent) and gives the mean of p(x|z) (rows, data), and as output what the decoder says. Both
take any number of rows, in the run's precision; where columns are standardized, x and the mean are float64. Images are
rows of pixels, pixel row after pixel row. A run that was trained with --conditional takes labels y (rows,) beside them,
as int64 from 0 on; what they are called is in the metadata."""
EXAMPLES = """\
examples:
  tinyvae export runs/digits-20250101-120000 --onnx exported
  tinyvae export runs/digits-20250101-120000 --onnx exported --checkpoint best"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options."""
    loading.add_run_arguments(parser)
    parser.add_argument(
        "--onnx", type=Path, required=True, metavar="DIR", help="a folder for the two files; made where there is none"
    )
    parser.set_defaults(backend="numpy")


def run(args: argparse.Namespace) -> int:
    """Open the run, write down its halves, then the files."""
    try:
        from tinyvae.export.file import onnx_models
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "onnx":
            raise
        raise ExportError("ONNX files need the package onnx: python -m pip install 'tinyvae[onnx]'") from error
    trained = loading.open_run(args)
    about: dict[str, Any] = {"epoch": trained.epoch, "checkpoint": args.checkpoint}
    if trained.record.image_shape is not None:
        about["image_shape"] = "x".join(map(str, trained.record.image_shape))
    made = onnx_models(trained.model, **about)
    paths = {name: args.onnx / f"{name}.onnx" for name in made}
    contents = [(paths[name], model.SerializeToString()) for name, model in made.items()]
    try:
        _write(args.onnx, contents)
    except OSError as error:
        raise TinyvaeError(
            f"{error.filename or args.onnx}: cannot be written ({error.strerror or error}); choose another --onnx"
        ) from error
    for path in paths.values():
        print(path)
    return 0


def _write(folder: Path, contents: list[tuple[Path, bytes]]) -> None:
    """Both files or neither: the first is whole on the disk before the second is begun, and gets its name after it.

    Only where that very last renaming fails does a folder that held two files hold an old one and a new one.
    """
    made = make_folder(folder)
    (first, content), (second, more) = contents
    was_there = second.exists()

    def both(file: BinaryIO) -> None:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        write_bytes(second, more)

    try:
        write_atomically(first, both)
    except BaseException:
        if not was_there:
            with suppress(OSError):
                second.unlink(missing_ok=True)
        remove_folders(made)
        raise

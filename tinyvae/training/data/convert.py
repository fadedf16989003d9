"""Files of formats that are not read (see `readers` for those that are): the line of Python that makes a .npy file."""

from pathlib import Path

from tinyvae.training.data.readers import ending_of

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
SAVE = "save numbers with numpy.save"

# For each ending, what is to be imported, and the rows as an expression of the file's name {f}.
_READ: dict[str, tuple[str, str]] = {
    ".npy.gz": ("gzip, ", "np.load(gzip.open({f}))"),
    ".feather": ("pandas as pd, ", "pd.read_feather({f}).to_numpy(float)"),
    ".xlsx": ("pandas as pd, ", "pd.read_excel({f}).to_numpy(float)"),
    ".xls": ("pandas as pd, ", "pd.read_excel({f}).to_numpy(float)"),
    ".json": ("json, pathlib, ", "np.array(json.loads(pathlib.Path({f}).read_text()), dtype=float)"),
    ".mat": ("scipy.io, ", 'scipy.io.loadmat({f})["x"]'),
    ".h5": ("h5py, ", 'h5py.File({f})["x"][:]'),
    ".pt": ("torch, ", "torch.load({f}).numpy()"),
    ".safetensors": ("safetensors.numpy, ", 'safetensors.numpy.load_file({f})["x"]'),
    ".pkl": ("pathlib, pickle, ", "np.asarray(pickle.loads(pathlib.Path({f}).read_bytes()))"),
}
_ALIKE = {".hdf5": ".h5", ".hdf": ".h5", ".pth": ".pt", ".pickle": ".pkl"}
_NOTE = {
    ".mat": 'for "x" the name in the file: print(scipy.io.whosmat({f}))',
    ".h5": 'for "x" the name in the file: print(list(h5py.File({f})))',
    ".safetensors": 'for "x" the name in the file',
    ".pkl": "unpickling runs what the file says: only if you trust it",
}
_SIGNATURES = (
    (b"\x1f\x8b", "it is gzipped", ".npy.gz"),
    (b"\x89HDF", "it is an HDF5 file", ".h5"),
    (b"PAR1", "it is a Parquet file", ".parquet"),
    (b"MATLAB", "it is a MATLAB file", ".mat"),
    (b"\x80\x02", "it is a pickle", ".pkl"),
    (b"\x80\x03", "it is a pickle", ".pkl"),
    (b"\x80\x04", "it is a pickle", ".pkl"),
    (b"\x80\x05", "it is a pickle", ".pkl"),
)


def is_path(data: str) -> bool:
    """The name is that of a file of a format that is read."""
    return bool(ending_of(Path(data)))


def how_to_convert(path: Path) -> str:
    """What to do with a file, or a folder, that is not read: a line of Python, and what to know about it."""
    if path.is_dir():
        return _images(f"sorted(pathlib.Path({str(path)!r}).glob('*.png'))", path.name)
    ending = _ending(path)
    if ending in (".png", ".jpg", ".jpeg"):
        return f"a data set is a folder of images: name the folder, {path.parent}"
    if ending in IMAGES:
        return _images(f"sorted(pathlib.Path({str(path.parent)!r}).glob('*{ending}'))", "images")
    if "ubyte" in path.name:
        return f"if it is MNIST's or Fashion-MNIST's: --data mnist (or fashion-mnist) --data-dir {path.parent}"
    if path.name.startswith("binarized_mnist"):
        return f"if it is Larochelle's: --data binarized-mnist --data-dir {path.parent}"
    return _line(path, ending)


def other_kind(path: Path, begin: bytes) -> tuple[str, str]:
    """What a file named .npy or .npz is, from its first bytes, and what to do."""
    for signature, kind, ending in _SIGNATURES:
        if begin.startswith(signature):
            return kind, _line(path, ending)
    if not begin:
        return "it is empty", SAVE
    if begin.isascii() and begin[:1] not in b"<%" and "".join(begin.decode().split()).isprintable():
        return "it is text", _line(path, ".csv")
    return f"it begins with {begin!r}", SAVE


def _ending(path: Path) -> str:
    """The name's ending, in small letters."""
    name = path.name.lower()
    ending = Path(name.removesuffix(".gz")).suffix
    return _ALIKE.get(ending, ending) + (".gz" if name.endswith(".gz") else "")


def _line(path: Path, ending: str) -> str:
    if ending_of(Path(f"x{ending}")):
        return f"let its name end so: {_renamed(path.name, ending)}"
    if ending not in _READ:
        return "save its rows with numpy.save('my.npy', x), x being an array of numbers, (rows, columns)"
    imports, rows = _READ[ending]
    file = repr(str(path))
    line = f"import {imports}numpy as np; np.save({_out(path.name)!r}, {rows.replace('{f}', file)})"
    note = _NOTE.get(ending)
    return f"in Python: {line}" + (f"  # {note.replace('{f}', file)}" if note else "")


def _images(paths: str, name: str) -> str:
    images = f"[Image.open(p).convert('L').resize((28, 28)) for p in {paths}]"
    return (
        f"in Python: import pathlib, numpy as np; from PIL import Image; np.save({_out(name)!r}, np.stack({images}) / "
        "np.float32(255))  # grey images, all of one size"
    )


def _renamed(name: str, ending: str) -> str:
    return Path(name).stem + ending


def _out(name: str) -> str:
    """A .npy file beside the one that is there; never the same name."""
    base = name
    while Path(base).suffix:
        base = Path(base).stem
    out = f"{base or 'my'}.npy"
    return out if out.lower() != name.lower() else f"{base}-converted.npy"

"""Folders of images, as `find` hands them over."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import SEEDS, sizes

from tinyvae.errors import DataError
from tinyvae.training.data import memory
from tinyvae.training.data.found import find

SOON = 5.0  # seconds, for what would wait for ever


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def drawn(path: str, seed: int = 0, shape: tuple[int, ...] = (6, 5), **options: Any) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


@given(seed=SEEDS, n=sizes(3, 1, 8), colour=st.booleans(), labelled=st.booleans(), parts=st.booleans())
def test_pixels_labels_and_parts_of_a_folder_come_in_the_order_of_the_names(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: tuple[int, ...], colour: bool, labelled: bool, parts: bool
) -> None:
    count, height, width = n
    shape = (height, width, 3) if colour else (height, width)
    root = tmp_path_factory.mktemp("a") / "set"
    names = {"train": "train", "val": "valid", "test": "test"} if parts else {".": "train"}
    expected: dict[str, list[tuple[np.ndarray, str]]] = {}
    for at, (folder, part) in enumerate(names.items()):
        for label in ("cat", "dog") if labelled else (".",):
            for i in range(count):
                path = root / folder / label / f"{i:02}.{'png' if i % 2 else 'PNG'}"
                pixels = drawn(str(path), seed % 1000 + 100 * at + i + 50 * (label == "dog"), shape)
                expected.setdefault(part, []).append((pixels, label))
    (root / ".hidden.png").write_text("?")
    found = find(root)
    assert (found.name, found.image_shape, found.notes) == ("set", shape, ())
    assert list(found.parts()) == list(expected)
    for part, images in expected.items():
        got = found.parts()[part]
        assert got.x.dtype == np.uint8
        assert np.array_equal(got.x, [pixels.reshape(-1) for pixels, _ in images])
        assert (got.y is None) == (not labelled)
        if got.y is not None:
            assert got.y.tolist() == [label for _, label in images]


def test_one_image_in_colour_makes_all_of_them_colour() -> None:
    grey, colour = drawn("set/a.png"), drawn("set/b.png", 1, (6, 5, 3))
    found = find(Path("set"))
    assert found.image_shape == (6, 5, 3)
    assert np.array_equal(found.train.x[0].reshape(6, 5, 3), np.stack([grey] * 3, axis=-1))
    assert np.array_equal(found.train.x[1].reshape(6, 5, 3), colour)


def test_every_kind_of_png_and_jpeg_is_decoded_as_pillow_does() -> None:
    pixels = drawn("grey/a.jpg", quality=95)
    assert np.array_equal(find(Path("grey")).train.x[0], np.asarray(Image.open("grey/a.jpg")).reshape(-1))
    for mode in ("1", "L", "P", "RGB", "CMYK"):
        path = Path(f"of-{mode}/a.{'jpeg' if mode == 'CMYK' else 'png'}")
        path.parent.mkdir()
        Image.fromarray(pixels).convert("RGB").convert(mode).save(path)
        found = find(path.parent)
        grey = mode in ("1", "L")
        assert found.image_shape == ((6, 5) if grey else (6, 5, 3))
        assert np.array_equal(
            found.train.x[0], np.asarray(Image.open(path).convert("L" if grey else "RGB")).reshape(-1)
        )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_taken_as_it_is_shown(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    drawn("set/a.jpg", shape=(16, 8), exif=exif)
    stored = np.asarray(Image.open("set/a.jpg"))
    turns = {1: lambda x: x, 2: np.fliplr, 3: lambda x: x[::-1, ::-1], 4: np.flipud, 5: np.transpose,
             6: lambda x: np.rot90(x, -1), 7: lambda x: x[::-1, ::-1].T, 8: np.rot90}  # fmt: skip
    found = find(Path("set"))
    shown = turns[orientation](stored)
    assert found.image_shape == shown.shape
    assert np.array_equal(found.train.x[0].reshape(shown.shape), shown)


def test_grey_images_that_are_stored_in_colour_are_told() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 1), dtype=np.uint8)
    Path("set").mkdir()
    Image.fromarray(np.tile(pixels, 3)).save("set/a.png")
    found = find(Path("set"))
    assert found.image_shape == (6, 5, 3)
    assert "stored in colour, but grey" in found.notes[0]


def test_opacity_is_left_out_where_there_is_none_and_refused_where_there_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    Path("set").mkdir()
    pixels[..., 3] = 255
    Image.fromarray(pixels).save("set/a.png")
    found = find(Path("set"))
    assert np.array_equal(found.train.x[0].reshape(6, 5, 3), pixels[..., :3])
    pixels[2, 3, 3] = 254
    Image.fromarray(pixels).save("set/a.png")
    with pytest.raises(DataError, match=r"set/a\.png: is transparent in places") as caught:
        find(Path("set"))
    exec(str(caught.value).partition("in Python: ")[2], {})
    Path("opaque.png").replace("set/a.png")
    assert find(Path("set")).image_shape == (6, 5, 3)


def test_images_of_two_sizes_are_named_and_the_line_makes_them_one() -> None:
    for i in range(5):
        drawn(f"set/train/cat/{i}.png", i)
    drawn("set/train/dog/odd.png", 9, (7, 5))
    with pytest.raises(
        DataError, match=r"5 images are 5 x 6 pixels, but 1 are not, set/train/dog/odd\.png for one"
    ) as caught:
        find(Path("set"))
    assert "\n" not in str(caught.value)
    exec(str(caught.value).partition("in Python: ")[2], {})
    found = find(Path("set-resized"))
    assert found.image_shape == (6, 5)
    assert found.train.y is not None
    assert found.train.y.tolist() == ["cat"] * 5 + ["dog"]


def test_what_is_no_image_is_named_in_a_note_and_hidden_files_are_not() -> None:
    drawn("set/train/a.png")
    Path("set/train/a.txt").touch()
    Path("set/readme.md").touch()
    Path("set/train/.DS_Store").touch()
    Path("set/train/empty").mkdir()
    (note,) = find(Path("set")).notes
    assert note == "set: not read: 3 of its entries (train/a.txt, train/empty, readme.md)"


REFUSED = {
    "empty": ([], "holds no image that ends in .png, .jpg, .jpeg"),
    "no training part": (["set/test/a.png"], "has a folder test, but none called train"),
    "an empty part": (["set/train/a.png", "set/test/x/y/a.png"], "set/test: holds no image"),
    "two of one part": (["set/train/a.png", "set/val/a.png", "set/valid/a.png"], "two of its folders mean the same"),
    "images beside folders": (["set/a.png", "set/dog/a.png"], r"both in itself .a\.png. and in folders .dog."),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_leaves_a_choice_is_refused(case: str) -> None:
    paths, words = REFUSED[case]
    Path("set").mkdir()
    for i, path in enumerate(paths):
        drawn(path, i)
    with pytest.raises(DataError, match=words) as caught:
        find(Path("set"))
    assert "\n" not in str(caught.value)


def test_a_damaged_image_is_named() -> None:
    drawn("set/a.png", 0, (40, 40))
    drawn("set/b.jpg", 1, (40, 40))
    whole = {name: Path(f"set/{name}").read_bytes() for name in ("a.png", "b.jpg")}
    gif = Path("c.gif")
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(gif)
    for name, content in whole.items():
        for damaged in (b"", content[:9], content[: len(content) // 2], b"GARBAGE" * 99, gif.read_bytes(),
                        content[:30] + bytes(200) + content[230:]):  # fmt: skip
            Path(f"set/{name}").write_bytes(damaged)
            with pytest.raises(DataError, match=rf"set/{name}: is not a readable image") as caught:
                find(Path("set"))
            assert "\n" not in str(caught.value)
            assert "<" not in str(caught.value)  # nor an object's address
        Path(f"set/{name}").write_bytes(content)
    assert len(find(Path("set")).train.x) == 2


def test_bits_that_flip_are_refused_or_harmless() -> None:
    drawn("set/a.png", 0, (20, 20, 3))
    content = Path("set/a.png").read_bytes()
    for at in range(0, 8 * len(content), 37):
        damaged = bytearray(content)
        damaged[at // 8] ^= 1 << at % 8
        Path("set/a.png").write_bytes(damaged)
        try:
            assert find(Path("set")).train.x.dtype == np.uint8
        except DataError as error:
            refused = str(error)
            assert refused.startswith("set")


def test_sixteen_bits_are_refused() -> None:
    Path("set").mkdir()
    Image.fromarray(np.arange(30, dtype=np.uint16).reshape(6, 5) * 999).save("set/a.png")
    with pytest.raises(DataError, match=r"set/a\.png: its pixels are of the kind I;16, not bytes"):
        find(Path("set"))


def test_what_would_not_fit_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        drawn(f"set/{i}.png", i, (100, 100, 3))
    monkeypatch.setattr(memory, "available", lambda: 80_000)
    monkeypatch.setattr(Image.Image, "load", lambda *args: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match=r"3 images of 100 x 100 pixels: not enough memory: about 0\.1 MB are needed"):
        find(Path("set"))


def test_a_bomb_is_not_unpacked() -> None:
    drawn("set/a.png")
    content = bytearray(Path("set/a.png").read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2  # its header claims 3.6 billion pixels
    Path("set/a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"set/a\.png: is not a readable image"):
        find(Path("set"))


def test_no_pipe_is_waited_for_among_images() -> None:
    drawn("set/a.png")
    os.mkfifo("set/b.png")
    began = time.monotonic()
    with pytest.raises(DataError, match=r"set/b\.png: is a pipe, not a file"):
        find(Path("set"))
    assert time.monotonic() - began < SOON


def test_a_missing_pillow_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn("set/a.png")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r"set: to read images, Pillow is needed .*'tinyvae\[images\]'"):
        find(Path("set"))

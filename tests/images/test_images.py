"""One reader of images: what photographs, scans and masks really come as, each read to the right pixels."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, features

from ganatomy.dissect.artifacts.flags import read_flags
from ganatomy.dissect.fidelity.reference import reference_images
from ganatomy.dissect.generators.sources import FolderImages
from ganatomy.dissect.images.contact_sheet import GAP, sheet
from ganatomy.dissect.images.reader import image_size, list_images, read_image, read_paint
from ganatomy.dissect.interventions.places import Where, mask_place
from ganatomy.hooks.errors import DissectError, DissectWarning, UsageError

RED, GREEN = (200, 30, 10), (10, 180, 40)


def two_colours(height: int = 6, width: int = 10) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Red above, green below: what is up can be told."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2], pixels[height // 2 :] = RED, GREEN
    return pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
def test_exif_says_what_is_up(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = two_colours()
    back = {  # what a camera stores, by Exif 2.3's definition of each value
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda x: np.rot90(x, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{kind}"
    options = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(np.ascontiguousarray(back(upright))).save(path, exif=exif, **options)
    np.testing.assert_array_equal(read_image(path), upright)
    assert image_size(path) == (6, 10)


def save_sixteen(path: Path) -> None:
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(path)


def save_floats(path: Path) -> None:
    Image.fromarray(np.array([[0, 100 / 255, 1]], np.float32)).save(path)


def save_palette(path: Path) -> None:
    image = Image.fromarray(np.array([[1, 0, 2]], np.uint8), "P")
    image.putpalette([100, 100, 100, 0, 0, 0, 255, 255, 255])
    image.save(path)


def save_cmyk(path: Path) -> None:
    grey = Image.fromarray(np.array([[0, 100, 255]], np.uint8))
    Image.merge("CMYK", [Image.new("L", (3, 1))] * 3 + [grey.point(lambda value: 255 - value)]).save(path)


def save_clear(path: Path) -> None:
    """Transparent pixels hide colours that must not show."""
    grey = np.array([[0, 100, 7]], np.uint8)
    Image.fromarray(np.dstack([grey, grey, grey, np.array([[255, 255, 0]], np.uint8)])).save(path)


def save_animated(path: Path) -> None:
    frames = [Image.fromarray(np.array([[0, 100, 255]], np.uint8)), Image.new("L", (3, 1), 50)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("sixteen.png", save_sixteen),
        ("sixteen.tif", save_sixteen),
        ("floats.tif", save_floats),
        ("palette.png", save_palette),
        ("palette.gif", save_palette),
        ("cmyk.tif", save_cmyk),
        ("clear.png", save_clear),
        ("animated.gif", save_animated),
        ("animated.png", save_animated),
        ("one.jp2", lambda path: Image.fromarray(np.array([[0, 100, 255]], np.uint8)).save(path, irreversible=False)),
    ],
)
def test_every_kind_is_read_to_the_same_greys(tmp_path: Path, name: str, save: Any) -> None:
    if name.endswith(".jp2") and not features.check("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    save(tmp_path / name)
    expected = np.repeat(np.array([[[0], [100], [255]]], np.uint8), 3, axis=2)
    np.testing.assert_array_equal(read_image(tmp_path / name), expected)
    np.testing.assert_array_equal(read_image(tmp_path / name, "L"), expected[..., 0])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([[-3.0, 4.0]], np.float32), "floats from -3 to 4"),
        (np.array([[np.nan, 0.5]], np.float32), "floats from nan to nan"),
        (np.array([[0, 100_000]], np.int32), "32-bit integers from 0 to 100000"),
    ],
)
def test_values_of_an_unknown_range_are_refused_by_name(tmp_path: Path, values: Any, said: str) -> None:
    Image.fromarray(values).save(tmp_path / "data.tif")
    with pytest.raises(DissectError, match=rf"data\.tif holds {said}.*what is white"):
        read_image(tmp_path / "data.tif")


def folder_of(tmp_path: Path) -> Path:
    """What stands in the folders of people: images, and much beside."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "__MACOSX").mkdir()
    (folder / "old-run" / "report").mkdir(parents=True)
    for number, place in enumerate(("a.JPG", "more/b.jfif", "c.gif", "d.tiff", "e.webp")):
        Image.fromarray(two_colours(20, 30 + number)).save(folder / place, {"b": "JPEG"}.get(Path(place).stem))
    for place in ("._a.JPG", ".hidden/f.png", "__MACOSX/g.png", "old-run/report/h.png"):
        Image.fromarray(two_colours(20, 40)).save(folder / place.replace("._a.JPG", "._a.png"))
    (folder / "old-run" / "run.json").write_text("{}")
    (folder / "copy.JPG").write_bytes((folder / "a.JPG").read_bytes())
    whole = (folder / "a.JPG").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) - 60])
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(folder / "broken.png")
    png = (folder / "broken.png").read_bytes()
    (folder / "broken.png").write_bytes(png[: len(png) // 2])
    (folder / "page.jpg").write_text("<html>not found</html>")
    (folder / "phone.heic").write_bytes(b"\0" * 100)
    (folder / "notes.txt").write_text("nothing")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(two_colours(20, 50)).save(tmp_path / "elsewhere" / "linked.png")
    (folder / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    return folder


def test_a_folder_is_listed_with_what_is_left_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    found = list_images(folder, "--inputs")
    assert [path.relative_to(folder).as_posix() for path in found.files] == [
        *("a.JPG", "c.gif", "copy.JPG", "d.tiff", "e.webp", "link/linked.png", "more/b.jfif")
    ]
    assert {path.name for path in found.left_out} == {"cut.jpg", "broken.png", "page.jpg", "phone.heic"}
    assert found.copies == 1
    assert "7 of 11 files are read" in found.said
    for words in ("1 of 7 images are copies of others", "cut short", "no image, whatever its name says"):
        assert words in found.said


def test_inputs_and_reference_say_what_they_leave_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path)
    with pytest.warns(DissectWarning, match="7 of 11 files are read"):
        assert len(FolderImages(str(folder)).files) == 7
    monkeypatch.setattr("ganatomy.dissect.fidelity.reference.FEWEST", 7)
    with pytest.warns(DissectWarning, match="7 of 11 files are read"):
        batches, name = reference_images(folder, (8, 8))
    assert "7 of 7 images, copies among them: 1" in name
    (images,) = batches
    assert images.shape == (7, 3, 8, 8)
    top, bottom = images[:, :, :3].mean((0, 2, 3)) * 255, images[:, :, 5:].mean((0, 2, 3)) * 255
    np.testing.assert_allclose(top, RED, atol=6)
    np.testing.assert_allclose(bottom, GREEN, atol=6)


def test_a_reference_is_upright_like_the_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same photograph as a camera stores it, as a reference and as an input."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "p").mkdir()
    Image.fromarray(np.rot90(two_colours(8, 8), 1).copy()).save(tmp_path / "p" / "x.png", exif=exif)
    monkeypatch.setattr("ganatomy.dissect.fidelity.reference.FEWEST", 1)
    batches, _ = reference_images(tmp_path / "p", (8, 8))
    (given,) = FolderImages(str(tmp_path / "p"), value_range=(0, 1))([0])
    (real,) = next(iter(batches))
    torch.testing.assert_close(given, real)
    np.testing.assert_allclose(given[:, 0, 0] * 255, RED, atol=0.01)


def test_a_thumbnail_among_photographs_is_asked_about(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for number in range(9):
        Image.fromarray(two_colours(64, 64 + number)).save(tmp_path / "p" / f"{number}.png")
    with pytest.warns(DissectWarning, match=r"cut to 64×64 pixels because of .*0\.png \(5\.9% of all pixels "):
        assert FolderImages(str(tmp_path / "p")).size == (64, 64)
    Image.fromarray(two_colours(16, 16)).save(tmp_path / "p" / "thumb.png")
    with pytest.raises(UsageError, match=r"cut to 16×16 pixels because of .*thumb\.png, .* 9\d% .*`crop` .*resize"):
        _ = FolderImages(str(tmp_path / "p")).size
    with pytest.warns(DissectWarning, match="cut to 16×16"):
        assert FolderImages(str(tmp_path / "p"), crop=True)([0]).shape == (1, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resized = FolderImages(str(tmp_path / "p"), resize=32, value_range=(0, 1))(list(range(10)))
    assert resized.shape == (10, 3, 32, 32)
    np.testing.assert_allclose(resized[:, :, :10].mean((0, 2, 3)) * 255, RED, atol=2)
    with pytest.raises(UsageError, match="multiple of 4; resize=30"):
        _ = FolderImages(str(tmp_path / "p"), resize=30, multiple=4).size


def test_any_paint_is_on_and_a_level_can_be_named(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, :4], mask[4:, 4:] = 1, 200
    path = str(tmp_path / "mask.png")
    Image.fromarray(mask).save(path)
    with pytest.warns(DissectWarning, match=r"3 different values.*mask\.png@128"):
        place = mask_place(path, 2, 2)
    assert place.tolist() == [[[[1.0, 0.0], [0.0, 1.0]]]]
    where = Where.parse(f"{path}@128")
    assert (where.kind, where.level) == ("mask", 128)
    assert mask_place(where.text, 2, 2, where.level).tolist() == [[[[0.0, 0.0], [0.0, 1.0]]]]
    Image.fromarray((mask > 0).astype(np.uint8)).save(path)  # as people save a mask of 0 and 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mask_place(path, 4, 4).sum() == 8
    with pytest.raises(UsageError, match=r"@0.* 255"):
        Where.parse(f"{path}@0")
    with pytest.raises(UsageError, match="nowhere 2 or brighter"):
        mask_place(path, 2, 2, 2)


def test_paint_is_the_same_for_flags_and_places(tmp_path: Path) -> None:
    """Black is not paint, and neither is what cannot be seen; a palette's colours count, not its numbers."""
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[0, 0], clear[1, 1] = (255, 0, 0, 255), (255, 0, 0, 0)
    (tmp_path / "m").mkdir()
    Image.fromarray(clear).save(tmp_path / "m" / "0.png")
    palette = Image.fromarray(np.array([[1, 0], [0, 0]], np.uint8).repeat(2, 0).repeat(2, 1), "P")
    palette.putpalette([255, 255, 255, 0, 0, 0])  # number 0 is white
    palette.save(tmp_path / "m" / "1.png")
    flags = read_flags(tmp_path / "m", 3, (4, 4))
    assert flags.regions is not None
    assert flags.regions[0].sum() == 1
    assert flags.regions[1].sum() == 12
    assert read_paint(tmp_path / "m" / "1.png")[0].sum() == 12
    Image.fromarray(np.array([[0, 1], [300, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert read_paint(tmp_path / "deep.png")[0].tolist() == [[False, True], [True, True]]
    assert read_paint(tmp_path / "deep.png", 128)[0].tolist() == [[False, False], [False, True]]


def test_a_colour_profile_does_no_harm(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(two_colours()).save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), two_colours())


def test_a_folder_without_images_says_why(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("no")
    with pytest.raises(UsageError, match=r"holds no images .*Left out: x\.jpg \(no image"):
        list_images(tmp_path, "--reference")
    with pytest.raises(UsageError, match="is a file; give a folder"):
        list_images(tmp_path / "x.jpg", "--reference")
    with pytest.raises(UsageError, match="does not exist; give a folder"):
        list_images(tmp_path / "nowhere", "--reference")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_left_out(tmp_path: Path) -> None:
    Image.fromarray(two_colours()).save(tmp_path / "a.png")
    Image.fromarray(two_colours(8, 8)).save(tmp_path / "b.png")
    (tmp_path / "b.png").chmod(0)
    assert "Permission denied" in list_images(tmp_path, "--inputs").said


def test_labels_of_a_sheet_stay_above_their_columns() -> None:
    columns = ["mean of 36,73,50,24,112 and more", "minus 40,54,77,76,96,13", ""]
    page = np.asarray(sheet(np.zeros((3, 128, 128, 3), np.uint8), ["row"], columns))
    top = next(y for y in range(len(page)) if (page[y, -GAP - 1] == 0).all())  # where the last tile begins
    inked = (page[:top] < 200).any((0, 2))
    left = page.shape[1] - 3 * (128 + GAP)
    for number, column in enumerate(columns):
        start = left + number * (128 + GAP)
        assert inked[start : start + 128].any() == bool(column)
        assert not inked[start + 128 : start + 128 + GAP].any()

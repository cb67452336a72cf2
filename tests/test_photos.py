"""Pictures as phones and drawing programs make them: mirrored, in tiles, huge, to be seen through."""

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageOps
from test_trust_security import png

from errors import InputError
from media.frame import Colour
from media.size import parse_size
from media.source import MAX_PIXELS
from media.video import VideoReader, VideoWriter


def portrait(width: int = 96, height: int = 64) -> Image.Image:
    """No two of its sides are alike."""
    return Image.fromarray(skimage.data.astronaut()[:300, 60:510]).resize((width, height))


def seen(path: Path, **options) -> np.ndarray:
    return next(iter(VideoReader(path, **options))).rgb()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b).mean()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    portrait().save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {"quality": 95}))
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert difference(seen(path), shown) < 4


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_display_matrices(tmp_path, turn, mirrored):
    path, image = tmp_path / "a.mp4", np.asarray(portrait())
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(turn, hflip=mirrored)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    shown = np.rot90(image, turn // 90)
    reader = VideoReader(path)
    assert difference(next(iter(reader)).rgb(), shown[:, ::-1] if mirrored else shown) < 6 and not reader.notes


@pytest.mark.parametrize("name", ["selfie_exif2.jpg", "selfie_exif4.jpg", "selfie_exif5.jpg"])
def test_reported_selfies(shared, name):
    path = shared(f"data/reports/{name}")
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert difference(seen(path), shown) < 2


def test_a_reported_mirrored_video(shared):
    path = shared("data/reports/mirrored_matrix.mp4")
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert difference(seen(path), stored[:, ::-1]) < 4


def test_tiles_are_put_together(shared):
    pytest.importorskip("pillow_heif")
    path = shared("data/reports/phone_tiles.heic")
    reader = VideoReader(path)
    assert reader.is_still and reader.size == (872, 1024) and reader.times == [0]
    (frame,), (again,) = list(reader), list(reader.reversed_frames())
    with Image.open(shared("data/reports/selfie_exif2.jpg")) as image:
        same = ImageOps.exif_transpose(image).convert("RGB").resize((872, 1024))
    assert difference(frame.rgb(), np.asarray(same)) < 6 and (again.planes[0] == frame.planes[0]).all()


def test_tiles_without_a_reader_are_refused_in_one_line(shared, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.init()
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    with pytest.raises(InputError, match="pip install pillow-heif"):
        VideoReader(shared("data/reports/phone_tiles.heic"))


@pytest.mark.parametrize("name", ["rgba.png", "la.png", "palette.png", "rgba.webp"])
def test_hidden_colours_are_not_shown(tmp_path, name):
    image = portrait().convert("RGBA")
    alpha = np.zeros((64, 96), np.uint8)
    alpha[20:50, 30:70], alpha[:10] = 255, 128
    image.putalpha(Image.fromarray(alpha))
    if name == "la.png":
        image = image.convert("LA")
    if name == "palette.png":
        image = image.quantize(64)
    image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    reader = VideoReader(tmp_path / name)
    assert reader.colour == Colour(1, 1, 1, 1)
    white = Image.new("RGBA", image.size, "white")
    shown = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    assert difference(next(iter(reader)).rgb(), shown) < 4 and "white" in reader.notes[0]
    opaque = tmp_path / "opaque.png"
    portrait().convert("RGBA").save(opaque)
    assert difference(seen(opaque), np.asarray(portrait())) < 4 and not VideoReader(opaque).notes


def test_large_pictures_are_scaled_to_what_players_take(tmp_path):
    path = tmp_path / "a.jpg"
    portrait(4000, 3000).save(path)
    reader = VideoReader(path)
    assert reader.size == (3072, 2304) and "4000x3000 was scaled down to 3072x2304" in reader.notes[0]
    assert difference(next(iter(reader)).rgb(), np.asarray(portrait(3072, 2304))) < 3
    assert VideoReader(path, max_size=None).size == (4000, 3000)
    exif = Image.Exif()
    exif[0x0112] = 6
    portrait(4000, 1000).save(path, exif=exif)
    assert VideoReader(path).size == (1000, 4000)
    assert VideoReader(path, max_size=parse_size("500x300")).size == (124, 500)


def test_large_videos_are_scaled_too(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", (192, 128), Fraction(25), crf=4) as writer:
        for _ in range(3):
            writer.write(np.asarray(portrait(192, 128)))
    reader = VideoReader(tmp_path / "a.mp4", max_size=(96, 96))
    assert [difference(frame.rgb(), np.asarray(portrait())) < 5 for frame in reader] == [True] * 3
    assert reader.size == (96, 64) and reader.colour == VideoReader(tmp_path / "a.mp4").colour


@pytest.mark.parametrize("text", ["4096", "0x0", "10x4000", "4096x2304x1", "big", ""])
def test_bad_sizes_are_input_errors(text):
    with pytest.raises(InputError, match="max_size is"):
        parse_size(text)


def test_sizes():
    assert parse_size("1080x1920") == (1920, 1080) and parse_size("none") is None


def test_pictures_too_large_are_refused_before_they_are_decoded(tmp_path):
    """By a row; what is far larger is in test_trust_security."""
    rows = MAX_PIXELS // 16000 + 1
    (tmp_path / "a.png").write_bytes(png(16000, rows))
    with pytest.raises(InputError, match=f"16000x{rows} px .*megapixels"):
        VideoReader(tmp_path / "a.png")

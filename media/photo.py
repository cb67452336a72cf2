"""Photos that FFmpeg hands out in pieces, or with parts to be seen through."""

from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition

from errors import InputError
from media.frame import Colour, to_rgba
from media.source import PHOTO_ERRORS, check_size, photo_header

_BRANDS = ("heic", "heix", "heim", "heis", "mif1", "mif2", "avif")
_ROWS = 256


def is_composed(container: InputContainer) -> bool:
    """Whether this is a HEIC or AVIF photo of tiles, or of several pictures, of which one is meant."""
    if container.metadata.get("major_brand") not in _BRANDS:
        return False
    streams = container.streams.video
    return len(streams) != 1 or bool(streams[0].disposition & Disposition.dependent)


def compose(path: Path) -> av.VideoFrame:
    """The one picture of such a photo, upright. Raises InputError if damaged, or without pillow-heif."""
    readable = _read_heif()
    try:
        with photo_header(path) as image:
            check_size(path, image.size)
            pixels = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    except PHOTO_ERRORS as error:
        if not readable:
            raise InputError(
                f"found a HEIC photo made of several pictures in {path}, which needs the package pillow-heif to read, "
                "install it (pip install pillow-heif) or save the photo as JPEG"
            ) from error
        raise InputError(
            f"found a damaged photo {path} ({error}), expected one that can be read, save it anew"
        ) from error
    return av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")


def _read_heif() -> bool:
    """Teach Pillow to open HEIC, where the optional package for that is there; returns whether it is."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def flattened(picture: av.VideoFrame, colour: Colour) -> av.VideoFrame | None:
    """The picture laid on white where it can be seen through; None where it is opaque all over.

    What is stored under transparent pixels is nobody's to see.
    """
    if not (picture.format.name.startswith("pal") or any(part.is_alpha for part in picture.format.components)):
        return None
    pixels = to_rgba(picture, colour)
    if pixels[..., 3].min() == 255:
        return None
    for rows in np.array_split(
        pixels, -(-len(pixels) // _ROWS)
    ):  # views; large photos in wider numbers take much memory
        alpha = rows[..., 3:].astype(np.uint16)
        rows[..., :3] = (rows[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[..., :3]), format="rgb24")

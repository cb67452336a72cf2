"""Opening files with FFmpeg's libraries, and decoding that survives broken packets."""

import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition
from PIL import Image

from errors import InputError

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".mpg", ".mpeg", ".webm", ".m4v")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")
PROBE_FRAMES = 16
"""Decoded pictures looked at to find when the first one is shown."""

MAX_PIXELS = 220_000_000
"""Larger pictures are refused before they are decoded. Phones take up to 200 megapixels."""

PHOTO_ERRORS = OSError, ValueError, SyntaxError, EOFError
"""What Pillow raises for files that are damaged or no photos."""

_LIMIT = {"max_pixels": str(MAX_PIXELS)}
_TEXT_FORMATS = ("tty", "bintext", "xbin", "adf", "idf")
"""Formats in which FFmpeg would draw a text file as a picture."""


def check_there(path: Path) -> int:
    """What kind of file it is (st_mode). Raises InputError where there is none."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        why = "" if isinstance(error, FileNotFoundError) else f" ({getattr(error, 'strerror', None) or error})"
        raise InputError(f"found no file {path}{why}, expected a video, image or sound, check the path") from error


def open_input(path: str | Path) -> InputContainer:
    """Open a sound, video or image file; whatever stops that becomes an InputError naming the file."""
    path = Path(path)
    kind = check_there(path)
    if not stat.S_ISDIR(kind) and not stat.S_ISREG(kind):
        raise InputError(f"found a pipe or a device at {path}, expected a video, image or sound file, name one file")
    if stat.S_ISDIR(kind):
        raise InputError(f"found a folder at {path}, expected a video, image or sound file, name one file")
    try:
        # A resolved path is never taken for a protocol ("a:b.mp4"), nor a name with % for a row of images.
        container = av.open(str(path.resolve()), options={"pattern_type": "none", **_LIMIT})
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"found no readable video, image or sound in {path} ({reason}), expected a file FFmpeg can read, check "
            "that it plays or convert it"
        ) from error
    if container.format.name in _TEXT_FORMATS:
        container.close()
        raise InputError(f"found text in {path}, expected a video, image or sound, give another file")
    return container


def picture_stream(container: InputContainer) -> av.VideoStream | None:
    """The first video stream that is not an embedded cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            stream.codec_context.options = _LIMIT
            return stream
    return None


@contextmanager
def photo_header(path: Path) -> Iterator[Image.Image]:
    """A photo of which Pillow has read the header only, however large. Raises its errors (PHOTO_ERRORS)."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # MAX_PIXELS is ours
    try:
        image = Image.open(path)
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def check_size(path: Path, size: tuple[int, int]) -> None:
    """Raises InputError for a picture of more than MAX_PIXELS."""
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(
            f"found a picture of {size[0]}x{size[1]} px in {path}, expected at most {MAX_PIXELS // 10**6} megapixels, "
            "scale it down first"
        )


def decode(
    container: InputContainer, stream: av.VideoStream | av.AudioStream, notes: list[str] | None = None
) -> Generator[Any]:
    """Decoded frames of one stream, in order. Packets that cannot be decoded are skipped, with one note of how many,
    and so are those told of that were decoded in part.
    """
    broken = patched = 0
    try:
        for packet in container.demux(stream):
            try:
                frames: list[Any] = packet.decode()
            except av.FFmpegError:
                broken += 1
                continue
            for frame in frames:
                patched += frame.is_corrupt
                yield frame
    except av.FFmpegError:  # the file ends or breaks off here: what came before it is kept
        broken += 1
    finally:
        if broken and notes is not None:
            tell(notes, f"{broken} damaged {stream.type} packets were skipped")
        if patched and notes is not None:
            tell(notes, f"{patched} {stream.type} frames are damaged and were taken as far as they can be decoded")


def tell(notes: list[str], note: str) -> None:
    """Add a note for the user, once."""
    if note not in notes:
        notes.append(note)

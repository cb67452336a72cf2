"""Opening files with FFmpeg's libraries, and decoding that survives broken packets."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition

from errors import InputError

PROBE_FRAMES = 16
"""Decoded pictures looked at to find when the first one is shown."""

_TEXT_FORMATS = ("tty", "bintext", "xbin", "adf", "idf")
"""Formats in which FFmpeg would draw a text file as a picture."""


def open_input(path: str | Path) -> InputContainer:
    """Open a sound, video or image file; whatever stops that becomes an InputError naming the file."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"found no file {path}, expected a video, image or sound, check the path")
    if not path.is_file():
        raise InputError(f"found a folder at {path}, expected a video, image or sound file, name one file")
    try:
        # A resolved path is never taken for a protocol ("a:b.mp4"), nor a name with % for a row of images.
        container = av.open(str(path.resolve()), options={"pattern_type": "none"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"found no readable video, image or sound in {path} ({error.strerror or error}), expected a file "
            "FFmpeg can read, check that it plays or convert it"
        ) from error
    if container.format.name in _TEXT_FORMATS:
        container.close()
        raise InputError(f"found text in {path}, expected a video, image or sound, give another file")
    return container


def picture_stream(container: InputContainer) -> av.VideoStream | None:
    """The first video stream that is not an embedded cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            return stream
    return None


def decode(
    container: InputContainer, stream: av.VideoStream | av.AudioStream, notes: list[str] | None = None
) -> Iterator:
    """Decoded frames of one stream, in order. Packets that cannot be decoded are skipped, with one note of how many."""
    broken = 0
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                broken += 1
                continue
            yield from frames
    except av.FFmpegError:  # the file ends or breaks off here: what came before it is kept
        broken += 1
    finally:
        note = f"{broken} damaged {stream.type} packets were skipped"
        if broken and notes is not None and note not in notes:
            notes.append(note)


def first_picture_time(path: str | Path) -> Fraction | None:
    """When the first picture is shown, in s of the file's clock; None without pictures.

    Taken from decoded pictures: headers (`stream.start_time`) are wrong in some files. The earliest of the first few,
    because containers that store only decoding times (AVI) hand them out in the wrong order.
    """
    with open_input(path) as container:
        stream = picture_stream(container)
        if stream is None:
            return None
        stream.thread_type = "AUTO"
        times = []
        for frame in decode(container, stream):
            if frame.pts is not None:
                times.append(frame.pts * frame.time_base)
            if len(times) >= PROBE_FRAMES or len(times) >= 4 and times == sorted(set(times)):
                break
        return min(times, default=Fraction(0))

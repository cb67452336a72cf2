"""Pictures of a clip in a stored zip: written complete or not at all, read at random without keeping the file open."""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from aside import aside
from datasets.damage import Damaged, remedy

_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
_NAME_LENGTHS = 26
"""Offset of the two lengths in a zip entry's own header of 30 bytes, which stand between it and its data."""


class Archive:
    """A data set has more clips than a process may have open files, so only places are remembered."""

    def __init__(self, path: Path):
        """Raises Damaged for a file that is no whole stored zip."""
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                entries = sorted(archive.infolist(), key=lambda entry: entry.filename)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise Damaged(f"{path} cannot be read ({error}); {remedy(path)}") from error
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise Damaged(f"{path} is compressed, expected a stored zip; {remedy(path)}")
        self._sizes = [entry.file_size for entry in entries]
        self._sums = [entry.CRC for entry in entries]
        self._starts = []
        with path.open("rb", buffering=0) as file:
            for number, entry in enumerate(entries):
                lengths = os.pread(file.fileno(), 4, entry.header_offset + _NAME_LENGTHS)
                if len(lengths) < 4:
                    raise Damaged(f"picture {number} of {path} is gone; {remedy(path)}")
                self._starts.append(entry.header_offset + 30 + sum(struct.unpack("<HH", lengths)))

    def __len__(self) -> int:
        return len(self._starts)

    def pictures(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Pictures `indices`, each (H, W, 3) uint8 RGB. Raises Damaged for one that is missing or not as written."""
        return [self._decode(index, data) for index, data in zip(indices, self._read(indices), strict=True)]

    def verify(self) -> None:
        """Read every picture. Raises Damaged for one that is not as it was written."""
        for index in range(len(self)):
            self._read([index])

    def _read(self, indices: Sequence[int]) -> list[bytes]:
        if missing := [index for index in indices if not index < len(self)]:
            raise Damaged(f"{self.path} holds {len(self)} pictures, number {missing[0]} is wanted; {remedy(self.path)}")
        try:
            with self.path.open("rb", buffering=0) as file:
                read = [os.pread(file.fileno(), self._sizes[index], self._starts[index]) for index in indices]
        except OSError as error:
            raise Damaged(f"{self.path} cannot be read any more ({error}); {remedy(self.path)}") from error
        for index, data in zip(indices, read, strict=True):
            if zlib.crc32(data) != self._sums[index]:
                raise self._damaged(index)
        return read

    def _decode(self, index: int, data: bytes) -> np.ndarray:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
        if picture is None:
            raise self._damaged(index)
        return picture

    def _damaged(self, index: int) -> Damaged:
        return Damaged(f"picture {index} of {self.path} is damaged; {remedy(self.path)}")


def write_archive(path: Path, images: Iterable[np.ndarray]) -> int:
    """Write RGB images as 000000.jpg ... (quality 95, 4:4:4), complete or not at all; returns their number."""
    count = 0
    with aside(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for image in images:
            data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _JPEG)[1]
            archive.writestr(f"{count:06d}.jpg", data.tobytes())
            count += 1
    return count

"""Writing single pictures."""

from pathlib import Path

import cv2
import numpy as np

from errors import InputError

_JPEG_QUALITY = 92


def write_picture(path: Path, rgb: np.ndarray) -> None:
    """(H, W, 3) uint8 RGB, as JPEG or PNG by the name. Raises InputError where it cannot be written."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix == ".jpg" else []
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), quality):
        raise InputError(f"{path} cannot be written; free some space there, or choose another folder")

"""Writing single pictures."""

from pathlib import Path

import cv2
import numpy as np

from errors import InputError

_JPEG_QUALITY = 92


def write_picture(path: Path, rgb: np.ndarray) -> None:
    """(H, W, 3) uint8 RGB, as JPEG or PNG by the name. Raises InputError where it cannot be written."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix.lower() in (".jpg", ".jpeg") else []
    try:
        written = cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), quality)
    except cv2.error:  # a name without a suffix that it knows
        written = False
    if not written:
        raise InputError(
            f"{path} cannot be written as a picture; expected a name that ends in .jpg or .png, in a folder with space "
            "(of temporary ones TMPDIR says where)"
        )

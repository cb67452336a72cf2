"""A small visible mark that says a picture is synthetic."""

import cv2
import numpy as np

from media.frame import Frame

TEXT = "SYNTHETIC"
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_HEIGHT = 1 / 40
"""Of the letters, as a share of the picture's height; 6 px at least."""
_SHARE = 0.6
"""How much of the letters' colour is seen."""


def mark(frame: Frame) -> None:
    """Draw TEXT into the lower right corner, white on a dark rim; every pixel outside its box stays as it is."""
    width, height = frame.size
    scale = cv2.getFontScaleFromHeight(_FONT, max(round(height * _HEIGHT), 6))
    (across, up), down = cv2.getTextSize(TEXT, _FONT, scale, 1)
    left, top = (max(value - value % 2, 0) for value in (width - across - 2 * up, height - 2 * up - down))
    rect = left, top, width, height
    image = frame.rgb(rect)
    drawn = image.copy()
    place = up // 2, image.shape[0] - up // 2 - down
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(drawn, TEXT, place, _FONT, scale, colour, thickness, cv2.LINE_AA)
    frame.write_rgb(rect, np.rint(image + _SHARE * (drawn - image.astype(float))).astype(np.uint8))

"""Video in and out: what the other rooms import."""

from media.frame import Colour, Frame, Rect
from media.reader import STILL_FPS, VideoReader
from media.writer import CUT_CRF, VideoWriter, check_no_source

__all__ = ["CUT_CRF", "STILL_FPS", "Colour", "Frame", "Rect", "VideoReader", "VideoWriter", "check_no_source"]

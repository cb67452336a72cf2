"""Video in and out: what the other rooms import."""

from media.frame import Colour, Frame
from media.reader import MAX_SIZE, STILL_FPS, VideoReader, parse_size
from media.writer import CUT_CRF, VideoWriter

__all__ = ["CUT_CRF", "MAX_SIZE", "STILL_FPS", "Colour", "Frame", "VideoReader", "VideoWriter", "parse_size"]

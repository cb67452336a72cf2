"""Video in and out: what the other rooms import."""

from media.frame import Colour, Frame
from media.reader import VideoReader
from media.writer import VideoWriter

__all__ = ["Colour", "Frame", "VideoReader", "VideoWriter"]

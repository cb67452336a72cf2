"""How many threads torch and OpenCV have."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch


def use_one_core() -> None:
    """For processes side by side. To be called before they are forked, too: OpenCV's own threads do not come along, and
    a child that has to end them waits for ever.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@contextmanager
def threads_kept() -> Iterator[None]:
    """What is inside may change how many there are: they are as many again afterwards."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])

"""MediaPipe's landmark network itself, on crops: unfiltered, so fit to draw, train and measure lips with."""

import zipfile
from functools import lru_cache

import cv2
import numpy as np
import torch

from aside import temporary_folder
from errors import InputError
from face.crop import CropTransform, warp
from face.detect import MODEL
from models.face_landmarks import FaceLandmarkNet

INPUT = 256
MARGIN = 1.25
"""The network wants to see this many times the width of the crop."""
BATCH = 16
_MIN_PRESENCE = 0.0
"""Presence logit above which a crop shows a face: 1 to 25 on faces, -7 on noise."""
_MEMBER = "face_landmarks_detector.tflite"
_POINTS, _PRESENCE = "Identity", "Identity_1"


class LandmarkNet:
    """`face_landmarks_detector.tflite` of the .task file, run by torch or OpenVINO."""

    def __init__(self, device: str | torch.device = "cpu", runtime: str = "torch"):
        """runtime: torch or openvino. Raises InputError where the model file is missing."""
        self._device = torch.device(device)
        self._net = FaceLandmarkNet()
        self._net.fill(_weights(read_tflite()))
        self._net.to(self._device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._net.runtime = runtime

    def landmarks(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks (N, 478, 2) float32 in px of the crops, and seen (N,) bool: whether a crop shows a face; elsewhere
        they are a guess.

        crops: (N, S, S, 3) uint8 RGB. The lower half must be visible: a black one loses the face.
        """
        count, size = crops.shape[:2]
        if not count:
            return np.zeros((0, 478, 2), np.float32), np.zeros(0, bool)
        scale = INPUT / (MARGIN * size)
        shift = (INPUT - 1) / 2 - scale * (size - 1) / 2
        place = CropTransform(np.array([[scale, 0, shift], [0, scale, shift]]))
        points, seen = [], []
        for start in range(0, count, BATCH):
            batch = [warp(image, place, (INPUT, INPUT), cv2.BORDER_REPLICATE) for image in crops[start : start + BATCH]]
            found, logit = self._forward(np.stack(batch))
            # Mirrored faces agree if the network's 0 is its input's left edge, half a pixel before the first centre.
            points.append((found - 0.5 - shift) / scale)
            seen.append(logit > _MIN_PRESENCE)
        return np.concatenate(points).astype(np.float32), np.concatenate(seen)

    @torch.inference_mode()
    def _forward(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, 256, 256, 3) uint8 to points (n, 478, 2) in px of 256, and presence logits (n,)."""
        points, presence = self._net(torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float() / 255)
        return points[..., :2].cpu().numpy(), presence.cpu().numpy()


@lru_cache(maxsize=1)
def landmark_net() -> LandmarkNet:
    """One on the CPU, by torch, for all of this process that have none of their own."""
    return LandmarkNet()


def read_tflite() -> cv2.dnn.Net:
    """The network as OpenCV runs it, with outputs `Identity`: points and `Identity_1`: presence. Raises InputError
    where the file is missing.
    """
    if not MODEL.is_file():
        raise InputError(f"{MODEL} is missing; restore it from the repository")
    with temporary_folder() as folder, zipfile.ZipFile(MODEL) as archive:
        # By path, as reading from memory ignores `engine`; the new engine offers only the last of three outputs.
        return cv2.dnn.readNetFromTFLite(archive.extract(_MEMBER, folder), cv2.dnn.ENGINE_CLASSIC)


def _weights(net: cv2.dnn.Net) -> list[list[torch.Tensor]]:
    """Of every layer that has some, in the order of use; of the three heads only presence and points."""
    layers = [net.getLayer(number) for number in range(1, len(net.getLayerNames()) + 1)]
    learned = [layer for layer in layers if layer.type in ("Convolution", "PReLU")]
    heads = {layer.name: layer for layer in learned[-3:]}
    return [
        [torch.from_numpy(values) for values in layer.blobs]
        for layer in (*learned[:-3], heads[_PRESENCE], heads[_POINTS])
    ]

"""A sync expert whose answers can be told by hand."""

import torch

from models.config import SyncConfig


class Loud(torch.nn.Module):
    """A stand-in expert: a window of faces is its five brightnesses, a sound its loudness in the same five frames."""

    channel_order = "rgb"

    def __init__(self, audio: str):
        super().__init__()
        self.config = SyncConfig.of("light", audio=audio)
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.embed_audio = self._mel if audio == "mel" else self._whisper

    @staticmethod
    def _vector(levels: torch.Tensor) -> torch.Tensor:
        vectors = torch.stack([(3 * levels).cos(), (3 * levels).sin()], -1).flatten(1)
        return torch.nn.functional.normalize(vectors)

    def embed_face(self, frames: torch.Tensor) -> torch.Tensor:
        return self._vector(frames.reshape(len(frames), 5, -1).mean(-1))

    def _mel(self, mel: torch.Tensor) -> torch.Tensor:
        return self._vector(mel[:, 0, 0, [int(3.2 * k + 1.6) for k in range(5)]])

    def _whisper(self, features: torch.Tensor) -> torch.Tensor:
        # 18 features round the middle frame: the ten of the five frames begin with the fifth.
        return self._vector(features[:, [4 + 2 * k for k in range(5)], 0])

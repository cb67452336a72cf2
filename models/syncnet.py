"""Networks that tell whether a mouth and a sound belong together."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from models.audio_encoder import WhisperWindowEncoder
from models.blocks import ConvNormReLU
from models.channels import PictureNetwork
from models.config import SYNC_FRAMES, SyncConfig


class SyncExpert(PictureNetwork):
    """Wav2Lip's larger colour SyncNet (arXiv 2008.10010): five lower faces at 25 fps and a sound, to unit vectors."""

    def __init__(self, config: SyncConfig | None = None):
        super().__init__()
        self.config = config = config or SyncConfig()
        self.face = _face_encoder(config.width, config.face_residuals, config.embedding)
        self.audio = (
            _mel_encoder(config.width, config.audio_residuals, config.embedding)
            if config.audio == "mel"
            else nn.Sequential(
                WhisperWindowEncoder(config.audio_window, config.audio_width, config.embedding),
                # Without it, noisy data makes the encoder give every sound the same vector, for good.
                nn.BatchNorm1d(config.embedding),
                nn.ReLU(),
            )
        )

    def forward(self, audio: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """audio: mel (N, 1, 80, 16) in -4..4 or Whisper features (N, window, 384); frames (N, 15, 64, 128) in 0..1:
        five lower halves, one after another, stacked by channel.

        Returns audio and face vectors (N, embedding) of length 1, no entry negative, so that every cosine is in 0..1.
        """
        return self.embed_audio(audio), self.embed_face(frames)

    def embed_audio(self, audio: Tensor) -> Tensor:
        """(N, 1, 80, 16) or (N, window, 384) -> (N, embedding)."""
        return F.normalize(self.audio(audio).flatten(1))

    def embed_face(self, frames: Tensor) -> Tensor:
        """(N, 15, 64, 128) -> (N, embedding)."""
        return F.normalize(self.face(frames).flatten(1))


def _residuals(channels: int, count: int) -> list[nn.Module]:
    return [ConvNormReLU(channels, channels, residual=True) for _ in range(count)]


def _face_encoder(width: int, residuals: list[int], embedding: int) -> nn.Sequential:
    return nn.Sequential(
        ConvNormReLU(3 * SYNC_FRAMES, width, 7, padding=3),
        ConvNormReLU(width, 2 * width, 5, stride=(1, 2)),
        *_residuals(2 * width, residuals[0]),
        ConvNormReLU(2 * width, 4 * width, stride=2),
        *_residuals(4 * width, residuals[1]),
        ConvNormReLU(4 * width, 8 * width, stride=2),
        *_residuals(8 * width, residuals[2]),
        ConvNormReLU(8 * width, 16 * width, stride=2),
        *_residuals(16 * width, residuals[3]),
        ConvNormReLU(16 * width, 16 * width, stride=2),
        *_residuals(16 * width, residuals[4]),
        ConvNormReLU(16 * width, 16 * width, 4, padding=0),
        ConvNormReLU(16 * width, embedding, 1, padding=0),
    )


def _mel_encoder(width: int, residuals: int, embedding: int) -> nn.Sequential:
    return nn.Sequential(
        ConvNormReLU(1, width),
        *_residuals(width, residuals),
        ConvNormReLU(width, 2 * width, stride=(3, 1)),
        *_residuals(2 * width, residuals),
        ConvNormReLU(2 * width, 4 * width, stride=3),
        *_residuals(4 * width, residuals),
        ConvNormReLU(4 * width, 8 * width, stride=(3, 2)),
        *_residuals(8 * width, residuals),
        ConvNormReLU(8 * width, 16 * width, padding=0),
        ConvNormReLU(16 * width, embedding, 1, padding=0),
    )


class SyncNetV2(PictureNetwork):
    """SyncNet v2 (Chung and Zisserman, "Out of time", 2016), for LSE-C and LSE-D; BGR pictures in 0..255."""

    channel_order = "bgr"

    def __init__(self) -> None:
        super().__init__()
        self.audio = nn.Sequential(
            *_conv2d(1, 64, 3, 1),
            nn.MaxPool2d(1, 1),
            *_conv2d(64, 192, 3, 1),
            nn.MaxPool2d(3, (1, 2)),
            *_conv2d(192, 384, 3, 1),
            *_conv2d(384, 256, 3, 1),
            *_conv2d(256, 256, 3, 1),
            nn.MaxPool2d(3, 2),
            *_conv2d(256, 512, (5, 4), 0),
        )
        self.lips = nn.Sequential(
            *_conv3d(3, 96, (5, 7, 7), (1, 2, 2), 0),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3), 1, (0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3), 1, (0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3), 1, (0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(256, 512, (1, 6, 6), 1, 0),
        )
        self.audio_head = _head()
        self.lip_head = _head()

    def forward(self, mfcc: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """mfcc (N, 1, 13, 20) at 100 Hz, frames (N, 3, 5, 224, 224) at 25 fps -> audio and lip vectors (N, 1024)."""
        return self.embed_audio(mfcc), self.embed_lips(frames)

    def embed_audio(self, mfcc: Tensor) -> Tensor:
        """(N, 1, 13, 20) -> (N, 1024)."""
        return self.audio_head(self.audio(mfcc).flatten(1))

    def embed_lips(self, frames: Tensor) -> Tensor:
        """(N, 3, 5, 224, 224) in 0..255 -> (N, 1024)."""
        return self.lip_head(self.lips(frames).flatten(1))


def _conv2d(inputs: int, outputs: int, kernel: Any, padding: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU()]


def _conv3d(inputs: int, outputs: int, kernel: Any, stride: Any, padding: Any) -> list[nn.Module]:
    return [nn.Conv3d(inputs, outputs, kernel, stride, padding), nn.BatchNorm3d(outputs), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))

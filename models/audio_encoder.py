"""From an audio window to what each HyperNet reads: four vectors, or one vector for all four.

Every encoder has `sizes`, the lengths of its four vectors.
"""

from torch import Tensor, nn

from models.blocks import PlainTrunk
from models.config import LEVELS, TRUNK_CHANNELS
from models.mobilenet import LRASPP, MobileNetTrunk

MEL_BANDS = 80
WHISPER_WIDTH = 384
_ASPP_CHANNELS = 128
_PLAIN_CHANNELS = (16, 24, 40, 96)


class MobileNetMelEncoder(nn.Module):
    """Published encoder: a one-channel trunk on the mel picture, each of its four maps flattened."""

    def __init__(self, window: int):
        super().__init__()
        self.trunk = MobileNetTrunk(1)
        self.aspp = LRASPP(TRUNK_CHANNELS[3], _ASPP_CHANNELS)
        channels = (*TRUNK_CHANNELS[:3], _ASPP_CHANNELS)
        self.sizes = [count * (MEL_BANDS >> level) * (window >> level) for level, count in enumerate(channels, start=1)]

    def maps(self, mel: Tensor) -> list[Tensor]:
        """(N, 1, 80, window) in -4..4 -> four maps, (16, 40, 8) ... (128, 5, 1) for a window of 16."""
        *maps, last = self.trunk(mel)
        return [*maps, self.aspp(last)]

    def forward(self, mel: Tensor) -> list[Tensor]:
        """(N, 1, 80, window) in -4..4 -> a vector a level, (N, size) each, see `sizes`."""
        return [level.flatten(1) for level in self.maps(mel)]


class PlainMelEncoder(nn.Module):
    """Plain convolutions on the mel picture, then one vector for every level."""

    def __init__(self, window: int, width: int):
        super().__init__()
        self.trunk = PlainTrunk(1, _PLAIN_CHANNELS)
        self.project = nn.Linear(_PLAIN_CHANNELS[-1] * (MEL_BANDS >> LEVELS) * (window >> LEVELS), width)
        self.sizes = [width] * LEVELS

    def forward(self, mel: Tensor) -> list[Tensor]:
        """(N, 1, 80, window) in -4..4 -> the same (N, width) four times."""
        return [self.project(self.trunk(mel)[-1].flatten(1))] * LEVELS


class WhisperWindowEncoder(nn.Module):
    """A window of frozen Whisper features to one vector: (N, window, 384) -> (N, outputs)."""

    def __init__(self, window: int, width: int, outputs: int):
        super().__init__()
        self.norm = nn.LayerNorm(WHISPER_WIDTH)
        self.reduce = nn.Linear(WHISPER_WIDTH, width)
        self.mix = nn.Sequential(
            nn.GELU(),
            nn.Conv1d(width, width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv1d(width, width, 3, padding=1),
            nn.GELU(),
        )
        self.project = nn.Linear(width * ((window + 1) // 2), outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.project(self.mix(self.reduce(self.norm(features)).transpose(1, 2)).flatten(1))


class WhisperEncoder(nn.Module):
    """WhisperWindowEncoder whose one vector serves every level."""

    def __init__(self, window: int, width: int):
        super().__init__()
        self.window = WhisperWindowEncoder(window, width, width)
        self.sizes = [width] * LEVELS

    def forward(self, features: Tensor) -> list[Tensor]:
        """(N, window, 384) -> the same (N, width) four times."""
        return [self.window(features)] * LEVELS


def make_audio_encoder(
    audio: str, trunk: str, window: int, width: int
) -> MobileNetMelEncoder | PlainMelEncoder | WhisperEncoder:
    """`audio`: mel | whisper; `trunk`: mobilenet | plain, which matters for mel only."""
    if audio == "whisper":
        return WhisperEncoder(window, width)
    return MobileNetMelEncoder(window) if trunk == "mobilenet" else PlainMelEncoder(window, width)

"""Everything that a script may be told in YAML: its sections, and the whole. Imports no torch, so that a mistake is
told at once.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from datasets.config import (
    AugmentConfig,
    DataConfig,
    DataSection,
    HRAugmentConfig,
    HRDataConfig,
    SyncAugmentConfig,
    SyncDataConfig,
)
from errors import InputError, check, too_small
from losses.config import BaseLossConfig, HRLossConfig, PerceptualConfig, SyncLossConfig
from media.size import MAX_SIZE, parse_size
from models.config import BaseConfig, Feed, HRConfig, ReferenceRule, SyncConfig, check_references

PrecisionName = Literal["auto", "float32", "bf16", "fp16"]
LayoutName = Literal["auto", "contiguous", "channels_last"]
RuntimeName = Literal["auto", "torch", "openvino"]
CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
PREPARED = ".face"
"""Suffix of a prepared face, in any case."""
SYNC_EXPERT = CHECKPOINTS / "sync_light.safetensors"


def is_prepared(path: str | Path) -> bool:
    """Whether a file is a prepared face, by its name."""
    return Path(path).suffix.lower() == PREPARED


@dataclass
class OptimConfig:
    """`optim` section: AdamW with a short warm-up, then cosine to `final` times the rate."""

    lr: float = 5e-4
    """Largest learning rate of the network."""
    discriminator_lr: float = 1e-4
    """Of the discriminator, where there is one; same schedule."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    """Decays of AdamW's two averages."""
    weight_decay: float = 0.01
    """AdamW's, times the rate."""
    warmup: int = 100
    """Steps in which the rate grows to `lr`."""
    final: float = 0.05
    """Share of `lr` at the last step."""
    clip: float = 1.0
    """Largest gradient norm."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones to use; 0: the last weights."""
    parts: list[str] | None = None
    """Which parts of the network learn, e.g. [decoder] or [rewriters, decoder]; null: all. The others stay as they
    begin, see --init."""

    def __post_init__(self) -> None:
        decays = [*self.betas, self.ema]
        check(
            self.lr <= 0 and f"lr is {self.lr}, expected more than 0",
            too_small(self, "discriminator_lr", "weight_decay", "warmup", "final", least=0),
            self.clip <= 0 and f"clip is {self.clip}, expected more than 0",
            (len(self.betas) != 2 or not all(0 <= value < 1 for value in decays))
            and f"betas is {self.betas} and ema {self.ema}, expected two numbers and one, each from 0 to below 1",
        )


@dataclass
class RunConfig:
    """`run` section: length, rhythm and place of a run."""

    name: str = "run"
    """Folder of the run below `folder`; the same name resumes."""
    folder: str = "runs"
    """Where runs lie."""
    steps: int = 10000
    """Length of the run."""
    minutes: float | None = None
    """Most time on the clock, over all starts of the run, with validations but without set-up; the learning rate then
    falls by the pace so far. null: no limit."""
    patience: int = 0
    """The run ends after so many validations without a better one; 0: never."""
    batch: int = 32
    """Samples a step, of all processes together."""
    freeze_bn: bool = False
    """BatchNorm keeps its statistics: for fine-tuning (--init) on little data or small batches."""
    seed: int = 0
    """Of weights, order and chance."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    log_every: int = 50
    """Steps between two lines."""
    checkpoint_every: int = 500
    """Steps between two checkpoints."""
    validate_every: int = 1000
    """Steps between two validations."""
    validate_start: bool = False
    """Score what a run begins with, too: of fine-tuning (--init), the best may be no training at all."""
    keep: int = 2
    """Checkpoints kept, the newest; beside them best.safetensors."""
    allow_changes: bool = False
    """Resume also where what is learned is other than what the run began with: model, feed, data, augment, loss,
    perceptual, audio_pretrain or optim.parts, the data set, the weights of --init or of a judge."""

    def __post_init__(self) -> None:
        check(
            too_small(self, "batch", "log_every", "checkpoint_every", "validate_every", "keep"),
            too_small(self, "steps", "patience", "seed", least=0),
            self.minutes is not None and self.minutes <= 0 and f"minutes is {self.minutes}, expected more than 0",
        )


@dataclass
class DdpConfig:
    """`ddp` section: what holds with more than one process (torchrun)."""

    sync_bn: bool = True
    """BatchNorm takes its statistics over all processes; on CUDA only, there is no other."""


@dataclass
class TrainConfig:
    """What every run is made of; each script adds its own sections."""

    run: RunConfig = field(default_factory=RunConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    ddp: DdpConfig = field(default_factory=DdpConfig)
    data: DataSection = field(default_factory=DataSection)
    precision: PrecisionName = "auto"
    """Type of the products; auto takes the faster one of this machine. fp16 is for CUDA cards without bf16 units; on
    CUDA, products of float32 are TF32."""
    layout: LayoutName = "auto"
    """Memory layout of images; auto takes the faster one."""
    compile: bool = False
    """torch.compile the network's parts: minutes at the start, faster steps after."""


@dataclass
class AudioPretrainConfig:
    """`audio_pretrain` section: the audio path alone learns lip and chin points before any picture is painted."""

    steps: int = 1500
    """0 leaves it out; an audio path that begins from nothing then wants rate: 1."""
    batch: int = 128
    """Sounds a step."""
    lr: float = 1e-3
    """Adam's rate, falling linearly to 0."""
    rate: float = 0.1
    """Share of optim.lr at which the audio path goes on learning with the pictures: with more it forgets."""

    def __post_init__(self) -> None:
        check(too_small(self, "batch"), too_small(self, "steps", "lr", "rate", least=0))


@dataclass
class BaseValidationConfig:
    """`validation` section of stage 1."""

    split: str = "val"
    """Which clips are painted."""
    clips: int = 10
    """How many, spread over the split; 0 takes all."""
    best: Literal["score", "mouth_stlpips"] = "score"
    """Which weights are kept. score: lips that follow the sound, as far as real ones; mouth_stlpips: mouths nearest to
    the real ones, which few frames tell already."""

    def __post_init__(self) -> None:
        check(too_small(self, "clips", least=0))


@dataclass
class TrainBaseConfig(TrainConfig):
    """Everything a stage-1 run is made of."""

    SCRIPT: ClassVar[str] = "train_base.py"
    model: BaseConfig = field(default_factory=BaseConfig)
    feed: Feed = field(default_factory=Feed)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    audio_pretrain: AudioPretrainConfig = field(default_factory=AudioPretrainConfig)
    loss: BaseLossConfig = field(default_factory=BaseLossConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    validation: BaseValidationConfig = field(default_factory=BaseValidationConfig)

    def __post_init__(self) -> None:
        self.loss.check_window(self.data.window)
        for rule in (self.data.reference, self.feed.reference):
            check_references(self.model, rule)
        check(
            self.feed.crop == "box" and "feed.crop is box, expected template, which data sets hold",
            not self.model.hears(self.feed.window)
            and f"feed.window is published, expected centred with model.audio: {self.model.audio}",
        )


@dataclass
class HRValidationConfig:
    """`validation` section of stage 2."""

    split: str = "val"
    """Which clips are painted."""
    frames: int = 48
    """How many frames, spread over the split."""
    film: int = 50
    """Frames of the video that is shown at each validation."""

    def __post_init__(self) -> None:
        check(too_small(self, "frames", "film"))


@dataclass
class TrainHRConfig(TrainConfig):
    """Everything a stage-2 run is made of."""

    SCRIPT: ClassVar[str] = "train_hr.py"
    model: HRConfig = field(default_factory=HRConfig)
    data: HRDataConfig = field(default_factory=HRDataConfig)
    augment: HRAugmentConfig = field(default_factory=HRAugmentConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    loss: HRLossConfig = field(default_factory=HRLossConfig)
    validation: HRValidationConfig = field(default_factory=HRValidationConfig)

    def __post_init__(self) -> None:
        self.loss.check_window(self.data.window)


@dataclass
class SyncValidationConfig:
    """`validation` section of the sync expert."""

    split: str = "val"
    """Which clips are looked at."""
    clips: int = 24
    """How many, spread over the split; 0 takes all."""
    every: int = 2
    """Every how many frames a window is looked at."""

    def __post_init__(self) -> None:
        check(too_small(self, "every"), too_small(self, "clips", least=0))


@dataclass
class TrainSyncConfig(TrainConfig):
    """Everything a run of the expert is made of. `run.batch` counts samples: `data.windows` windows of one clip."""

    SCRIPT: ClassVar[str] = "train_syncnet.py"
    model: SyncConfig = field(default_factory=SyncConfig)
    data: SyncDataConfig = field(default_factory=SyncDataConfig)
    augment: SyncAugmentConfig = field(default_factory=SyncAugmentConfig)
    loss: SyncLossConfig = field(default_factory=SyncLossConfig)
    validation: SyncValidationConfig = field(default_factory=SyncValidationConfig)

    def __post_init__(self) -> None:
        if self.loss.kind == "bce":
            self.data.sounds = 0


@dataclass
class FaceConfig:
    """`face` section."""

    backend: Literal["mediapipe", "face_alignment"] = "mediapipe"
    """Who finds faces."""
    crop: Literal["template", "box"] | None = None
    """template: registered by eyes and nose; box: upright boxes; null: as the weights were trained."""
    index: int = 0
    """Which face: 0 the largest track, 1 the next."""
    reference: ReferenceRule | None = None
    """closed: the most closed mouth, further references on to a wide one; first: the first frame; pose: these mouths in
    every pose of the clip; null: as the weights were trained."""


@dataclass
class AudioConfig:
    """`audio` section."""

    window: Literal["centred", "published"] | None = None
    """Which mel window belongs to a frame: centred on its middle, or as published training has it; null: as the weights
    were trained."""
    track: int | None = None
    """Which sound track of the file, from 0; null: the first that decodes and is not silent."""
    motion_gain: float | None = None
    """How far the lips move: what the sound says beyond silence is taken this many times; null: as the weights want."""

    def __post_init__(self) -> None:
        gain = self.motion_gain
        if gain is not None and not 0 <= gain <= 3:
            raise InputError(f"motion_gain is {gain}, expected 0 to 3; 1 leaves the lips as the network moves them")


@dataclass
class InferenceConfig:
    """Everything about inference that is not a file name. What is null follows the weights."""

    SCRIPT: ClassVar[str] = "inference.py"
    base: str = str(CHECKPOINTS / "base_light.safetensors")
    """Stage-1 weights."""
    hr: str | None = str(CHECKPOINTS / "hr_light_256.safetensors")
    """Stage-2 weights; null pastes the 128 px face of stage 1."""
    face: FaceConfig = field(default_factory=FaceConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    batch: int = 16
    """Frames painted at a time, fewer where pictures are large. On two CPU cores 16 take a tenth less time than 8, and
    32 no less."""
    crf: int = 18
    """Quality of the written video, x264's: 0 the best, 51 the worst."""
    lossless: bool = False
    """Write what was painted, and the source's own pixels round it, bit by bit; large files."""
    watermark: bool = False
    """Draw a small visible mark into every frame."""
    max_size: str = f"{MAX_SIZE[0]}x{MAX_SIZE[1]}"
    """Larger pictures are scaled down, either way up, to what common players show; none: never."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    precision: PrecisionName = "auto"
    """Type of the products; auto takes the faster one of this machine. fp16 is for CUDA cards without bf16 units."""
    layout: LayoutName = "auto"
    """Memory layout of images; auto takes the faster one. Pictures of the two may differ by 1 of 255."""
    runtime: RuntimeName = "auto"
    """What runs the networks on a CPU. openvino wants pip install openvino, and computes in float32; a recurrent
    decoder stays with torch. auto takes the faster one of those installed; pictures may differ by 1 of 255."""

    def __post_init__(self) -> None:
        check(
            too_small(self, "batch"),
            not 0 <= self.crf <= 51 and f"crf is {self.crf}, expected 0 to 51",
            self.runtime == "openvino"
            and self.precision not in ("auto", "float32")
            and f"precision is {self.precision} and runtime openvino, expected precision auto or float32 with it",
        )
        parse_size(self.max_size)


@dataclass
class EvaluatedConfig(InferenceConfig):
    """`inference` section of evaluate.py: how the videos to score are made. What is null follows the weights."""

    base: str = ""
    """Stage-1 weights; none: nothing is generated."""
    hr: str | None = None
    """Stage-2 weights; null pastes the 128 px face of stage 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.face.index != 0 and f"face.index is {self.face.index}, expected 0: the largest face is scored",
            self.audio.track is not None
            and f"audio.track is {self.audio.track}, expected null: the first track that is not silent is scored",
        )


@dataclass
class AdaptConfig:
    """What adapting to one person may vary. The shape of the networks is that of the weights: `model` and `feed` of the
    stages are theirs, as folders, data and minutes are the script's."""

    SCRIPT: ClassVar[str] = "adapt.py"
    base: str = str(CHECKPOINTS / "base_light.safetensors")
    """Stage-1 weights to start from."""
    hr: str = str(CHECKPOINTS / "hr_light_256.safetensors")
    """Stage-2 weights to start from."""
    minutes: float = 15.0
    """About how long it may take in all, on the clock, from the videos to the film of before and after."""
    share: float = 0.55
    """Of the time that is left after the videos are read: stage 1 gets so much, the rest is stage 2's."""
    sync: bool = True
    """Find by how much the sound is late and put it right, and refuse what seems not to belong together; false takes it
    as it is."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    film: int = 250
    """About how many frames the film of before and after has, at 25 a second."""
    stage1: TrainBaseConfig = field(default_factory=TrainBaseConfig)
    stage2: TrainHRConfig = field(default_factory=TrainHRConfig)

    def __post_init__(self) -> None:
        check(
            self.minutes <= 0 and f"minutes is {self.minutes}, expected more than 0",
            not 0 < self.share < 1 and f"share is {self.share}, expected more than 0 and less than 1",
            too_small(self, "film"),
        )


@dataclass
class EvaluateConfig:
    """What may vary beside file names. The real video is re-encoded at inference.crf, as generated ones are."""

    SCRIPT: ClassVar[str] = "evaluate.py"
    perceptual_step: int = 5
    """ST-LPIPS, LPIPS and identity look at every n-th frame."""
    person: str = "none"
    """How a path names its speaker: parent, none, =NAME or a regular expression: its first group that
    matched, or all of it."""
    inference: EvaluatedConfig = field(default_factory=EvaluatedConfig)

    def __post_init__(self) -> None:
        check(too_small(self, "perceptual_step"))

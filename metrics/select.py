"""Which scorers there are weights for."""

from dataclasses import dataclass
from pathlib import Path

from losses.perceptual import load_perceptual
from metrics.fid import FidScorer
from metrics.identity import IdentityScorer
from metrics.perceptual import PerceptualScorer, load_lpips
from metrics.scorers import PictureScorer, Scorer
from metrics.sync import ExpertScorer, SyncNetScorer
from models.checkpoint import load_network
from models.syncnet import SyncExpert, SyncNetV2


@dataclass(frozen=True)
class ScorerFiles:
    """Weights by scorer; None where there are none."""

    sync: Path | None = None
    syncnet: Path | None = None
    lpips: Path | None = None
    identity: Path | None = None
    fid: Path | None = None


def make_scorers(files: ScorerFiles, step: int) -> tuple[list[Scorer], list[str]]:
    """Every scorer that can be had, and one note that names those left out.

    step: perceptual and identity scorers look at every so manieth frame. Raises InputError for weights that do not fit.
    """
    scorers: list[Scorer] = [PictureScorer(), PerceptualScorer("stlpips", load_perceptual("stlpips"), step)]
    absent = []
    makers = {
        "sync": (
            "sync by our expert",
            "--sync-weights",
            lambda path: ExpertScorer(load_network(path, kind=SyncExpert)),
        ),
        "syncnet": (
            "LSE-C and LSE-D",
            "--syncnet-weights",
            lambda path: SyncNetScorer(load_network(path, kind=SyncNetV2)),
        ),
        "lpips": ("LPIPS", "--lpips-weights", lambda path: PerceptualScorer("lpips", load_lpips(path), step)),
        "identity": ("identity", "--identity-weights", lambda path: IdentityScorer(path, step)),
        "fid": ("FID", "--fid-weights", FidScorer),
    }
    for name, (label, option, make) in makers.items():
        path = getattr(files, name)
        if path is None:
            absent.append(f"{label} ({option})")
        else:
            scorers.append(make(path))
    notes = [f"left out, having no weights: {', '.join(absent)}"] if absent else []
    if step > 1:
        notes.append(f"ST-LPIPS, LPIPS and identity look at every {_ordinal(step)} frame")
    return scorers, notes


def _ordinal(number: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else suffix}"

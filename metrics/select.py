"""Which scorers there are weights for."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from metrics.identity import FaceNetwork, IdentityScore
from metrics.perceptual import PerceptualScore, load_lpips
from metrics.scorers import PictureScore, Scorer
from metrics.sync import ExpertScore, SyncNetScore
from models.checkpoint import load_network
from models.perceptual import load_perceptual
from models.syncnet import SyncExpert, SyncNetV2


def make_scorers(weights: Mapping[str, Path | None], step: int) -> tuple[list[Scorer], list[str]]:
    """Every scorer that can be had, and notes on what is left out.

    weights: files of `sync`, `syncnet`, `lpips` and `identity`. step: perceptual and identity scorers look at every so
    manieth frame. Raises InputError for weights that do not fit, or need a package that is not installed.
    """
    scorers: list[Scorer] = [
        PictureScore,
        partial(PerceptualScore, "stlpips", load_perceptual("stlpips"), step),
    ]
    makers: dict[str, tuple[str, Callable[[Path], Scorer]]] = {
        "sync": ("sync by our expert", lambda path: partial(ExpertScore, load_network(path, kind=SyncExpert))),
        "syncnet": ("LSE-C and LSE-D", lambda path: partial(SyncNetScore, load_network(path, kind=SyncNetV2))),
        "lpips": ("LPIPS", lambda path: partial(PerceptualScore, "lpips", load_lpips(path), step)),
        "identity": ("identity", lambda path: partial(IdentityScore, FaceNetwork(path), step)),
    }
    absent = []
    for name, (label, make) in makers.items():
        path = weights.get(name)
        if path is None:
            absent.append(f"{label} (--{name}-weights)")
        else:
            scorers.append(make(path))
    notes = [f"left out, having no weights: {', '.join(absent)}"] if absent else []
    if step > 1:
        notes.append(f"of every {step} frames ST-LPIPS, LPIPS and identity look at one")
    return scorers, notes

"""What evaluate.py does with its clips, one after the other: make our videos where that is wanted, and score."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from engine.options import InferenceConfig
from engine.pipeline import LipSync, lip_sync
from engine.prepared import PreparedFace
from errors import InputError
from media.audio import SAMPLE_RATE, read_audio, shifted
from media.size import MAX_SIZE, parse_size
from media.video import CUT_CRF, VideoReader
from metrics.evaluation import ClipResult, complete, evaluate_clip
from metrics.jobs import BESIDE, MUTED, OURS, SWAPPED, Job
from metrics.pairs import NoFace, View, reencode
from metrics.scorers import Scorer

_TOLD = 5
"""Clips whose problems are told where none can be scored."""


def evaluate(
    jobs: Sequence[Job], scorers: Sequence[Scorer], crf: float, speaker: "Speaker | None" = None
) -> tuple[list[ClipResult], list[str]]:
    """Results of the clips that can be scored, and why other clips or generated videos cannot.

    crf: quality of the re-encoded real videos. speaker: makes our videos first. Raises InputError where nothing can be
    scored.
    """
    results: list[ClipResult] = []
    skipped: list[str] = []
    with tqdm(jobs, unit="clip", disable=None) as bar:
        for number, job in enumerate(bar, 1):
            bar.set_description(f"clip {number} of {len(jobs)}, {job.name}")
            try:
                if speaker is not None:
                    job = speaker.added(job, jobs[number % len(jobs)], skipped)
                results.append(evaluate_clip(job, scorers, crf))
                skipped += [f"{job.name}: {problem}" for problem in results[-1].problems]
            except (NoFace, InputError) as error:
                skipped.append(f"{job.name}: {error}")
    if not results:
        raise InputError(*skipped[:_TOLD])
    complete(results)
    return results, skipped


class Speaker:
    """Makes our videos: a clip's face, tracked once, driven by its own sound, and by others for comparison."""

    def __init__(self, config: InferenceConfig, folder: Path, extras: bool):
        """folder: of the videos. extras: drive by silence and by another clip's sound too. Raises InputError for
        weights that do not fit."""
        self.engine, self.folder, self.extras = LipSync(config), folder, extras

    def added(self, job: Job, driver: Job, skipped: list[str]) -> Job:
        """The job with our videos beside others; without them, and a line in `skipped`, where they cannot be made.

        Raises InputError where then none is left. driver: the clip whose sound drives too; itself counts as none.
        """
        try:
            return self._spoken(job, driver, skipped)
        except InputError as error:
            if not job.generated:
                raise
            skipped.append(f"{job.name}: {error}")
            return job

    def _spoken(self, job: Job, driver: Job, skipped: list[str]) -> Job:
        source = job.real.path
        if job.real.rect is not None:
            source = reencode(job.real, self.folder / f"{job.name}_cut.mp4", CUT_CRF).path
        face, wave = self.engine.prepare(source), heard(job)
        ours = self._driven(job, face, "own", wave)
        extras = {}
        if self.extras:
            extras[MUTED] = self._driven(job, face, MUTED, np.zeros_like(wave))
        if self.extras and driver.name != job.name:
            try:
                extras[SWAPPED] = self._driven(job, face, SWAPPED, heard(driver)[: len(wave)])
            except InputError as error:  # which is the other clip's fault
                skipped.append(f"{job.name} with the sound of {driver.name}: {error}")
        return replace(
            job,
            generated={BESIDE if job.generated else OURS: ours, **job.generated},
            transforms=self._as_scored(job, face),
            extras=extras,
            driver=driver.name if SWAPPED in extras else None,
        )

    def _driven(self, job: Job, face: PreparedFace, kind: str, wave: np.ndarray) -> View:
        view = View(self.folder / f"{job.name}_{kind}.mp4")
        lip_sync(face, wave, view.path, engine=self.engine)
        return view

    def _as_scored(self, job: Job, face: PreparedFace) -> np.ndarray | None:
        """The face's transforms where `find_face` would find the same ones, in pictures of the same size."""
        settings = face.settings
        wanted = self.engine.config.face.backend, settings.crop, job.real.rect
        alike = wanted == ("mediapipe", "template", None) and parse_size(settings.max_size) == MAX_SIZE
        return face.transforms if alike else None


def heard(job: Job) -> np.ndarray:
    """The clip's sound (samples,) put right: what is heard `offset_s` after a frame comes with it; as long as the
    picture."""
    reader = VideoReader(job.real.path)
    first, count = (round(seconds * SAMPLE_RATE) for seconds in (job.offset_s or 0, reader.frame_count / reader.fps))
    return shifted(read_audio(job.audio or job.real.path), first, count)

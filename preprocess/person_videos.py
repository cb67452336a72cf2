"""A few videos of one person to a data set of their own."""

from fractions import Fraction
from pathlib import Path

from datasets.clips import load_clips, merge_index
from datasets.splits import LEAST_SECONDS, TRAIN, tail_start
from engine.options import SYNC_EXPERT
from engine.threads import threads_kept
from errors import InputError, warn
from media.video import VideoReader
from preprocess.extraction import extract_source, set_up
from preprocess.jobs import Job, Record, Settings, clips_by_source, read_records, rejections, report, run
from preprocess.sources import Source
from workers import cores


def check_length(videos: list[Path]) -> None:
    """Raises InputError where all are too short, by what the files say of themselves, or one cannot be read."""
    readers = [VideoReader(path) for path in videos]
    longest = max(0.0 if reader.is_still else float(reader.frame_count / reader.fps) for reader in readers)
    if longest < LEAST_SECONDS:
        raise _too_short(videos, longest)


def read_videos(videos: list[Path], data: Path, size: int, sync: bool) -> None:
    """Make the data set, crops of `size` px, all of split `train`; sync: with the sound's offset found and taken out.

    A video that gives nothing is left out, with a warning. Raises InputError where all do, or none of them gives a clip
    that is long enough to hold out its last tenth.
    """
    expert = str(SYNC_EXPERT) if sync else None
    settings = Settings(data, size, "mediapipe", min_face_px=40, sync_expert=expert, trusted=True)
    settings.make_folders()
    sources, earlier = [Source.below(path, path.parent) for path in videos], clips_by_source(data)
    jobs = [
        Job(source, settings, "me", TRAIN, Fraction(0), earlier.get(name, []))
        for name, source in {source.id: source for source in sources}.items()  # a video may be named twice
    ]
    _extract([job for job in jobs if not job.is_done or job.changed])
    merge_index(data)
    records = read_records(data)
    _check(jobs, data, records)
    report(data, records)


def first_used(videos: list[Path], data: Path) -> Path:
    """The first of the videos that read_videos made the data set of; where all were moved since, the first."""
    made = clips_by_source(data)
    return next((path for path in videos if Source.below(path, path.parent).id in made), videos[0])


def _extract(jobs: list[Job]) -> None:
    """Side by side, each on one core; this process keeps its threads for what comes after."""
    with threads_kept():
        set_up()
        run(jobs, cores(), extract_source, set_up)


def _check(jobs: list[Job], data: Path, records: dict[str, Record]) -> None:
    rejected, made = rejections(records), clips_by_source(data)
    advice = "; where the sound is known to be in step, --set sync=false" if jobs[0].settings.sync_expert else ""
    told = []
    for job in jobs:
        if job.source.id not in made:
            reasons = "; ".join(reason for source, reason in rejected if source == job.name)
            told.append(f"{job.source.path}: nothing in it to learn from ({reasons}){advice}")
    if len(told) == len(jobs):
        raise InputError(*told)
    for words in told:
        warn(f"left out, {words}")
    clips = load_clips(data, TRAIN)
    if all(tail_start(clip) is None for clip in clips):
        raise _too_short([job.source.path for job in jobs], max(clip.info.seconds for clip in clips))


def _too_short(videos: list[Path], seconds: float) -> InputError:
    return InputError(
        f"{', '.join(map(str, videos))}: found {seconds:.1f} s in one piece, expected {LEAST_SECONDS:g} s or more that "
        "show the face, the last of which is held out; film a longer one"
    )

"""Raw video to a data set of face crops, sound features and landmarks.

    python -m preprocess.extract_clips --videos DIR [DIR...] --output DATA

Restartable: a finished source is not read again, unless with --again. Shards (`--shard 2/8`) may run side by side on a
shared disk.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from datasets.archive import write_archive
from datasets.clips import FPS, ClipInfo, merge_index, publish_clip
from engine.chunks import chunks
from errors import InputError, run_cli
from face.crop import CropTransform, fit_transforms, rescale, scale_of
from face.detect import make_detector
from face.landmark_net import MIN_PRESENCE, LandmarkNet
from face.track import track_faces
from media.audio import SAMPLE_RATE, has_audio, read_audio, shifted, write_flac
from media.video import Frame, VideoReader
from models.checkpoint import load_network
from models.syncnet import SyncExpert
from preprocess.shard import add_shard_argument, shard
from preprocess.sources import Persons, Source, Splits, find_sound, find_sources, offset_of, read_offsets
from preprocess.sync_check import sound_offset
from speech.features import sound_features

MIN_SECONDS, MAX_SECONDS = 1, 20
MIN_VISIBLE = 0.5
"""Share of a clip's crops in which the landmark net must see a face: below it the track is something else."""
LANDMARK_BATCH = 8


@dataclass(frozen=True)
class Options:
    """What every worker needs to know."""

    output: Path
    size: int
    backend: str
    min_face_px: float
    split: str
    person: str
    offset: Fraction = Fraction(0)
    sync_expert: str | None = None


@dataclass(frozen=True)
class Piece:
    """An uninterrupted stretch of one face, resampled to 25 fps: source frame and time (s) of every output frame."""

    frames: np.ndarray
    start: float
    transforms: np.ndarray


def extract_source(source: Source, options: Options, earlier: list[Path]) -> None:
    """Write the clips of one video, then its record of what was kept and rejected; clips of an `earlier` time go
    first.
    """
    _forget(source, options, earlier)
    aside = options.output / "aside" / f"{source.id}-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        rejected = list(_extract(source, options, aside))
    except InputError as error:
        rejected = [str(error)]
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _record(source, options, rejected)


def reject_unlisted(source: Source, options: Options, earlier: list[Path]) -> None:
    """Record a source that no official list names, and remove its clips of an `earlier` time."""
    _forget(source, options, earlier)
    _record(source, options, ["not in the split lists"])


def _forget(source: Source, options: Options, earlier: list[Path]) -> None:
    _record_path(source, options).unlink(missing_ok=True)
    for folder in earlier:
        shutil.rmtree(folder, ignore_errors=True)


def clips_by_source(data: Path) -> dict[str, list[Path]]:
    """Clip folders by the id of their source: pieces have their number behind it."""
    found = defaultdict(list)
    for folder in (data / "clips").iterdir():
        found[re.sub(r"(-[0-9a-f]{8})-\d+$", r"\1", folder.name)].append(folder)
    return found


def _record(source: Source, options: Options, rejected: list[str]) -> None:
    """The source is done: what of it was rejected, and why."""
    record = _record_path(source, options)
    part = record.with_suffix(f".{os.getpid()}")
    part.write_text(
        json.dumps({"source": f"{source.root.name}/{source.relative}", "rejected": rejected}), encoding="utf-8"
    )
    os.replace(part, record)


def _record_path(source: Source, options: Options) -> Path:
    return options.output / "sources" / f"{source.id}.json"


def _extract(source: Source, options: Options, aside: Path) -> Iterator[str]:
    """Publish every good clip of `source`; yield the reason for each one that is not."""
    sound = source.path if has_audio(source.path) else find_sound(source)
    if sound is None:
        yield "no sound in the file, beside it or in a twin audio tree"
        return
    wave = read_audio(sound)
    reader = VideoReader(source.path)
    times: list[float] = []
    tracks = track_faces(_timed(reader, times), make_detector(options.backend))
    if not tracks:
        yield "no face found"
        return
    track = tracks[0]
    transforms = fit_transforms(track.rigid, track.present, track.shot)
    pieces = list(_pieces(np.array(times), track.present, track.shot, transforms))
    if not pieces:
        yield f"no face for {MIN_SECONDS} s in a row"
    digest = hashlib.sha256(source.path.read_bytes()).hexdigest()
    walk = _Walk(reader)
    for number, piece in enumerate(pieces):
        face_px = float(128 / np.median(scale_of(piece.transforms)))
        name = f"piece {number} at {piece.start:.2f} s: " if len(pieces) > 1 else ""
        if face_px < options.min_face_px:
            yield f"{name}face {face_px:.0f} px wide, below --min-face {options.min_face_px:.0f}"
            continue
        aside.mkdir(parents=True)
        landmarks, visible = _write_faces(aside / "faces.zip", walk, piece, options.size)
        if visible.mean() < MIN_VISIBLE:
            shutil.rmtree(aside)
            yield f"{name}landmarks found in {visible.mean():.0%} of the crops only"
            continue
        offset, sound = options.offset, _cut_sound(wave, piece, options.offset)
        if options.sync_expert:
            try:
                offset += sound_offset(options.sync_expert, aside / "faces.zip", sound)
            except InputError as error:
                shutil.rmtree(aside)
                yield f"{name}{error}"
                continue
            sound = _cut_sound(wave, piece, offset)
        np.savez(aside / "track.npz", landmarks=landmarks, transforms=piece.transforms, visible=visible)
        _write_sound(aside, sound)
        info = ClipInfo(
            id=f"{source.id}-{number:02d}" if len(pieces) > 1 else source.id,
            split=options.split,
            source=f"{source.root.name}/{source.relative}",
            fps=FPS,
            frames=len(piece.frames),
            size=options.size,
            person=options.person,
            seconds=len(piece.frames) / FPS,
            sha256=digest,
            face_px=round(face_px, 1),
            offset_ms=round(float(1000 * offset), 1),
        )
        publish_clip(aside, options.output, info)


def _timed(reader: VideoReader, times: list[float]) -> Iterator[tuple[np.ndarray, float]]:
    for frame in reader:
        times.append(float(frame.time))
        yield frame.rgb(), times[-1]


def _pieces(times: np.ndarray, present: np.ndarray, shot: np.ndarray, transforms: np.ndarray) -> Iterator[Piece]:
    """Stretches of one shot in which the face is present, of 1 to 20 s, resampled to 25 fps by nearest timestamp."""
    labels = np.where(present, shot, -1)
    edges = np.flatnonzero(np.diff(labels)) + 1
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1 / FPS
    for stretch in np.split(np.arange(len(labels)), edges):
        seconds = times[stretch[-1]] - times[stretch[0]] + step
        if labels[stretch[0]] < 0 or seconds < MIN_SECONDS:
            continue
        parts = int(np.ceil(seconds / MAX_SECONDS))
        for part in range(parts):
            count = int(seconds / parts * FPS + 1e-6)
            start = times[stretch[0]] + part * seconds / parts
            wanted = start + np.arange(count) / FPS
            nearest = stretch[np.abs(times[stretch][None] - wanted[:, None]).argmin(1)]
            yield Piece(nearest, float(start), transforms[nearest])


def _write_faces(path: Path, walk: "_Walk", piece: Piece, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Write the crops; returns landmarks (frames, 478, 2) in px of the 128 crop and visible (frames,)."""
    landmarks, presence = [], []

    def measured() -> Iterator[np.ndarray]:
        for batch in chunks(_crops(walk, piece, size), LANDMARK_BATCH):
            points, logit = _landmark_net().landmarks(np.stack(batch))
            landmarks.append(rescale(points, size, 128))
            presence.append(logit)
            yield from batch

    write_archive(path, measured())
    return np.concatenate(landmarks).astype(np.float32), np.concatenate(presence) > MIN_PRESENCE


class _Walk:
    """Reads a video once for all its pieces, which follow each other; one may begin with the frame that the one before
    ended with.
    """

    def __init__(self, reader: VideoReader):
        self._frames, self._last = iter(reader), None

    def up_to(self, index: int) -> Iterator[Frame]:
        """The frame read last, and those after it up to number `index`."""
        if self._last is not None:
            yield self._last
        while self._last is None or self._last.index < index:
            following = next(self._frames, None)
            if following is None:
                raise InputError(f"the video ends before frame {index}, which it had at its first reading")
            self._last = following
            yield following


def _crops(walk: _Walk, piece: Piece, size: int) -> Iterator[np.ndarray]:
    for frame in walk.up_to(int(piece.frames[-1])):
        places = piece.transforms[piece.frames == frame.index]
        if len(places):
            image = frame.rgb()
            yield from (CropTransform(place).cut(image, size) for place in places)


def _cut_sound(wave: np.ndarray, piece: Piece, offset: Fraction) -> np.ndarray:
    """Sound (samples,) of the piece, `offset` seconds later than its pictures; silence where the recording does not
    reach.
    """
    first = round((piece.start + float(offset)) * SAMPLE_RATE)
    return shifted(wave, first, len(piece.frames) * SAMPLE_RATE // FPS)


def _write_sound(folder: Path, sound: np.ndarray) -> None:
    write_flac(folder / "audio.flac", sound)
    np.save(folder / "mel.npy", sound_features(sound, "mel").astype(np.float32))
    np.save(folder / "whisper.npy", sound_features(sound, "whisper").astype(np.float16))


@lru_cache(maxsize=1)
def _landmark_net() -> LandmarkNet:
    return LandmarkNet()


def _worker_setup() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--videos", nargs="+", required=True, type=Path, metavar="DIR", help="folders, searched in depth"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DATA", help="the data set; may exist, is added to"
    )
    parser.add_argument("--size", type=int, choices=(128, 256, 512), default=256, help="crop size in px (default 256)")
    parser.add_argument("--split", default="hash", help="hash (by person), train, val, or official list files, a,b,c")
    parser.add_argument("--person", default="none", help="parent (folder), a regular expression, =NAME, or none")
    parser.add_argument("--offsets", type=Path, metavar="FILE", help="known sound offsets (columns file, offset_ms)")
    parser.add_argument(
        "--sync-expert",
        type=Path,
        metavar="CKPT",
        help="find each clip's sound offset, take it out, and reject clips out of sync",
    )
    parser.add_argument("--backend", choices=("mediapipe", "face_alignment"), default="mediapipe")
    parser.add_argument("--min-face", type=float, default=40, metavar="PX", help="reject narrower faces (default 40)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), metavar="N", help="processes (default: all cores)"
    )
    parser.add_argument("--again", action="store_true", help="also videos that are done already")
    add_shard_argument(parser, "videos")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    persons, splits, offsets = Persons(args.person), Splits(args.split), read_offsets(args.offsets)
    sources = shard(find_sources(args.videos), args.shard)
    try:
        for folder in ("clips", "sources", "aside"):
            (args.output / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {args.output}: cannot be written: {error.strerror}") from error
    jobs = []
    if args.sync_expert is not None:
        load_network(args.sync_expert, kind=SyncExpert)  # complains before any work is done
    common = Options(
        args.output,
        args.size,
        args.backend,
        args.min_face,
        split="",
        person="",
        sync_expert=args.sync_expert and str(args.sync_expert),
    )
    earlier = clips_by_source(args.output)
    for source in sources:
        if not args.again and _record_path(source, common).is_file():
            continue
        person = persons(source)
        split = splits(source, person)
        options = replace(common, split=split or "", person=person, offset=offset_of(source, offsets) or Fraction(0))
        jobs.append(partial(extract_source if split else reject_unlisted, source, options, earlier.get(source.id, [])))
    _run(jobs, args.workers)
    report(args.output)


def _run(jobs: list[partial], workers: int) -> None:
    with (
        ProcessPoolExecutor(max(workers, 1), initializer=_worker_setup) as pool,
        tqdm(total=len(jobs), unit="video", desc="extract") as bar,
    ):
        for done in as_completed([pool.submit(job) for job in jobs]):
            done.result()
            bar.update()


def report(data: Path) -> None:
    """Merge the index and rejected.csv, and print the table of splits and of reasons."""
    infos = merge_index(data)
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((data / "sources").glob("*.json"))]
    with (data / "rejected.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["source", "reason"])
        table.writerows([record["source"], reason] for record in records for reason in record["rejected"])
    for split in sorted({info.split for info in infos}):
        chosen = [info for info in infos if info.split == split]
        print(
            f"{split:6} {len(chosen):6} clips {len({info.person for info in chosen}):5} persons "
            f"{sum(info.seconds for info in chosen) / 60:8.1f} min"
        )
    late = [info.offset_ms for info in infos if info.offset_ms]
    if late:
        print(
            f"{len(late)} clips' sound was moved, by {np.mean(np.abs(late)):.0f} ms on average, "
            f"{max(map(abs, late)):.0f} at most"
        )
    rejected = [(record["source"], reason) for record in records for reason in record["rejected"]]
    print(f"{len(rejected)} rejected" + (f", see {data / 'rejected.csv'}" if rejected else ""))
    for source, reason in rejected[:20]:
        print(f"  {source}: {reason}")


if __name__ == "__main__":
    run_cli(main)

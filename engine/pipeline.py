"""The two-stage chain on files: track once, then paint any number of sounds.

from engine.pipeline import LipSync, lip_sync
lip_sync("face.mp4", "speech.wav", "out.mp4")                      # a file
engine = LipSync()
face = engine.prepare("face.mp4")                                  # tracked once, see PreparedFace
for frame, seconds in engine.drive(face, "speech.wav"): ...        # frames as they are made
for frame, seconds in engine.drive(face, microphone()): ...        # pieces of a sound as they are spoken
"""

import time
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from datasets.references import ClipMoves, Portraits, References, usual_references
from engine.drive import Drive
from engine.networks import Networks, SoundSource
from engine.options import InferenceConfig
from engine.prepared import PreparedFace
from engine.report import Report, Watch, unwatched
from errors import InputError
from face.crop import CropTransform, area_reduce
from face.detect import make_detector
from face.follow import Followed, follow
from media.audio import SAMPLE_RATE
from media.video import VideoReader, VideoWriter, check_no_source
from media.watermark import mark
from models.config import BASE_SIZE
from speech.stream import checked


class LipSync(Networks):
    """Loaded networks that track faces and drive them; use it for one file after another."""

    def prepare(self, face: str | Path | VideoReader, watch: Watch = unwatched) -> PreparedFace:
        """Track a face, of a file or of what `read` opened, and choose its references. Raises InputError for an
        unreadable file, or one without that face.
        """
        reader = face if isinstance(face, VideoReader) else self.read(face)
        index = self.settings.index
        found = self.faces(reader, watch)
        if not 0 <= index < len(found):
            raise InputError(f"{reader.path}: --face-index {index} but only {len(found)} faces found; count from 0")
        return self.prepared(reader, found[index])

    def faces(self, reader: VideoReader, watch: Watch = unwatched) -> list[Followed]:
        """Every face of what `read` opened, the largest first. Raises InputError where there is none."""
        detector = make_detector(self.config.face.backend, device=str(self.device))
        found = follow(watch(reader, "track", reader.frame_count), detector, self.settings.crop)
        if not found:
            raise InputError(
                f"{reader.path}: no face found in any frame; expected a video or picture that shows one, with its mouth"
            )
        return found

    def prepared(self, reader: VideoReader, found: Followed) -> PreparedFace:
        """One of its faces, with references chosen."""
        pictures = self._pictures(reader, found)
        return PreparedFace(reader.path, self.settings, found.times, found.transforms, found.track.shot, *pictures)

    def drive(
        self,
        face: PreparedFace,
        sound: SoundSource,
        watch: Watch = unwatched,
        span: tuple[Fraction, Fraction] | None = None,
        reader: VideoReader | None = None,
    ) -> Drive:
        """Frames of the face speaking a sound, in order, each with the time (s) it is shown at; see Drive.

        span: (from, before) s, what is shown outside it is left out. reader: what `read` opened of the face's video.
        Raises InputError for a face that was prepared otherwise, or an unreadable sound or one without samples.
        """
        if face.settings != self.settings:
            wanted, found = vars(self.settings), vars(face.settings)
            differs = ", ".join(
                f"{name} {found[name]} (wanted {wanted[name]})" for name in wanted if found[name] != wanted[name]
            )
            raise InputError(
                f"the face of {face.video} was prepared with {differs}; give the options it was prepared with, or "
                "prepare it again for these"
            )
        return Drive(self, face, sound, watch, span, reader)

    def _pictures(self, reader: VideoReader, found: Followed) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """references, shares, portraits and portrait_shown of a PreparedFace."""
        track, rule = found.track, self.settings.reference
        clip = ClipMoves.of(track.lip_gap, track.rigid, track.shot)
        clip = clip.only(found.present & ~track.interpolated)
        if rule == "first":
            chosen = usual_references(rule, clip, self.settings.references)
            portraits = Portraits.fixed(int(chosen.frames[0, 0]), len(track.shot))
        else:
            parts, within = clip.lenders(track.shot)
            chosen = References.joined(
                [usual_references(rule, part, self.settings.references) for part in parts], within
            )
            portraits = Portraits.joined([part.portraits for part in parts], within)
        frames = chosen.frames.ravel().tolist()
        wanted = {*frames, *portraits.frames.tolist()}
        cut = {
            frame.index: CropTransform(found.transforms[frame.index]).cut_from(frame, self.size)
            for frame in islice(reader, max(wanted) + 1)
            if frame.index in wanted
        }
        small = np.stack([area_reduce(cut[index], BASE_SIZE) for index in frames])
        large = np.stack([cut[index] for index in portraits.frames.tolist()])
        return small.reshape(*chosen.frames.shape, *small.shape[1:]), chosen.shares, large, portraits.shown


def lip_sync(
    face: str | Path | PreparedFace,
    audio: str | Path | np.ndarray,
    output: str | Path,
    config: InferenceConfig | None = None,
    engine: LipSync | None = None,
    watch: Watch = unwatched,
) -> Report:
    """Make a face speak a sound, into `output`; returns what was done. `engine` saves loading again, a PreparedFace
    tracking.

    Raises InputError for bad input; no output is left then.
    """
    engine = engine or LipSync(config)
    started = time.perf_counter()
    reader = engine.read(face.video if isinstance(face, PreparedFace) else face)
    sound = {"audio": (checked(audio), SAMPLE_RATE)} if isinstance(audio, np.ndarray) else {"audio_from": audio}
    config = engine.config
    with VideoWriter(
        output,
        reader.size,
        reader.fps,
        reader.colour,
        audio_track=config.audio.track,
        crf=config.crf,
        qp=0 if config.lossless else None,
        comment=engine.provenance,
        **sound,
    ) as writer:  # before tracking: an output that cannot be written is told at once
        check_no_source(output, reader.path, *([] if isinstance(audio, np.ndarray) else [audio]))
        opened = time.perf_counter()
        prepared = face if isinstance(face, PreparedFace) else engine.prepare(reader, watch)
        tracked = time.perf_counter() - opened
        drive = engine.drive(prepared, audio, watch, reader=reader)
        drive.report.seconds["track"] = tracked
        for frame, shown in drive:
            with drive.report.time("encode"):
                if config.watermark:
                    mark(frame)
                writer.write(frame, shown)
    drive.report.elapsed = time.perf_counter() - started
    drive.report.notes += [note for note in writer.notes if note not in drive.report.notes]
    return drive.report

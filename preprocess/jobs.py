"""The videos that a data set is made from: what is to be done with each, and the records of what was."""

import csv
import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from aside import aside, is_running
from datasets.clips import merge_index, relabel_clip
from digest import file_digest
from errors import warn
from preprocess.sources import Source
from workers import spread

_SHOWN = 20
"""Rows of a table that are printed, too."""
_UNLISTED = "not in the split lists"


@dataclass(frozen=True)
class Settings:
    """What holds for all videos of a run."""

    output: Path
    size: int
    backend: Literal["mediapipe", "face_alignment"]
    min_face_px: float
    sync_expert: str | None = None
    trusted: bool = False
    """Whether sounds and pictures were recorded together, see sync_check.sound_offset."""

    @cached_property
    def expert_digest(self) -> str | None:
        return self.sync_expert and file_digest(Path(self.sync_expert))

    def make_folders(self) -> None:
        """Raises OSError where they cannot be made."""
        for name in ("clips", "sources", "aside"):
            (self.output / name).mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class Job:
    """One video. `split` is "" where no official list names it; `earlier` are clips of it from an earlier time;
    `offset`: seconds by which its sound is known to be late.
    """

    source: Source
    settings: Settings
    person: str
    split: str
    offset: Fraction
    earlier: list[Path]

    @property
    def name(self) -> str:
        """As records have it: the folder that was given, and the path below it."""
        return self.source.name

    @property
    def is_done(self) -> bool:
        """Not where it was left out for the lists that there were then, and there are others now."""
        return self._record.is_file() and not (self.split and self._kept.get("rejected") == [_UNLISTED])

    @property
    def options(self) -> dict[str, Any]:
        """What its clips depend on beside its file, by the option that says it."""
        settings = self.settings
        return {
            "--size": settings.size,
            "--backend": settings.backend,
            "--min-face": settings.min_face_px,
            "--sync-expert": settings.expert_digest,
            "--person": self.person,
            "--split": self.split,
            "--offsets": str(self.offset),
        }

    @property
    def changed(self) -> list[str]:
        """Options that were others when it was done; nothing is known of records of earlier versions."""
        options = self._kept.get("options", {})
        return [name for name, value in self.options.items() if options.get(name, value) != value]

    @property
    def _record(self) -> Path:
        return record_of(self.settings.output, self.source.id)

    @property
    def _kept(self) -> dict[str, Any]:
        """Its record, nothing where there is none that can be read."""
        with suppress(OSError, ValueError):
            kept = json.loads(self._record.read_text(encoding="utf-8"))
            if isinstance(kept, dict) and isinstance(kept.get("options", {}), dict):
                return kept
        return {}

    def relabel(self) -> None:
        """Give its clips, as they are, the person and the split that they have now."""
        for folder in self.earlier:
            relabel_clip(folder, person=self.person, split=self.split)
        with aside(self._record) as part:
            part.write_text(json.dumps(self._kept | {"options": self.options}), encoding="utf-8")

    def forget(self) -> None:
        """Remove what an earlier time left of it, but for what another process is at."""
        self._record.unlink(missing_ok=True)
        begun = (self.settings.output / "aside").glob(f"{self.source.id}-*")
        for folder in (*self.earlier, *(folder for folder in begun if not _is_in_hand(folder))):
            shutil.rmtree(folder, ignore_errors=True)

    def finish(self, rejected: list[str], notes: Sequence[str] = ()) -> None:
        """Record that it is done: what of it was rejected, and why; notes: what else there is to say of it."""
        record = {
            "source": self.name,
            "place": self.source.place,
            "options": self.options,
            "rejected": rejected,
            "notes": list(notes),
        }
        with aside(self._record) as part:
            part.write_text(json.dumps(record), encoding="utf-8")

    def reject(self, reason: str) -> None:
        """Record that it gives no clip at all."""
        self.forget()
        self.finish([reason])


class Record(NamedTuple):
    """What was written of a source when it was done, see Job.finish. place: None in records of earlier versions."""

    source: str
    place: str | None
    rejected: list[str]
    notes: list[str]


def run(jobs: list[Job], workers: int, extract: Callable[[Job], None], setup: Callable[[], None]) -> None:
    """Extract them side by side. A video that brings its worker down is rejected, and the others go on."""
    listed = [job for job in jobs if job.split]
    for job in jobs:
        if not job.split:
            job.reject(_UNLISTED)
    for done in tqdm(spread(extract, listed, workers, setup), total=len(listed), unit="video", desc="extract"):
        if done.death:
            tqdm.write(f"{done.item.source.path}: its worker died ({done.death}); it is rejected, the others go on")
            done.item.reject(f"its worker died ({done.death})")


def _is_in_hand(folder: Path) -> bool:
    """Whether a folder of clips in the making, `<id>-<process>`, is another process's of this machine."""
    process = folder.name.rpartition("-")[2]
    return process.isdecimal() and int(process) != os.getpid() and is_running(int(process))


def record_of(data: Path, source: str) -> Path:
    """The record of a source by its id."""
    return data / "sources" / f"{source}.json"


def read_records(data: Path) -> dict[str, Record]:
    """Of all sources that are done, by id. A damaged one is removed, so that its source counts as not done."""
    records = {}
    for path in sorted((data / "sources").glob("[!.]*.json")):  # no hidden one, which is being written
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            told = list(kept["rejected"]), list(kept.get("notes", []))
            records[path.stem] = Record(kept["source"], kept.get("place"), *told)
        except FileNotFoundError:  # another shard does that video again
            continue
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            path.unlink()
            warn(f"{path} was damaged ({type(error).__name__}); run the same command again for that video")
    return records


def clips_by_source(data: Path) -> dict[str, list[Path]]:
    """Clip folders by the id of their source: pieces have their number behind it, shorter than the digits that end an
    id."""
    found = defaultdict(list)
    for folder in (data / "clips").iterdir():
        found[re.sub(r"(-[0-9a-f]{8})-\d{2,7}$", r"\1", folder.name)].append(folder)
    return found


def tell_replaced(jobs: Sequence[Job], ids: Collection[str], records: Mapping[str, Record]) -> None:
    """Say in a line which videos were read at their place before, but are another source by now: their file was
    replaced, or it was read below another folder. What was made of them then is not removed unasked.

    ids: of all sources there are, in any shard; one that was moved is none that was replaced.
    """
    gone = defaultdict(list)
    for source in sorted(records.keys() - ids):
        gone[records[source].place].append(source)
    told = [job for job in jobs if job.source.place in gone]
    if told:
        data, earlier = told[0].settings.output, gone[told[0].source.place][0]
        others = f" and {len(told) - 1} more" if len(told) > 1 else ""
        warn(
            f"{told[0].name}{others}: read before with other content, or below another folder; what was made of that "
            f"is still there: remove {data}/clips/{earlier}* and {record_of(data, earlier)} if it should not be"
        )


def leave_or_relabel(jobs: Sequence[Job], labels: Collection[str]) -> None:
    """Of these jobs, which are done: where all that is other now is among `labels`, "--person" and "--split" as far as
    the user said them, the clips take it over. A line says how many do, and another which were done with other options
    and stay as they are.
    """
    told, count = {}, 0
    for job in jobs:
        changed = job.changed
        if changed and job.split and {*changed} <= {*labels}:
            job.relabel()
            count += 1
        elif changed:
            told[job.name] = changed
    if count:
        print(f"{count} videos that are done have another person or split now, and so have their clips")
    if told:
        name, options = next(iter(told)), dict.fromkeys(chain.from_iterable(told.values()))
        others = f" and {len(told) - 1} more" if len(told) > 1 else ""
        warn(
            f"{name}{others}: read before with another {', '.join(options)}, and left as it was; --again reads it "
            "again, and generate_base and augment_sound then make again what belongs to its clips"
        )


def rejections(records: Mapping[str, Record]) -> list[tuple[str, str]]:
    """(name of the source, why) of everything that was left out."""
    return [(record.source, reason) for record in records.values() for reason in record.rejected]


def report(data: Path, records: Mapping[str, Record]) -> None:
    """Merge the index, rejected.csv and notes.csv, and print the table of splits, reasons and notes."""
    infos = merge_index(data)
    for split in sorted({info.split for info in infos}):
        chosen = [info for info in infos if info.split == split]
        unknown = sum(not info.person for info in chosen)
        print(
            f"{split:6} {len(chosen):6} clips {len({info.person for info in chosen} - {''}):5} persons "
            f"{sum(info.seconds for info in chosen) / 60:8.1f} min"
            + (f", {unknown} of the clips of nobody known" if unknown else "")
        )
    late = [info.offset_ms for info in infos if info.offset_ms]
    if late:
        print(
            f"{len(late)} clips' sound was moved, by {np.mean(np.abs(late)):.0f} ms on average, "
            f"{max(map(abs, late)):.0f} at most"
        )
    _list(data / "rejected.csv", "rejected", "reason", rejections(records))
    notes = [(record.source, note) for record in records.values() for note in record.notes]
    _list(data / "notes.csv", "notes", "note", notes)


def _list(path: Path, what: str, column: str, rows: list[tuple[str, str]]) -> None:
    """Write a table of sources and what there is to say of them, and print how many there are and the first ones."""
    with aside(path) as part, part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.writer(file)
        table.writerow(["source", column])
        table.writerows(rows)
    print(f"{len(rows)} {what}" + (f", see {path}" if rows else ""))
    for source, words in rows[:_SHOWN]:
        print(f"  {source}: {words}")

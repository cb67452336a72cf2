"""Score talking-face videos: one table of honest metrics, for finished videos of any method or for weights of ours.

    python evaluate.py --real R.mp4 --generated G.mp4 [--audio A.wav]         a finished pair, or two folders
    python evaluate.py --list PAIRS.tsv                                       real, generated [, sound] on each line
    python evaluate.py --real SIDE_BY_SIDE.mp4 --columns "10,10,256,256;..."  one file, the real one first
    python evaluate.py --clips DIR --base CKPT [--hr CKPT] [--offsets FILE]   generates first: own, no, another's sound

Files of two folders are matched by name.

Exit code 1: some clip or generated video could not be scored (no face in it, or unreadable), the others were; 2: wrong
input, and nothing was scored.
"""

import argparse
import errno
import os
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from engine.config import add_config_arguments, load_config
from engine.options import EvaluateConfig
from engine.pipeline import LipSync, lip_sync
from errors import InputError, run_cli
from face.landmark_net import LandmarkNet
from media.audio import SAMPLE_RATE, read_audio, write_flac
from media.video import CUT_CRF, VideoReader
from metrics.evaluation import PASSES, ClipResult, complete, evaluate_clip
from metrics.fid import FidScorer
from metrics.jobs import OURS, Job, columns, job_name, listed, matched, numbered
from metrics.pairs import NoFace, View, reencode
from metrics.report import write_report
from metrics.scorers import Scorer
from metrics.select import ScorerFiles, make_scorers
from metrics.table import Summary, markdown, markdown_clips, summarise, write_csv, write_json
from preprocess.sources import Persons, Source, find_sources, offset_of, read_offsets
from speech.features import sound_features

ROOT = Path(__file__).resolve().parent
SYNC_WEIGHTS = ROOT / "checkpoints" / "sync_light.safetensors"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what is scored").add_argument
    what("--real", metavar="PATH", type=Path, help="the real video, or a folder of them")
    what(
        "--generated",
        metavar="[NAME=]PATH",
        action="append",
        default=[],
        help="the generated one, or a folder; again for another method",
    )
    what("--audio", metavar="PATH", type=Path, help="sound that drove it, or a folder (default: its own)")
    what("--list", metavar="FILE", type=Path, help="tab-separated lines: real, generated, and maybe sound")
    what(
        "--columns", metavar="X,Y,W,H;...", help="rectangles of a side-by-side file, [NAME=]x,y,w,h, the real one first"
    )
    what("--clips", metavar="DIR", type=Path, help="real clips to generate from (a video file, or a folder)")
    what("--base", metavar="CKPT", help="stage-1 weights to generate with (also with --real: adds our line)")
    what("--hr", metavar="CKPT", help="stage-2 weights (without: the face of stage 1 is pasted)")
    what("--offsets", metavar="FILE", type=Path, help="known sound offsets: tab-separated file, offset_ms [, set]")
    what(
        "--from",
        dest="from_s",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="score only what is shown from then on, e.g. where the weights were adapted to the beginning",
    )
    what("--keep", metavar="DIR", type=Path, help="keep generated videos here")
    weights = parser.add_argument_group("weights of further scorers").add_argument
    weights(
        "--sync-weights",
        metavar="FILE",
        type=Path,
        default=SYNC_WEIGHTS,
        help="our sync expert (default: the shipped one)",
    )
    weights("--syncnet-weights", metavar="FILE", type=Path, help="SyncNet v2 in its published layout: LSE-C, LSE-D")
    weights("--lpips-weights", metavar="FILE", type=Path, help="state dict of lpips.LPIPS(net='alex')")
    weights(
        "--identity-weights",
        metavar="FILE",
        type=Path,
        help="ONNX face network, 112 px RGB in 0..255 (needs onnxruntime)",
    )
    weights("--fid-weights", metavar="FILE", type=Path, help="ONNX feature network, 299 px RGB in 0..255 (likewise)")
    output = parser.add_argument_group("output").add_argument
    output("--json", metavar="FILE", type=Path, help="everything")
    output("--csv", metavar="FILE", type=Path, help="a line for each clip and video")
    output("--report", metavar="DIR", type=Path, help="a page with the table, plots and faces side by side")
    parser.add_argument("--device", help="auto, cpu or cuda (generation)")
    add_config_arguments(parser, ROOT / "configs" / "evaluate.yaml")
    return parser.parse_args(arguments)


def configure(args: argparse.Namespace) -> EvaluateConfig:
    config = load_config(EvaluateConfig, args.config, args.set)
    config.inference.base = args.base or config.inference.base
    config.inference.hr = args.hr or config.inference.hr
    config.inference.device = args.device or config.inference.device
    return config


def check_arguments(args: argparse.Namespace) -> None:
    """Raises InputError unless exactly one kind of input is given, and whole."""
    kinds = [name for name in ("real", "list", "clips") if getattr(args, name) is not None]
    if len(kinds) != 1:
        found = " and ".join(f"--{kind}" for kind in kinds) or "nothing to score"
        raise InputError(
            f"found {found}; expected one of --real (with --generated or --columns), --list, --clips; see --help"
        )
    if args.clips is not None and args.base is None:
        raise InputError(
            "found --clips without --base; say which stage-1 weights generate, "
            "e.g. --base checkpoints/base_light.safetensors"
        )
    if args.real is not None and not (args.generated or args.columns or args.base):
        raise InputError("found --real alone; expected --generated PATH, --columns or --base CKPT beside it")
    if args.from_s < 0:
        raise InputError(f"found --from {args.from_s:g}, expected 0 or more seconds")
    if args.hr is not None and args.base is None:
        raise InputError("found --hr without --base; give both, or neither")


def make_folders(args: argparse.Namespace) -> None:
    """Where the results go. Raises InputError, before anything is scored, where nothing can be written."""
    for folder in (args.json and args.json.parent, args.csv and args.csv.parent, args.report, args.keep):
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                if not os.access(folder, os.W_OK):
                    raise PermissionError(errno.EACCES, "nothing can be written in it")
        except OSError as error:
            raise InputError(f"{folder}: {error.strerror}; choose another place for the results") from error
    if folders := [path for path in (args.json, args.csv) if path is not None and path.is_dir()]:
        raise InputError(f"{folders[0]} is a folder; expected the name of a file for the results")


def plan(args: argparse.Namespace, config: EvaluateConfig) -> tuple[list[Job], list[str]]:
    """Jobs of finished videos, and what is missing. Raises InputError where nothing matches."""
    offsets, persons = read_offsets(args.offsets), Persons(config.person)
    if args.list is not None:
        jobs, missing = listed(args.list), []
    elif args.columns is not None:
        jobs, missing = [columns(path, args.columns) for path in _videos(args.real)], []
    elif args.clips is not None:
        jobs, missing = [Job(job_name(path, args.clips), View(path), {}) for path in _videos(args.clips)], []
    else:
        jobs, missing = matched(_videos(args.real), args.real, args.generated, args.audio, must=args.base is None)
    root = args.real or args.clips
    finished = []
    for job in numbered(jobs):
        path = job.real.path
        folder = root if root is not None and root.is_dir() else path.parent
        source = Source(path, path.relative_to(folder).as_posix(), folder.resolve())
        offset = offset_of(source, offsets)
        finished.append(
            replace(job, person=persons(source), offset_s=None if offset is None else float(offset), from_s=args.from_s)
        )
    return finished, missing


def _videos(path: Path) -> list[Path]:
    if path.is_dir():
        return [source.path for source in find_sources([path])]
    if not path.is_file():
        raise InputError(f"found no file or folder {path}; expected a video or a folder of videos; check the path")
    return [path]


def generate(jobs: list[Job], config: EvaluateConfig, folder: Path, only_own: bool) -> tuple[list[Job], list[str]]:
    """The jobs with our videos, driven by their own sound, and unless `only_own` by silence and the next clip's sound.

    Also why clips cannot be lip-synced: those without another generated video are left out of the jobs.
    """
    engine = LipSync(config.inference)
    made, problems = [], []
    for number, job in enumerate(tqdm(jobs, desc="generate", unit="clip", disable=None)):
        driver = None if only_own or len(jobs) == 1 else jobs[(number + 1) % len(jobs)]
        try:
            made.append(_generated(job, driver, engine, folder, only_own))
        except InputError as error:
            problems.append(f"{job.name}: {error}")
            if job.generated:
                made.append(job)
    return made, problems


def _generated(job: Job, driver: Job | None, engine: LipSync, folder: Path, only_own: bool) -> Job:
    source = job.real.path
    if job.real.rect is not None:
        source = reencode(job.real, folder / f"{job.name}_cut.mp4", CUT_CRF).path
    wave = _heard(job)
    drives = {"own": wave}
    if not only_own:
        drives["muted"] = np.zeros_like(wave)
    if driver is not None:
        drives["swapped"] = _heard(driver)[: len(wave)]
    views = {}
    for kind, sound in drives.items():
        output, drive = folder / f"{job.name}_{kind}.mp4", folder / f"{job.name}_{kind}.flac"
        try:
            write_flac(drive, sound)
            lip_sync(source, drive, output, engine.config, engine)
        finally:
            drive.unlink(missing_ok=True)
        views[kind] = View(output)
    own = {"ours" if job.generated else OURS: views["own"]}
    return replace(
        job,
        generated={**own, **job.generated},
        muted=views.get("muted"),
        swapped=views.get("swapped"),
        driver=driver.name if driver is not None else None,
    )


def _heard(job: Job) -> np.ndarray:
    """The clip's sound put right: what is heard `offset_s` after a frame comes with it; as long as the picture."""
    wave = read_audio(job.audio or job.real.path)
    reader = VideoReader(job.real.path)
    samples = round((job.offset_s or 0) * SAMPLE_RATE)
    wave = wave[samples:] if samples >= 0 else np.concatenate([np.zeros(-samples, np.float32), wave])
    count = round(reader.frame_count / reader.fps * SAMPLE_RATE)
    return np.pad(wave[:count], (0, max(0, count - len(wave))))


def score(
    jobs: list[Job], scorers: list[Scorer], config: EvaluateConfig, folder: Path
) -> tuple[list[ClipResult], list[str]]:
    """Results of the clips that can be scored, and why other clips or generated videos cannot.

    Raises InputError where nothing can be scored because files cannot be read.
    """
    net, results, skipped, unreadable = LandmarkNet(), [], [], None
    with tqdm(total=PASSES * sum(map(_frames, jobs)), desc="score", unit="frame", disable=None) as bar:
        for job in jobs:
            bar.set_postfix_str(job.name)
            try:
                found = evaluate_clip(job, scorers, net, folder, config.inference.crf, sound_features, bar.update)
            except (NoFace, InputError) as error:
                skipped.append(f"{job.name}: {error}")
                unreadable = error if isinstance(error, InputError) else unreadable
            else:
                results.append(found)
                skipped += [f"{job.name}: {problem}" for problem in found.problems]
    if unreadable is not None and not results:
        raise unreadable
    complete(results)
    return results, skipped


def _frames(job: Job) -> int:
    """Of the real clip; 0 where it cannot be read, which is told when its turn comes."""
    try:
        return VideoReader(job.real.path).frame_count
    except InputError:
        return 0


def tell(results: list[ClipResult], summary: Summary, details: dict[str, Any], args: argparse.Namespace) -> None:
    """Table on the terminal, notes on stderr, files where asked for. details: `config`, `notes`, `skipped`."""
    for note in details["notes"]:
        print(f"note: {note}", file=sys.stderr)
    for result in results:
        for note in result.notes:
            print(f"note: {result.job.name}: {note}", file=sys.stderr)
    for problem in details["skipped"]:
        print(f"skipped: {problem}", file=sys.stderr)
    if results:
        print(markdown(summary))
        print()
        print(markdown_clips(results))
    if args.json is not None:
        write_json(args.json, results, summary, details)
    if args.csv is not None:
        write_csv(args.csv, results)
    if args.report is not None and results:
        print(f"report: {write_report(args.report, results, summary, details)}", file=sys.stderr)


def main() -> None:
    args = parse_arguments()
    check_arguments(args)
    make_folders(args)
    config = configure(args)
    files = ScorerFiles(
        args.sync_weights, args.syncnet_weights, args.lpips_weights, args.identity_weights, args.fid_weights
    )
    scorers, notes = make_scorers(files, config.perceptual_step)
    jobs, problems = plan(args, config)
    with tempfile.TemporaryDirectory() as temporary:
        if args.base is not None:
            jobs, failed = generate(jobs, config, args.keep or Path(temporary), only_own=args.clips is None)
            problems += failed
        results, skipped = score(jobs, scorers, config, Path(temporary))
        summary = summarise(results)
        for scorer in scorers:
            if isinstance(scorer, FidScorer):
                values, refusals = scorer.pooled()
                notes += refusals
                for line, value in values.items():
                    summary[line]["fid"] = {"mean": value, "sd": float("nan"), "n": 1}
        problems += skipped
        tell(results, summary, {"config": asdict(config), "notes": notes, "skipped": problems}, args)
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    run_cli(main)

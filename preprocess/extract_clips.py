"""Raw video to a data set of face crops, sound features and landmarks.

    python -m preprocess.extract_clips --videos DIR [DIR...] --output DATA --person parent

Restartable: a finished source is not read again, unless with --again or its file has changed; another person or split
is taken over. Shards (`--shard 2/8`) may run side by side on a shared disk.
"""

import argparse
from fractions import Fraction
from pathlib import Path

from engine.lock import turn
from errors import InputError, number, run_cli, warn
from preprocess.jobs import Job, Settings, clips_by_source, leave_or_relabel, read_records, report, run, tell_replaced
from preprocess.shard import add_shard_argument, shard
from preprocess.sources import Persons, Splits, find_sources, offset_of, read_offsets
from workers import cores


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--videos", nargs="+", required=True, type=Path, metavar="DIR", help="folders, searched in depth"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DATA", help="the data set; may exist, is added to"
    )
    parser.add_argument("--size", type=int, choices=(128, 256, 512), default=256, help="crop size in px (default 256)")
    parser.add_argument("--split", help="hash (the default, by person), train, val, test, or list files, a,b,c")
    parser.add_argument("--person", help="parent (folder), a regular expression, '=NAME', or none (the default)")
    parser.add_argument("--offsets", type=Path, metavar="FILE", help="known sound offsets, see preprocess/README.md")
    parser.add_argument(
        "--sync-expert",
        type=Path,
        metavar="CKPT",
        help="find each clip's sound offset, take it out, and reject clips out of sync",
    )
    parser.add_argument(
        "--backend", choices=("mediapipe", "face_alignment"), default="mediapipe", help="who finds faces"
    )
    parser.add_argument("--min-face", type=number, default=40, metavar="PX", help="reject narrower faces (default 40)")
    parser.add_argument("--workers", type=int, default=cores(), metavar="N", help="processes (default: all cores)")
    parser.add_argument("--again", action="store_true", help="also videos that are done already")
    add_shard_argument(parser, "videos")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    jobs, ids = plan(args)
    # These import torch, which mistakes in the arguments need not wait for.
    from models.checkpoint import load_network
    from models.syncnet import SyncExpert
    from preprocess.extraction import extract_source, set_up

    if args.sync_expert is not None:
        load_network(args.sync_expert, kind=SyncExpert)  # complains before any work is done
    set_up()
    skipped = {job.source.id: job for job in jobs if job.is_done and not args.again}
    run([job for job in jobs if job.source.id not in skipped], args.workers, extract_source, set_up)
    said = {f"--{name}" for name in ("person", "split") if getattr(args, name) is not None}
    leave_or_relabel(list(skipped.values()), said)
    with turn(args.output / "sources" / ".lock"):  # shards end side by side, and the last one knows of all clips
        records = read_records(args.output)
        tell_replaced(jobs, ids, records)
        report(args.output, records)


def plan(args: argparse.Namespace) -> tuple[list[Job], set[str]]:
    """The videos of this shard, and the ids of all. Raises InputError for mistakes in the arguments."""
    persons, splits = Persons(args.person or "none"), Splits(args.split or "hash")
    offsets = read_offsets(args.offsets)
    found = find_sources(args.videos)
    splits.check(found, persons)
    sources = shard(found, args.shard)
    expert = args.sync_expert and str(args.sync_expert)
    settings = Settings(args.output, args.size, args.backend, args.min_face, expert)
    try:
        settings.make_folders()
    except OSError as error:
        raise InputError(f"--output {args.output}: cannot be written: {error.strerror}") from error
    if splits.rule == "hash" and (unknown := sum(not persons(source) for source in found)):
        warn(
            f"{unknown} of {len(found)} videos are of nobody known (--person): --split hash divides them file by file, "
            "so somebody may be in both train and val"
        )
    earlier = clips_by_source(args.output)
    jobs = []
    for source in sources:
        person = persons(source)
        offset = offset_of(source, offsets) or Fraction(0)
        jobs.append(Job(source, settings, person, splits(source, person) or "", offset, earlier.get(source.id, [])))
    return jobs, {source.id for source in found}


if __name__ == "__main__":
    run_cli(main)

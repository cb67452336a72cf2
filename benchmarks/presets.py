"""Frames/s of the light and the published preset, measured alternately in one run, in inference and in training.

    python -m benchmarks.presets [--rounds 3]

Machines are shared and differ sixfold: read the ratios, not the frames/s.
"""

import argparse

from errors import InputError, run_cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="times each is measured, in turn; the best counts")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        raise InputError(f"--rounds {rounds}: expected 1 or more")
    print_presets(rounds)


def print_presets(rounds: int) -> None:
    from benchmarks.speed import bench_presets  # imports torch, which mistakes in the arguments need not wait for

    rows = bench_presets(rounds)
    print("| network | published, frames/s | light, frames/s | ratio |\n|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    run_cli(main)

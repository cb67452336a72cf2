"""Stage 1: audio pre-training, then the whole network.

    python train_base.py --config configs/base.yaml [--set data.path=DATA] [--set run.name=mine]

The same command again resumes. Writes runs/<name>/best.safetensors, the weights to use.
"""

import argparse
from pathlib import Path

from engine.config import add_config_arguments, load_config
from engine.options import TrainBaseConfig
from errors import run_cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, TrainBaseConfig, "base.yaml")
    parser.add_argument(
        "--init",
        type=Path,
        metavar="CKPT",
        help="start from these weights, without audio pre-training; loss.landmark=0 goes with it, they kept no head",
    )
    args = parser.parse_args()
    config = load_config(TrainBaseConfig, args.config, args.set)
    from engine.train_base import train  # imports torch, which mistakes in the arguments need not wait for

    print(f"weights to use: {train(config, args.init)}")


if __name__ == "__main__":
    run_cli(main, tidy=False)

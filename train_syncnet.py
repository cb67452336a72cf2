"""The sync expert: which lips and which sound belong together.

    python train_syncnet.py --config configs/syncnet.yaml [--set data.path=DATA] [--set run.name=mine]
    python train_syncnet.py --score runs/syncnet/best.safetensors --set data.path=DATA --set validation.clips=0

The same command again resumes. Writes runs/<name>/best.safetensors, the weights to use.
"""

import argparse
from pathlib import Path

from engine.config import add_config_arguments, load_config
from engine.options import TrainSyncConfig
from errors import run_cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, TrainSyncConfig, "syncnet.yaml")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--init", type=Path, metavar="CKPT", help="start from these weights")
    weights.add_argument("--score", type=Path, metavar="CKPT", help="train nothing: score these on validation clips")
    args = parser.parse_args()
    config = load_config(TrainSyncConfig, args.config, args.set)
    from engine.train_syncnet import score, train  # imports torch, which mistakes in the arguments need not wait for

    print(f"weights to use: {train(config, args.init)}" if args.score is None else score(config, args.score))


if __name__ == "__main__":
    run_cli(main, tidy=False)

"""Stage 2: stage-1 face and sketch to a sharp face.

    python -m preprocess.generate_base --checkpoint runs/base/best.safetensors --data DATA
    python train_hr.py --config configs/hr_256.yaml --set data.path=DATA

The same command again resumes. Writes runs/<name>/best.safetensors, the weights to use.
"""

import argparse
from pathlib import Path

from engine.config import add_config_arguments, load_config
from engine.options import TrainHRConfig
from errors import run_cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, TrainHRConfig, "hr_256.yaml")
    parser.add_argument("--init", type=Path, metavar="CKPT", help="start from these weights")
    args = parser.parse_args()
    config = load_config(TrainHRConfig, args.config, args.set)
    from engine.train_hr import train  # imports torch, which mistakes in the arguments need not wait for

    print(f"weights to use: {train(config, args.init)}")


if __name__ == "__main__":
    run_cli(main, tidy=False)

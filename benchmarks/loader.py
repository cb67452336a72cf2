"""How fast a data set gives stage-1 samples.

python -m benchmarks.loader --config configs/base.yaml --set data.path=DATA data.workers=2
"""

import argparse

from engine.config import add_config_arguments, load_config
from engine.options import TrainBaseConfig
from errors import run_cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, TrainBaseConfig, "base.yaml")
    args = parser.parse_args()
    config = load_config(TrainBaseConfig, args.config, args.set)
    from benchmarks.speed import bench_config  # imports torch, which mistakes in the arguments need not wait for

    print(bench_config(config))


if __name__ == "__main__":
    run_cli(main)

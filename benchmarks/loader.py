"""How fast a data set gives the samples of either stage, as its config says.

python -m benchmarks.loader --config configs/base.yaml --set data.path=DATA data.workers=2
"""

import argparse
from pathlib import Path

from engine.config import add_config_arguments, load_config, script_of
from engine.options import TrainBaseConfig, TrainHRConfig
from errors import run_cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, TrainBaseConfig, "base.yaml")
    args = parser.parse_args()
    stage_2 = script_of(Path(args.config)) == TrainHRConfig.SCRIPT
    schema: type[TrainBaseConfig | TrainHRConfig] = TrainHRConfig if stage_2 else TrainBaseConfig
    config = load_config(schema, args.config, args.set)
    from benchmarks.speed import bench_config  # imports torch, which mistakes in the arguments need not wait for

    print(bench_config(config))


if __name__ == "__main__":
    run_cli(main)

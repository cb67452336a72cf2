"""A page on this machine: give a face and a voice, look at one frame, make the video.

    python app.py                                     http://127.0.0.1:7860
    python app.py --set hr=null --longest 30          other settings to begin with, less for each visitor

Wants `pip install -r requirements-page.txt`. The work is page.session's, drawn by page.layout.
"""

import argparse
import os
from importlib.metadata import PackageNotFoundError, version

from engine.config import add_config_arguments
from engine.options import InferenceConfig
from errors import InputError, check, number, run_cli
from page.limits import Limits

LOOPBACK = "127.0.0.1"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", LOOPBACK),
        help=f"address to listen at (default {LOOPBACK}: this machine only; 0.0.0.0: whoever reaches it)",
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument(
        "--longest",
        type=number,
        default=Limits.seconds,
        metavar="SECONDS",
        help=f"longest video, and longest sound, that a visitor may give (default {Limits.seconds:g})",
    )
    parser.add_argument(
        "--largest",
        type=int,
        default=Limits.megabytes,
        metavar="MB",
        help=f"largest file that a visitor may give (default {Limits.megabytes})",
    )
    add_config_arguments(parser, InferenceConfig)
    return parser.parse_args()


def check_gradio() -> None:
    """Raises InputError where gradio, which is optional, is missing or too old."""
    wanted = "the page wants gradio 6: pip install -r requirements-page.txt"
    try:
        found = version("gradio")
    except PackageNotFoundError as error:
        raise InputError(f"found no package gradio; {wanted}") from error
    if int(found.split(".")[0]) < 6:
        raise InputError(f"found gradio {found}; {wanted}")


def main() -> None:
    args = parse_arguments()
    check(
        args.longest <= 0 and f"--longest is {args.longest:g}, expected more than 0 seconds",
        args.largest < 1 and f"--largest is {args.largest}, expected 1 MB or more",
        args.port is not None and not 0 < args.port < 65536 and f"--port is {args.port}, expected 1 to 65535",
    )
    check_gradio()
    # These import torch, which mistakes in the arguments need not wait for.
    from page.studio import Studio

    studio = Studio(args.config, args.set, Limits(seconds=args.longest, megabytes=args.largest))
    try:
        os.environ["GRADIO_TEMP_DIR"] = str(studio.folder)  # uploads lie there too, and go with it
        from page.layout import Page

        studio.warm_up()
        try:
            Page(studio).launch(args.host, args.port)
        except OSError as error:
            raise InputError(
                f"found no way to listen at {args.host}:{args.port or '7860 and on'} ({error}); "
                "give another --port, or a --host of this machine"
            ) from error
    finally:
        studio.close()


if __name__ == "__main__":
    run_cli(main)

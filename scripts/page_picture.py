"""README's pictures of the page and of a report, taken by headless Chromium.

python -m scripts.page_picture --address http://127.0.0.1:7860 --output assets/page.jpg     while app.py runs
python -m scripts.page_picture --report DIR --output assets/report.jpg                      of evaluate.py --report DIR

Wants `pip install playwright` and Chromium on PATH.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from errors import InputError, run_cli

ROOT = Path(__file__).resolve().parent.parent
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_WIDTH, _HEIGHT = 1000, 800
_QUALITY = 65
_LONG_MS = 300_000


def chromium() -> str | None:
    """The browser's program, None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def settled(page: Any, words: str) -> None:
    """Wait until the page says so."""
    page.locator("#status", has_text=words).wait_for()


def fill(page: Any, face: Path, voice: Path) -> None:
    """Give a face (video) and a voice, and wait until both are there."""
    page.locator("#face-video input[type=file]").first.set_input_files(face)
    settled(page, "One face")
    fill_voice(page, voice)


def fill_voice(page: Any, voice: Path) -> None:
    page.locator("#voice-sound input[type=file]").first.set_input_files(voice)
    page.locator("#voice-sound").get_by_label("Play", exact=False).first.wait_for()


def take_page(page: Any, address: str, output: Path) -> None:
    """The page with the demo clip's video made."""
    page.goto(address)
    fill(page, ROOT / "assets" / "grid_s1_demo.mp4", ROOT / "assets" / "grid_s1_demo.m4a")
    page.get_by_role("button", name="Make video").click()
    page.get_by_text("The same on the command line").wait_for()
    page.evaluate("for (const video of document.querySelectorAll('video')) video.currentTime = 1.24")
    page.wait_for_timeout(1500)
    page.screenshot(path=output, full_page=True, type="jpeg", quality=_QUALITY)


def take_report(page: Any, folder: Path, output: Path) -> None:
    """The beginning of a report."""
    page.goto((folder / "index.html").resolve().as_uri())
    page.screenshot(path=output, full_page=True, type="jpeg", quality=_QUALITY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--address", help="where app.py listens")
    what.add_argument("--report", type=Path, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="PICTURE.jpg")
    args = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        raise InputError("found no package playwright; pip install playwright") from error
    if (program := chromium()) is None:
        raise InputError("found no Chromium on PATH; install the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        page.set_default_timeout(_LONG_MS)
        if args.report is not None:
            take_report(page, args.report, args.output)
        else:
            take_page(page, args.address, args.output)
        browser.close()
    print(args.output)


if __name__ == "__main__":
    run_cli(main)

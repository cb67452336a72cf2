"""The page in a real browser, headless Chromium, with a real clip. Skipped without gradio, playwright or Chromium."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT

from media.audio import SAMPLE_RATE, read_audio, write_flac
from media.video import VideoReader
from scripts.page_picture import FLAGS, chromium, fill, fill_voice, settled

CLIP, VOICE = ROOT / "assets" / "grid_s1_demo.mp4", ROOT / "assets" / "grid_s1_demo.m4a"
LONG_MS = 180_000


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("gradio", reason="needs pip install -r requirements-page.txt")
    api = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    if chromium() is None:
        pytest.skip("needs Chromium on PATH (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    """(address, folder of its temporary files): app.py without stage 2, 4 s at most; ended by SIGTERM."""
    folder = tmp_path_factory.mktemp("tmp")
    words = [sys.executable, "app.py", "--longest", "4", "--set", "hr=null"]
    process = subprocess.Popen(
        words, cwd=ROOT, env={**os.environ, "TMPDIR": str(folder)}, stdout=subprocess.PIPE, text=True
    )
    address = next(line.split()[-1] for line in process.stdout if "http://127.0.0.1" in line)
    yield address, folder
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert not list(folder.iterdir())


@pytest.fixture
def page(browser, server):
    page = browser.new_page()
    page.set_default_timeout(LONG_MS)
    foreign = []
    page.on("request", lambda request: foreign.append(request.url) if _foreign(request.url, server[0]) else None)
    page.goto(server[0])
    yield page
    page.close()
    assert not foreign  # nothing is fetched from elsewhere


def _foreign(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_a_visitor_previews_stops_makes_and_downloads(page, server, tmp_path):
    fill(page, CLIP, VOICE)
    page.get_by_role("button", name="Preview").click()
    settled(page, "One frame is painted")
    assert page.locator("#moment img").first.evaluate("image => image.naturalWidth") == 360
    before = files(server[1])
    page.get_by_role("button", name="Make video").click()
    page.locator("#status progress").first.wait_for()
    page.get_by_role("button", name="Stop").click()
    settled(page, "Stopped")
    assert files(server[1]) == before
    page.get_by_role("button", name="Make video").click()
    page.get_by_text("The same on the command line").wait_for()
    assert page.get_by_text(f"--face {CLIP.name} --audio {VOICE.name}").count() == 1
    assert page.get_by_text("sync, our expert: confidence", exact=True).is_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the video").click()
    download.value.save_as(tmp_path / "made.mp4")
    assert sum(1 for _ in VideoReader(tmp_path / "made.mp4")) == 75
    heard, wanted = read_audio(tmp_path / "made.mp4"), read_audio(VOICE)
    count = min(len(heard), len(wanted))
    assert np.corrcoef(heard[:count], wanted[:count])[0, 1] > 0.9


def test_mistakes_are_told_on_the_page(page, server, tmp_path):
    page.get_by_role("button", name="Make video").click()
    settled(page, "found no face; give a video")
    noise = tmp_path / "noise.png"
    cv2.imwrite(str(noise), np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    page.get_by_role("tab", name="Face: picture").click()
    page.locator("#face-picture input[type=file]").first.set_input_files(noise)
    settled(page, "no face found")
    assert str(server[1]) not in page.locator("#status").inner_text()
    page.get_by_role("tab", name="Face: video").click()
    page.locator("#face-video input[type=file]").first.set_input_files(CLIP)
    settled(page, "One face")
    page.get_by_role("button", name="Preview").click()
    settled(page, "found no voice")
    write_flac(tmp_path / "long.flac", np.zeros(5 * SAMPLE_RATE, np.float32))
    fill_voice(page, tmp_path / "long.flac")
    page.get_by_role("button", name="Make video").click()
    settled(page, "found 5 s of sound, expected at most 4")


def test_files_go_when_a_visitor_leaves(browser, server, tmp_path):
    before = files(server[1])
    own = tmp_path / "own.mp4"  # equal files of two visitors would lie at one place
    own.write_bytes(Path(CLIP).read_bytes() + b"\0\0\0\x08free")
    page = browser.new_page()
    page.set_default_timeout(LONG_MS)
    page.goto(server[0])
    page.locator("#face-video input[type=file]").first.set_input_files(str(own))
    settled(page, "One face")
    assert files(server[1]) - before
    page.goto("about:blank")
    deadline = time.monotonic() + 60
    while files(server[1]) - before:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    page.close()

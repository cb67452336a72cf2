"""Memory does not grow with the length of a video or of a sound."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.memory import film

ROOT = Path(__file__).resolve().parent.parent
SHORT, TIMES = 6, 10
"""s of the shorter one, how many times as long the longer one is."""
STUBBED = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from benchmarks.memory import peak_mib, sound
from engine import drive, pipeline
from engine.options import InferenceConfig
from engine.precision import FLOAT32
from engine.prepared import FaceSettings, PreparedFace
from media.video import VideoReader

video, seconds, output = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
points = np.random.default_rng(0).uniform(30, 98, (478, 2))
engine = pipeline.LipSync.__new__(pipeline.LipSync)
engine.config, engine.size, engine.hr, engine.gain, engine.window = InferenceConfig(), 256, object(), 1.0, "centred"
engine.base = SimpleNamespace(config=SimpleNamespace(audio="whisper", audio_window=18, gru="none"))
engine.landmarks = SimpleNamespace(landmarks=lambda faces: (points[None].repeat(len(faces), 0), np.full(len(faces), 9)))
engine.precision = FLOAT32, FLOAT32
engine.settings = FaceSettings("template", "closed", 0, 256, 1, engine.config.max_size)
drive.encode_references = drive.to_network = lambda *_: []
drive.paint_base = lambda network, windows, faces, *_: 255 - faces
drive.paint_hr = lambda network, painted, landmarks, faces, *_: 255 - faces
times = VideoReader(video).times
crops = np.tile(np.array([[0.4, 0, -100], [0, 0.4, -60]]), (len(times), 1, 1))
references, portraits = np.zeros((1, 1, 128, 128, 3), np.uint8), np.zeros((1, 256, 256, 3), np.uint8)
shares = np.ones((len(times), 1, 1), np.float32)
alike = np.zeros(len(times), int)
face = PreparedFace(video, engine.settings, times, crops, alike, references, shares, portraits, alike)
heard = sound(Path(output).with_suffix(".flac"), seconds)
report = pipeline.lip_sync(face, heard, output, engine=engine)
print(report.frames, peak_mib())
"""
"""The real chain (reader, timeline, crops, masks, paste-back, writer) with stubs in place of the painting networks."""


def peak(video: Path, seconds: int, output: Path) -> float:
    command = [sys.executable, "-c", STUBBED, video, seconds, output]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    frames, mib = result.stdout.split()
    assert int(frames) == 25 * seconds
    return float(mib)


@pytest.mark.long
@pytest.mark.parametrize("way", ["forwards", "forwards and backwards"])
def test_ten_times_the_length_takes_no_more_memory(tmp_path, way):
    short = film(tmp_path / "short.mp4", SHORT)
    if way == "forwards":
        seconds, long = SHORT, film(tmp_path / "long.mp4", SHORT * TIMES)
    else:
        seconds, long = 2 * SHORT, short
    before, after = peak(short, seconds, tmp_path / "a.mp4"), peak(long, seconds * TIMES, tmp_path / "b.mp4")
    assert after <= 1.1 * before, f"{before:.0f} MiB, {after:.0f} MiB of {TIMES} times the length"

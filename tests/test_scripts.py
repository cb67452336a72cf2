"""Scripts beside the main road."""

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from errors import InputError, exact
from media.audio import SAMPLE_RATE, read_audio
from media.video import VideoReader
from scripts.cut_video import cut


def test_a_stretch_keeps_its_pictures_its_sound_and_their_step(talking_clip, tmp_path):
    output = tmp_path / "part.mp4"
    assert cut(talking_clip, output, Fraction("0.4"), Fraction("1.2"), (60, 20, 240, 260)) == 20
    whole, part = VideoReader(talking_clip), list(VideoReader(output))
    assert VideoReader(output).size == (240, 260) and part[0].time == 0 and part[-1].time == Fraction("0.76")
    picture = next(frame for frame in whole if frame.index == 12).rgb((60, 20, 300, 280))
    assert np.abs(picture.astype(int) - part[2].rgb()).mean() < 1
    heard, wanted = read_audio(output), read_audio(talking_clip)[int(0.4 * SAMPLE_RATE) : int(1.2 * SAMPLE_RATE)]
    assert abs(len(heard) - len(wanted)) < 0.03 * SAMPLE_RATE
    count = min(len(heard), len(wanted))
    assert np.corrcoef(heard[:count], wanted[:count])[0, 1] > 0.9


def test_sound_begins_with_the_first_picture(talking_clip, tmp_path):
    cut(talking_clip, tmp_path / "part.mp4", Fraction("0.405"), Fraction("1.2"), None)  # the frame of 0.44 s is first
    heard, whole = read_audio(tmp_path / "part.mp4"), read_audio(talking_clip)

    def alike(begin: float) -> float:
        wanted = whole[int(begin * SAMPLE_RATE) :][: len(heard)]
        return np.corrcoef(heard[: len(wanted)], wanted)[0, 1]

    assert alike(0.44) > 0.9 > alike(0.405)


@pytest.mark.parametrize(
    ("start", "end", "rect", "message"),
    [
        ("5", "6", None, "no picture from 5 to 6 s"),
        ("1", "1", None, "no picture"),
        ("-1", "1", None, "no picture"),
        ("0.01", "0.02", None, "no picture"),
        ("0", "1", (200, 0, 200, 100), "leaves the 360x288 picture"),
    ],
)
def test_what_is_not_there_cannot_be_cut_out(talking_clip, tmp_path, start, end, rect, message):
    with pytest.raises(InputError, match=message):
        cut(talking_clip, tmp_path / "part.mp4", Fraction(start), Fraction(end), rect)
    assert not list(tmp_path.iterdir())


def test_a_cut_never_takes_the_place_of_its_source(talking_clip, tmp_path):
    video = Path(shutil.copy(talking_clip, tmp_path))
    (tmp_path / "link.mp4").symlink_to(video)
    for output in (video, tmp_path / "link.mp4"):
        with pytest.raises(InputError, match="is a source itself"):
            cut(video, output, Fraction(0), Fraction(1), None)
    assert video.read_bytes() == talking_clip.read_bytes() and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("text", ["1/0", "nan", "1e999", "soon"])
def test_seconds_are_numbers(text):
    assert exact("0.4") == Fraction(2, 5)
    with pytest.raises(ValueError):
        exact(text)

"""When frames are shown, by hand."""

from fractions import Fraction

import numpy as np

from engine.timeline import gaps, median_step, shown_frames, source_frame
from media.video import VideoReader

STEP = Fraction(1, 25)


def test_median_step_is_exact_at_a_constant_rate_and_the_usual_one_otherwise():
    ntsc = Fraction(30000, 1001)
    rounded = [Fraction(round(index / ntsc * 1000), 1000) for index in range(20)]  # a container's milliseconds
    assert median_step(rounded, ntsc) == 1 / ntsc
    assert median_step([Fraction(0), Fraction(1, 10), Fraction(2, 10), Fraction(9, 10)], Fraction(4)) == Fraction(1, 10)
    assert median_step([Fraction(0)], Fraction(25)) == Fraction(1, 25)


def test_gaps_are_stretches_in_seconds():
    times = [Fraction(index, 10) for index in range(6)]
    absent = np.array([True, False, True, True, False, True])
    assert gaps(absent, times, Fraction(1, 10)) == [(0.0, 0.1), (0.2, 0.4), (0.5, 0.6)]
    assert gaps(np.zeros(6, bool), times, Fraction(1, 10)) == []


def test_frames_are_shown_within_the_sound(talking_clip):
    reader = VideoReader(talking_clip)
    shown = [(frame.index, when) for frame, when in shown_frames(reader, reader.times, STEP, lambda when: when < 1)]
    assert shown == [(index, Fraction(index, 25)) for index in range(25)]


def test_a_longer_sound_goes_back_and_forth_without_repeating_the_turning_frame(talking_clip):
    reader = VideoReader(talking_clip)
    shown = [(frame.index, when) for frame, when in shown_frames(reader, reader.times, STEP, lambda when: when < 5)]
    assert [index for index, _ in shown] == [*range(50), *range(48, -1, -1), *range(1, 27)]
    assert [source_frame(number, 50) for number in range(125)] == [index for index, _ in shown]
    assert {source_frame(number, 1) for number in range(3)} == {0}
    assert [when for _, when in shown] == [Fraction(index, 25) for index in range(125)]

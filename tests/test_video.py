"""Video: counts, times, colours and pixels through the reader and the writer; what broken and odd files give."""

import os
import platform
import resource
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from conftest import touch_or_skip

from aside import part_of
from errors import InputError
from media.audio import SAMPLE_RATE, read_audio
from media.frame import Colour, planes_to_rgb, rgb_to_planes
from media.video import VideoReader, VideoWriter

RATES = [Fraction(25), Fraction(30000, 1001), Fraction(15), Fraction(50)]
BT709, BT601_FULL = Colour(1, 1, 1, 1), Colour(5, 2, 5, 6)


def picture(width: int = 96, height: int = 64, shift: int = 0) -> np.ndarray:
    """Smooth colours that move with `shift`, (height, width, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((x + shift) / 9 + phase) * np.cos(y / 11 + phase) for phase in (0, 1, 2)]
    return np.uint8(128 + 90 * np.stack(waves, 2))


def write_video(
    path: Path, count: int = 12, fps: Fraction = RATES[0], size: tuple[int, int] = (96, 64), **options
) -> Path:
    with VideoWriter(path, size, fps, **options) as writer:
        for index in range(count):
            writer.write(picture(*size, 3 * index))
    return path


def write_raw(
    path: Path,
    pix_fmt: str,
    codec: str,
    stamps: list[int],
    size: tuple[int, int] = (96, 64),
    ticks: int = 1000,
    **options,
) -> Path:
    """Pictures with the given timestamps in units of 1 / ticks s, through any codec and pixel format."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, ticks)
        for index, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(picture(*size, 3 * index), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = stamp, Fraction(1, ticks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def same(first, second) -> bool:
    return (first.index, first.time) == (second.index, second.time) and all(
        (a == b).all() for a, b in zip(first.planes, second.planes, strict=True)
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("fps", RATES)
def test_counts_and_times_are_exact(tmp_path, suffix, fps):
    reader = VideoReader(write_video(tmp_path / f"a{suffix}", 20, fps))
    assert reader.fps == fps and reader.frame_count == 20 and not reader.is_variable and reader.notes == []
    for _ in range(2):  # again and again
        assert [(frame.index, frame.time) for frame in reader] == [(index, index / fps) for index in range(20)]


def test_mkv_times_are_right_to_the_millisecond(tmp_path):
    reader = VideoReader(write_video(tmp_path / "a.mkv", 20, Fraction(30000, 1001)))
    assert not reader.is_variable
    assert all(abs(frame.time - frame.index * Fraction(1001, 30000)) <= Fraction(1, 1000) for frame in reader)


def test_variable_times_are_kept(tmp_path):
    times = [0, 0.03, 0.1, 0.11, 0.3, 0.5, 0.55]
    with VideoWriter(tmp_path / "a.mp4", (96, 64), Fraction(13)) as writer:
        for time in times:
            writer.write(picture(), time=time)
    reader = VideoReader(tmp_path / "a.mp4")
    assert reader.is_variable and "variable" in reader.notes[0]
    told = reader.told_times
    assert [float(time) for time in reader.times] == pytest.approx(times, abs=2e-5) and told == reader.times
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.duration / 1e6 == pytest.approx(0.55 + 1 / 13, abs=1e-3)


def test_times_must_increase(tmp_path):
    with (
        pytest.raises(ValueError, match="does not come after"),
        VideoWriter(tmp_path / "a.mp4", (96, 64), RATES[0]) as writer,
    ):
        writer.write(picture(), time=1)
        writer.write(picture(), time=1)
    assert os.listdir(tmp_path) == []


def test_frames_nearer_than_a_tick_are_kept_in_order(tmp_path):
    times = [Fraction(0), Fraction(1, 25), Fraction(1, 25) + Fraction(1, 10**6), Fraction(2, 25)]
    with VideoWriter(tmp_path / "a.mp4", (96, 64), RATES[0]) as writer:
        for time in times:
            writer.write(picture(), time=time)
    assert [float(time) for time in VideoReader(tmp_path / "a.mp4").times] == pytest.approx(times, abs=1e-4)


def test_pictures_that_are_half_an_hour_apart_have_a_rate(tmp_path):
    path = tmp_path / "slides.mkv"
    with VideoWriter(path, (64, 64), Fraction(25)) as writer:
        for time in (0, 2400):
            writer.write(np.zeros((64, 64, 3), np.uint8), time)
    reader = VideoReader(path)
    assert 0 < reader.fps < 1 and [float(frame.time) for frame in reader] == [0, 2400]


def test_missing_order_in_timestamps_gives_counter_time(tmp_path):
    path = write_raw(tmp_path / "a.avi", "yuv420p", "libx264", list(range(30)), ticks=25, bf="2")
    reader = VideoReader(path)
    assert [frame.time for frame in reader] == [Fraction(index, 25) for index in range(30)]
    assert sum("timestamps" in note for note in reader.notes) == 1


def test_a_step_back_in_time_does_not_stop_the_clock(tmp_path):
    stamps = [40 * index for index in range(40)]
    path = write_raw(tmp_path / "a.mkv", "yuv420p", "libx264", stamps, bf="0")
    data = path.read_bytes()
    # A second copy of the file after the first: the clusters begin again at time 0.
    path.write_bytes(data + data[data.index(bytes.fromhex("1f43b675")) :])
    reader = VideoReader(path)
    times = [frame.time for frame in reader]
    assert len(times) == 80 and all(a < b for a, b in pairwise(times))
    assert times[40] == times[39] + 1 / reader.fps and "starts again once" in reader.notes[-1]
    assert reader.times == times and [frame.time for frame in reader.reversed_frames()] == times[::-1]


@pytest.mark.parametrize("count", [1, 63, 150])
def test_backwards_equals_forwards(tmp_path, count):
    path = write_raw(tmp_path / "a.mp4", "yuv420p", "libx264", [40 * index for index in range(count)], bf="2", g="70")
    reader = VideoReader(path)
    backwards = list(reader.reversed_frames())[::-1]
    assert len(backwards) == count
    assert all(same(a, b) for a, b in zip(reader, backwards, strict=True))


def test_untouched_pixels_stay_bit_equal(talking_clip, tmp_path):
    rect = 100, 90, 240, 250
    with VideoWriter(tmp_path / "a.mp4", (360, 288), RATES[0], qp=0) as writer:
        for frame in VideoReader(talking_clip):
            frame.write_rgb(rect, 255 - frame.rgb(rect))
            writer.write(frame, time=frame.time)
    count = 0
    for source, result in zip(VideoReader(talking_clip), VideoReader(tmp_path / "a.mp4"), strict=True):
        for before, after, scale in zip(source.planes, result.planes, (1, 2, 2), strict=True):
            outside = np.ones(before.shape, bool)
            outside[rect[1] // scale : rect[3] // scale, rect[0] // scale : rect[2] // scale] = False
            assert (before[outside] == after[outside]).all()
        changed = 255 - source.rgb(rect).astype(int)
        assert np.abs(result.rgb(rect).astype(int) - changed)[8:-8, 8:-8].mean() < 2
        count += 1
    assert count == 50


@pytest.mark.parametrize("colour", [BT709, BT601_FULL, Colour()])
def test_colours_survive(colour):
    image = picture(128, 128)
    back = planes_to_rgb(rgb_to_planes(image, colour), colour).astype(int) - image
    assert np.abs(back.mean((0, 1))).max() < 1 and np.abs(back).mean() < 1
    white = rgb_to_planes(np.full((16, 16, 3), 255, np.uint8), colour)[0]
    assert white.min() == white.max() == (255 if colour.range == 2 else 235)


def test_colour_space_is_the_tagged_one():
    red = np.full((16, 16, 3), (255, 0, 0), np.uint8)
    # Luma of red: 16 + 219 * 0.2126 in BT.709, 16 + 219 * 0.299 in BT.601.
    assert abs(int(rgb_to_planes(red, BT709)[0][8, 8]) - 62.6) <= 1
    assert abs(int(rgb_to_planes(red, Colour())[0][8, 8]) - 81.5) <= 1


@pytest.mark.parametrize("colour", [BT709, BT601_FULL])
def test_colour_tags_are_copied(tmp_path, colour):
    assert VideoReader(write_video(tmp_path / "a.mp4", colour=colour)).colour == colour


@pytest.mark.parametrize("rect", [(0, 0, 96, 64), (10, 12, 40, 44), (3, 5, 50, 33), (77, 1, 96, 64), (9, 9, 10, 10)])
def test_part_of_a_picture_equals_the_part_of_the_whole(tmp_path, rect):
    frame = next(iter(VideoReader(write_video(tmp_path / "a.mp4"))))
    x0, y0, x1, y1 = rect
    assert (frame.rgb(rect) == frame.rgb()[y0:y1, x0:x1]).all()


@pytest.mark.parametrize("times", [1, 2, 4])
def test_a_reduced_picture_is_the_mean_of_the_whole_ones_pixels(tmp_path, times):
    frame = next(iter(VideoReader(write_video(tmp_path / "a.mp4"))))
    x0, y0, x1, y1 = rect = (8, 16, 72, 48)
    wanted = cv2.resize(frame.rgb()[y0:y1, x0:x1], None, fx=1 / times, fy=1 / times, interpolation=cv2.INTER_AREA)
    reduced = frame.rgb_reduced(times, rect)
    assert reduced.shape == wanted.shape and np.abs(reduced.astype(int) - wanted)[1:-1, 1:-1].mean() < 1
    with pytest.raises(ValueError, match="reduced"):
        frame.rgb_reduced(8, (8, 16, 72, 44))


def test_bad_rectangles_are_refused(tmp_path):
    frame = next(iter(VideoReader(write_video(tmp_path / "a.mp4"))))
    for rect in ((0, 0, 97, 10), (-2, 0, 10, 10), (5, 5, 5, 9)):
        with pytest.raises(ValueError, match="rectangle"):
            frame.rgb(rect)
    with pytest.raises(ValueError, match="even"):
        frame.write_rgb((1, 0, 9, 8), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="fill"):
        frame.write_rgb((0, 0, 8, 8), np.zeros((8, 10, 3), np.uint8))


def test_copies_do_not_share_pixels(tmp_path):
    frame = next(iter(VideoReader(write_video(tmp_path / "a.mp4"))))
    other = frame.copy()
    other.write_rgb((0, 0, 8, 8), np.zeros((8, 8, 3), np.uint8))
    assert not same(frame, other)


def test_odd_sizes_are_padded_and_told(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", (95, 63), RATES[0]) as writer:
        writer.write(picture(95, 63))
        writer.write(picture(95, 63, 3))
    assert "95x63" in writer.notes[0] and VideoReader(tmp_path / "a.mp4").size == (96, 64)
    path = write_raw(tmp_path / "odd.mkv", "yuv420p", "ffv1", [0, 40], size=(95, 63))
    reader = VideoReader(path)
    frame = next(iter(reader))
    assert reader.source_size == (95, 63) and reader.size == frame.size == (96, 64) and "95x63" in reader.notes[0]
    assert (frame.planes[0][:, 95] == frame.planes[0][:, 94]).all() and (
        frame.planes[0][63] == frame.planes[0][62]
    ).all()


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv444p", "yuv422p", "bgr0", "gray", "rgb24"])
def test_other_pixel_formats_become_8_bit_420(tmp_path, pix_fmt):
    codec, container = ("png", "mov") if pix_fmt == "rgb24" else ("ffv1", "mkv")
    reader = VideoReader(write_raw(tmp_path / f"a.{container}", pix_fmt, codec, [0, 40, 80]))
    frames = list(reader)
    assert [frame.planes[1].shape for frame in frames] == [(32, 48)] * 3
    image = picture(shift=6).astype(int)
    if pix_fmt == "gray":
        image = image @ [0.299, 0.587, 0.114]
        assert np.abs(frames[2].rgb().mean(2) - image).mean() < 2
    else:
        assert np.abs(frames[2].rgb() - image).mean() < 3


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.png", "png", "rgb24"), ("a.jpg", "mjpeg", "yuvj420p"), ("50%03d done.png", "png", "rgb24")],
)
def test_stills(tmp_path, name, codec, pix_fmt):
    made = write_raw(tmp_path / "made.mov", pix_fmt, codec, [0])
    with av.open(str(made)) as container:  # the packet of such a codec is the image file
        (tmp_path / name).write_bytes(bytes(next(container.demux(video=0))))
    reader = VideoReader(tmp_path / name)
    assert reader.is_still and reader.fps == 25 and reader.frame_count == 1 and reader.size == (96, 64)
    frames = list(reader)
    assert len(frames) == 1 and frames[0].time == 0
    assert np.abs(frames[0].rgb() - picture().astype(int)).mean() < 4
    assert [frame.index for frame in reader.reversed_frames()] == [0]


def test_damage_in_the_middle_is_survived(tmp_path):
    path = write_video(tmp_path / "a.mp4", 60)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    reader = VideoReader(path)
    times = [frame.time for frame in reader]
    assert 30 <= len(times) <= 60 and all(a < b for a, b in pairwise(times))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[:middle])
    assert 5 < len(list(VideoReader(cut))) < 60


def test_files_without_pictures_are_input_errors(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    (tmp_path / "nothing.mp4").touch()
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
    for name in ("missing.mp4", "text.mp4", "nothing.mp4", "sound.wav", "."):
        with pytest.raises(InputError, match=str(tmp_path / name)):
            VideoReader(tmp_path / name)


def tone(seconds: float, rate: int) -> np.ndarray:
    """Silence, and from 0.3 s on a 300 Hz tone."""
    t = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * 300 * t) * (t >= 0.3)).astype(np.float32)


def packets(path: Path) -> list[tuple[str, float]]:
    with av.open(str(path)) as container:
        return [
            (packet.stream.type, float(packet.pts * packet.time_base)) for packet in container.demux() if packet.size
        ]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_sound_is_in_place_and_interleaved(tmp_path, suffix, rate):
    path = write_video(tmp_path / f"a{suffix}", 50, audio=(tone(1.93, rate), rate))
    wave = read_audio(path)
    assert abs(len(wave) / SAMPLE_RATE - 1.93) < 0.04
    expected = tone(1.93, SAMPLE_RATE)
    begins = np.flatnonzero(np.abs(wave) > 0.1)[0] / SAMPLE_RATE
    assert begins == pytest.approx(np.flatnonzero(expected > 0.1)[0] / SAMPLE_RATE, abs=0.003)
    assert np.corrcoef(wave[6000:28000], expected[6000:28000])[0, 1] > 0.999  # priming compensated: not a sample late
    assert [frame.time for frame in VideoReader(path)][:2] == [0, Fraction(1, 25)]
    clock = {"video": 0.0, "audio": 0.0}
    for kind, time in packets(path):
        clock[kind] = time
        assert abs(clock["video"] - clock["audio"]) < 0.2 or min(clock.values()) > 1.8


def test_a_file_that_cannot_grow_is_one_line_and_leaves_nothing(tmp_path):
    noise = np.random.default_rng(0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with (
            pytest.raises(InputError, match="out.mp4 could not be written .*free space"),
            VideoWriter(tmp_path / "out.mp4", (320, 240), Fraction(25), crf=4) as writer,
        ):
            for _ in range(60):
                writer.write(noise.integers(0, 255, (240, 320, 3), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_sound_of_a_file_keeps_rate_channels_and_place(tmp_path):
    left, right = tone(2, 44100), 0.5 * tone(2, 44100)
    source = write_video(tmp_path / "source.mkv", 50, audio=(np.stack([left, right], 1), 44100))
    result = write_video(tmp_path / "result.mp4", 50, audio_from=source)
    with av.open(str(result)) as container:
        sound = container.streams.audio[0]
        assert (sound.rate, sound.channels) == (44100, 2)
        assert float(sound.duration * sound.time_base) == pytest.approx(2, abs=0.03)
    wave = read_audio(result)
    expected = 0.75 * tone(1.5, SAMPLE_RATE)
    assert np.corrcoef(wave[6000:23000], expected[6000:23000])[0, 1] > 0.999


def test_start_offset_of_the_sound_is_kept(shared, tmp_path):
    source = shared("data/odd/hevc_vfr_face_leaves.mov")
    wave = read_audio(write_video(tmp_path / "a.mp4", 75, audio_from=source))
    assert np.flatnonzero(np.abs(wave) > 1e-3)[0] / SAMPLE_RATE == pytest.approx(2.43, abs=0.02)


def test_output_appears_only_when_complete(tmp_path):
    path = write_video(tmp_path / "a.mp4", 5)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), VideoWriter(path, (96, 64), RATES[0], audio=(tone(1, 16000), 16000)) as writer:
        writer.write(picture())
        writer.write(picture())
        raise RuntimeError
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.mp4"]
    with pytest.raises(ValueError, match="no frame"), VideoWriter(path, (96, 64), RATES[0]):
        pass
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.mp4"]
    write_video(path, 7, audio_from=None)
    assert VideoReader(path).frame_count == 7


def test_parts_of_killed_runs_are_removed(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    mine = part_of(tmp_path / "a.mp4").name
    for name in (part_of(tmp_path / "a.mp4", killed.pid).name, part_of(tmp_path / "a.mp4", os.getppid()).name):
        (tmp_path / name).touch()
    others = [part_of(tmp_path / "b.mp4", killed.pid).name, mine.replace(platform.node(), "elsewhere"), "a.mp4.part"]
    for name in others:
        (tmp_path / name).touch()
    write_video(tmp_path / "a.mp4", 2)
    assert set(os.listdir(tmp_path)) == {"a.mp4", part_of(tmp_path / "a.mp4", os.getppid()).name, *others} - {mine}


def test_names_that_are_long_or_not_utf_8(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    touch_or_skip(tmp_path / os.fsdecode(b"\xff"))
    sound = write_video(folder / os.fsdecode(b"\xff.mp4"), 10, audio=(tone(0.4, 16000), 16000))
    for path in (folder / os.fsdecode(b"o\xfe.mp4"), tmp_path / f"{'x' * 250}.mp4"):
        write_video(path, 10, audio_from=sound)
        assert VideoReader(path).frame_count == 10 and len(read_audio(path)) > 6000
    assert len(list(folder.iterdir())) == 2


def test_a_stopped_run_leaves_nothing(tmp_path):
    """As scripts run, in the middle of writing."""
    script = f"""
import time, numpy as np
from fractions import Fraction
from errors import run_cli
from media.video import VideoWriter

def main():
    with VideoWriter({str(tmp_path / "a.mp4")!r}, (64, 64), Fraction(25)) as writer:
        for _ in range(500):
            writer.write(np.zeros((64, 64, 3), np.uint8))
        print("writing", flush=True)
        time.sleep(60)

run_cli(main)
"""
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() and len(os.listdir(tmp_path)) == 1
        run.terminate()
        assert run.wait(30) == 143
    assert not os.listdir(tmp_path)


def test_a_strict_terminal_does_not_end_a_script(tmp_path):
    script = r"from errors import run_cli; run_cli(lambda: print('caf\udce9 \u5f20'))"
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    result = subprocess.run([sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout == "caf\\udce9 \\u5f20\n"


def test_a_side_that_the_encoder_does_not_take_is_told_at_once(tmp_path):
    with pytest.raises(InputError, match="found 16385x64 px, expected 16384 at most on a side; lower max_size"):
        VideoWriter(tmp_path / "wide.mp4", (16385, 64), Fraction(25))


def test_a_video_can_replace_its_own_source(tmp_path):
    path = write_video(tmp_path / "a.mp4", 50, audio=(tone(2, 16000), 16000))
    reader = VideoReader(path)
    with VideoWriter(path, reader.size, reader.fps, colour=reader.colour, audio_from=path) as writer:
        for frame in reader:
            writer.write(frame)
    assert VideoReader(path).frame_count == 50 and len(read_audio(path)) > 31000


def test_outputs_that_cannot_be_written_are_input_errors(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    for name in ("a.xyz", "a", "file/a.mp4", "folder.mp4"):
        with pytest.raises(InputError), VideoWriter(tmp_path / name, (96, 64), RATES[0]):
            raise AssertionError("work began")
    source = write_video(tmp_path / "silent.mp4", 2)
    with (
        pytest.raises(InputError, match="no sound"),
        VideoWriter(tmp_path / "b.mp4", (96, 64), RATES[0], audio_from=source),
    ):
        raise AssertionError("work began")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.mp4", "silent.mp4"]


ODD = {  # frames, upright size, last time in s
    "av1.mkv": (125, (640, 360), 4.96),
    "cover_art_stream.mp4": (60, (640, 360), 1.967),
    "h264_pcm.avi": (150, (1280, 720), 5.96),
    "hevc_10bit.mp4": (30, (200, 200), 0.967),
    "hevc_portrait_1080x1920.mp4": (127, (1080, 1920), 5.16),
    "hevc_vfr_face_leaves.mov": (169, (960, 540), 6.360),
    "mpeg1_mp2_broken_start.mpg": (75, (360, 288), 2.96),
    "no_duration.webm": (74, (1280, 720), 4.872),
    "noaudio_14985fps.mp4": (71, (640, 360), 4.671),
    "rot90_tiny.mov": (3, (320, 568), 0.067),
    "rot90_vfr_phone.mp4": (43, (1080, 1920), 1.726),
    "still_face.jpg": (1, (600, 704), 0),
    "still_many_faces.jpg": (1, (1000, 668), 0),
    "two_faces_mixed_speech.mp4": (194, (640, 368), 8.042),
    "vp8_vorbis_2997.webm": (240, (480, 270), 7.975),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files(shared, name):
    count, size, last = ODD[name]
    reader = VideoReader(shared(f"data/odd/{name}"))
    times = []
    for frame in reader:
        assert frame.size == size == reader.size
        times.append(frame.time)
    assert len(times) == count == reader.frame_count
    assert (
        times[0] == 0 and all(a < b for a, b in pairwise(times)) and float(times[-1]) == pytest.approx(last, abs=0.001)
    )
    assert reader.is_still == name.endswith(".jpg")


@pytest.mark.parametrize(
    "name",
    ["hevc_vfr_face_leaves.mov", "mpeg1_mp2_broken_start.mpg", "vp8_vorbis_2997.webm", "av1.mkv", "rot90_tiny.mov"],
)
def test_odd_files_backwards(shared, name):
    reader = VideoReader(shared(f"data/odd/{name}"))
    told, first_last = reader.told_times, list(reader)
    assert told == reader.times
    for frame, expected in zip(reader.reversed_frames(), reversed(first_last), strict=True):
        assert same(frame, expected)

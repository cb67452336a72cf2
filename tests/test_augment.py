"""Augmentation keeps sound, picture and landmarks together; noisy sounds are what they say; broken data is named."""

import shutil
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import peak_memory, samples, voice

from datasets.archive import Archive, write_archive
from datasets.augment import FaceChange, degrade_references, draw_change
from datasets.base import BaseDataset
from datasets.clips import load_clips
from datasets.config import AugmentConfig, DataConfig, HRAugmentConfig, HRDataConfig, SyncAugmentConfig
from datasets.frames import memory_bytes
from datasets.hr import HRDataset
from datasets.loader import batches
from errors import InputError
from face.landmark_net import LandmarkNet
from face.sketch import draw_sketch
from media.audio import SAMPLE_RATE, write_flac
from models.config import BaseConfig, HRConfig, SyncConfig
from preprocess.augment_sound import find_recordings
from preprocess.clip_variants import Backgrounds
from preprocess.sound_variants import add_noise, coloured_noise, in_room, loudness, telephone, vary_sound
from speech.windows import audio_windows

STILL = {"flip": 0.0, "colour": 0.0, "shift": 0, "reference_blur": 0.0, "reference_jpeg": 0.0}
STILL_HR = STILL | {"base_blur": 0.0}
MOVES = [
    FaceChange(shift=(3, -2)),
    FaceChange(mirrored=True, shift=(-5, 4)),
    FaceChange(zoom=1.05, shift=(2, 1)),
    FaceChange(mirrored=True, zoom=0.94),
]


def base_item(data: Path, index: int = 5, window: int = 1, **augment: float) -> dict[str, torch.Tensor]:
    config = AugmentConfig(**{**STILL, "silence": 0.0, **augment})
    return samples(
        BaseDataset, DataConfig(str(data), window=window, cache="disk"), config, BaseConfig(references=2), 3
    )[index]


@pytest.mark.parametrize("change", MOVES, ids=str)
@pytest.mark.parametrize("size", [128, 256])
def test_points_go_where_their_pixels_go(change, size):
    face = np.zeros((1, size, size, 3), np.uint8)
    factor = size / 128
    point = np.array([40.0, 90.0])
    x, y = (point + 0.5) * factor - 0.5
    across, down = np.meshgrid(np.arange(size), np.arange(size))
    face[0] = (255 * np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * (2 * factor) ** 2)))[..., None]
    moved = change.faces(face)[0, :, :, 1].astype(float)
    found = np.array([(moved * across).sum(), (moved * down).sum()]) / moved.sum()
    assert np.allclose((found + 0.5) / factor - 0.5, change.points(point), atol=0.1)


def test_whole_pixel_shifts_keep_every_value_and_boxes_stay_boxes(data_set):
    face = load_clips(data_set, "train")[0].faces([0])
    moved = FaceChange(shift=(3, -2)).faces(face)
    assert np.array_equal(moved[:, :126, 3:], face[:, 2:, :125])
    assert np.array_equal(moved[:, 126:, 3:], np.repeat(face[:, -1:, :125], 2, 1))
    box = FaceChange(mirrored=True, shift=(3, -2)).boxes(np.array([[10.0, 20, 30, 50]]))
    assert box.tolist() == [[127 - 33, 18, 127 - 13, 48]]


def test_landmarks_of_a_moved_sample_are_its_moved_landmarks(data_set):
    dataset = samples(
        BaseDataset,
        DataConfig(str(data_set)),
        AugmentConfig(**{**STILL, "flip": 1.0, "shift": 6, "zoom": 0.05, "silence": 0}),
        BaseConfig(audio="mel", audio_window=16),
        0,
    )
    item = dataset[2]
    found = LandmarkNet().landmarks(item["faces"].permute(0, 2, 3, 1).numpy())[0][0]
    lips = found[[61, 291, 0, 17]]  # by the net's own naming, on the mirrored picture
    box = item["lip_box"][0].numpy()
    assert np.allclose(
        box, [lips[:, 0].min() - 10, lips[:, 1].min() - 8, lips[:, 0].max() + 10, lips[:, 1].max() + 8], atol=3
    )


def test_a_shift_moves_no_speech_point_and_a_zoom_scales_them(data_set):
    still, shifted = base_item(data_set), base_item(data_set, shift=8)
    assert torch.allclose(still["speech_points"], shifted["speech_points"], atol=1e-5)
    assert not torch.equal(still["faces"], shifted["faces"]) and torch.equal(still["audio"], shifted["audio"])
    assert np.allclose(FaceChange(mirrored=True, zoom=1.1).motions(np.array([[2.0, 1.0]])), [[-2.2, 1.1]])


def test_all_frames_of_a_window_move_alike_and_samples_depend_on_their_number(data_set):
    still, changed = base_item(data_set, window=5), base_item(data_set, window=5, shift=8)
    moves = {tuple(box) for box in (changed["lip_box"] - still["lip_box"]).round().tolist()}
    assert len(moves) == 1
    everything = {
        "flip": 0.5,
        "colour": 0.2,
        "shift": 4,
        "zoom": 0.1,
        "reference_blur": 0.5,
        "reference_jpeg": 0.5,
        "silence": 0.3,
    }
    for index in (0, 7, 8):
        first, second = base_item(data_set, index, 5, **everything), base_item(data_set, index, 5, **everything)
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("change", ["reference_blur", "reference_jpeg"])
def test_only_references_are_degraded(data_set, change):
    still, changed = base_item(data_set), base_item(data_set, **{change: 1.0})
    assert torch.equal(still["faces"], changed["faces"])
    error = (still["references"].float() - changed["references"].float()).abs()
    assert 0 < error.mean() < 6
    wide = np.ones((1, 64, 64, 3), np.uint8) * np.uint8([200, 40, 10])  # channels keep their order
    config = HRAugmentConfig(**{**STILL_HR, change: 1.0})
    assert np.abs(degrade_references(wide, config, np.random.default_rng(0)).astype(int) - wide).max() <= 6


@pytest.mark.parametrize("kind", [AugmentConfig, HRAugmentConfig, SyncAugmentConfig])
def test_a_zero_switches_every_change_off(kind):
    still = kind(**dict.fromkeys(vars(kind()), 0))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    for seed in range(20):
        assert draw_change(still, np.random.default_rng(seed)) == FaceChange()
        if kind is not SyncAugmentConfig:
            assert np.array_equal(degrade_references(pictures, still, np.random.default_rng(seed)), pictures)


@pytest.mark.parametrize(
    "wrong", [{"flip": 1.5}, {"shift": -1}, {"zoom": 0.9}, {"silence": -0.1}, {"reference_jpeg": 2.0}]
)
def test_impossible_values_are_refused(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is "):
        AugmentConfig(**wrong)


def test_muted_samples_hear_the_same_silence_however_late_in_a_clip_their_mouth_is_closed(data_set, monkeypatch):
    dataset = samples(BaseDataset, DataConfig(str(data_set)), AugmentConfig(**STILL, silence=1.0), BaseConfig(), 0)
    heard = []
    windows = dataset._windows
    monkeypatch.setattr(
        dataset, "_windows", lambda clip, frames, rng: heard.extend(frames) or windows(clip, frames, rng)
    )
    assert len(dataset.moves[0].closed) > 1
    for index in range(8):
        _ = dataset[index]
    assert set(heard) == {-250}


@pytest.mark.parametrize("audio", ["mel", "whisper"])
def test_silence_over_a_window_is_one_closed_mouth_that_hears_nothing(data_set, audio):
    model = BaseConfig(audio=audio, audio_window=16 if audio == "mel" else 18)
    dataset = samples(BaseDataset, DataConfig(str(data_set), window=5), AugmentConfig(**STILL, silence=1.0), model, 0)
    item, closed = dataset[3], dataset.moves[0].closed
    shown = [dataset.store.get(0, closed[k : k + 1])[0] for k in range(len(closed))]
    alike = [[np.array_equal(face.permute(1, 2, 0), one) for one in shown] for face in item["faces"]]
    assert sum(alike[0]) == 1 and all(row == alike[0] for row in alike)
    assert item["audio"].shape[0] == 5 and item["audio"].flatten(1).std(0).max() == 0  # the same in all frames
    if audio == "mel":
        assert (item["audio"] == -4).all()
    else:
        assert torch.equal(
            item["audio"][0], torch.from_numpy(dataset.features[0][0][:1].astype(np.float32)).expand(18, -1)
        )


def test_training_hears_the_window_that_the_weights_are_to_be_fed(data_set):
    config, still = DataConfig(str(data_set)), AugmentConfig(**STILL, silence=0.0)
    shape = BaseConfig(audio="mel", audio_window=16)
    expert = SyncConfig(audio="mel")
    dataset = samples(BaseDataset, config, still, shape, 0, expert, convention="published")
    _, frames = dataset.draw.frames(np.random.default_rng((0, 3)))
    features = dataset.features[0][0]
    wanted = audio_windows(features, frames, Fraction(25), "mel", 16, "published")
    assert np.array_equal(dataset[3]["audio"], wanted)
    assert not np.array_equal(wanted, audio_windows(features, frames, Fraction(25), "mel", 16))
    assert dataset.sync_features[0] is features  # read and held once
    assert "landmarks" not in vars(dataset.store.clips[0])  # 478 points of every frame are not kept


def test_a_container_s_limit_counts(tmp_path):
    ram = memory_bytes(tmp_path / "none")
    for text, expected in (("max\n", ram), ("1000000\n", 1000000), (f"{2 * ram}\n", ram)):
        (tmp_path / "memory.max").write_text(text)
        assert memory_bytes(tmp_path / "memory.max") == expected


def test_stage_two_sees_the_same_from_memory_as_from_disk(painted, tmp_path, monkeypatch):
    copy = shutil.copytree(painted, tmp_path / "large")
    clip = load_clips(copy, "train")[0]
    write_archive(clip.folder / "faces.zip", [cv2.resize(face, (256, 256)) for face in clip.faces(range(50))])

    def make(cache: str) -> HRDataset:
        data = HRDataConfig(str(copy), cache=cache, window=2, min_face_px=0)
        return samples(HRDataset, data, HRAugmentConfig(), HRConfig(scale=1), 0)

    disk, memory = make("disk"), make("memory")
    items = [disk[k] for k in range(8)]
    both = 50 * (128**2 + 128**2) * 3  # faces at the size that is wanted, and those of stage 1
    fitting = {}
    for room in (4 * both, 4 * both - 1):
        monkeypatch.setattr("datasets.frames.memory_bytes", lambda room=room: room)
        fitting[room] = make("auto")
    for name in ("faces.zip", "base.zip"):
        (clip.folder / name).unlink()
    for kept in (memory, fitting[4 * both]):
        for k, item in enumerate(items):
            assert all(torch.equal(value, kept[k][name]) for name, value in item.items())
    with pytest.raises(InputError, match="zip cannot be read any more"):
        fitting[4 * both - 1][0]


def test_a_million_steps_are_not_listed_before_the_first():
    class Numbers(torch.utils.data.Dataset):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"number": torch.tensor(index)}

    with peak_memory() as peak:
        first = next(batches(Numbers(), 32, 1, 200_000, 0, rank=1, processes=2))
        assert peak() < 20e6
    assert first["number"].tolist() == list(range(48, 64))


def test_stage_two_moves_faces_sketch_and_box_together(painted):
    def make(**augment: float) -> dict[str, torch.Tensor]:
        return samples(
            HRDataset,
            HRDataConfig(str(painted), min_face_px=0),
            HRAugmentConfig(**{**STILL_HR, **augment}),
            HRConfig(scale=1),
            0,
        )[4]

    plain, mirrored, moved = make(), make(flip=1.0), make(shift=5)
    for name in ("base", "face", "reference", "sketch"):
        difference = (plain[name].flip(-1).float() - mirrored[name].float()).abs()
        assert difference.max() <= (0 if name != "sketch" else 60)
    across, down = (moved["lip_box"] - plain["lip_box"])[0, :2].round().int().tolist()
    assert (across, down) != (0, 0)
    for name in ("base", "face", "reference"):
        assert torch.equal(moved[name], plain[name].roll((down, across), (-2, -1))) is False
        inner = (..., slice(10, 118), slice(10, 118))
        assert torch.equal(moved[name][inner], plain[name].roll((down, across), (-2, -1))[inner])
    soft = make(base_blur=1.0)
    assert all(torch.equal(soft[name], plain[name]) == (name != "base") for name in plain)
    assert soft["base"].float().diff(dim=-1).abs().mean() < plain["base"].float().diff(dim=-1).abs().mean()
    assert torch.allclose(
        moved["sketch"][inner].float(), plain["sketch"].roll((down, across), (-2, -1))[inner].float(), atol=3
    )


def test_larger_crops_are_reduced_and_sketches_may_be_sparse_or_missing(painted, tmp_path):
    copy = shutil.copytree(painted, tmp_path / "large")
    clip = load_clips(copy, "train")[0]
    small = clip.faces([0, 1])
    write_archive(clip.folder / "faces.zip", [cv2.resize(face, (256, 256)) for face in clip.faces(range(50))])
    assert np.abs(load_clips(copy, "train")[0].faces([0, 1], size=128).astype(int) - small).mean() < 4
    items = [
        samples(
            HRDataset,
            HRDataConfig(str(copy), min_face_px=0),
            HRAugmentConfig(**STILL_HR),
            HRConfig(scale=1, sketch=points, reference=points > 0),
            0,
        )[0]
        for points in (478, 68, 0)
    ]
    assert ["reference" in item for item in items] == [True, True, False]  # nothing is decoded that is not looked at
    assert all(item["face"].shape == (1, 3, 128, 128) for item in items)
    full, sparse, none = (item["sketch"] for item in items)
    assert none.max() == 0 and 0 < (sparse > 0).sum() < (full > 0).sum() and sparse.dtype == torch.uint8
    landmarks = clip.landmarks[0]
    assert np.array_equal(draw_sketch(landmarks, points=478), draw_sketch(landmarks))


def test_noise_stands_at_its_distance_and_delays_nothing():
    rng = np.random.default_rng(0)
    wave = np.concatenate([voice(2), np.zeros(SAMPLE_RATE, np.float32)])  # a pause must not count
    noise = coloured_noise(len(wave), rng)
    added = add_noise(wave, noise, 10.0) - wave
    assert 20 * np.log10(loudness(wave) / np.sqrt(np.mean(added**2))) == pytest.approx(10, abs=0.5)
    assert np.isfinite(add_noise(np.zeros(800), noise[:800], 10)).all() and loudness(np.zeros(800)) == 0
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[4000] = 1
    room = in_room(click, 0.4, 10.0, rng)
    assert np.abs(room).argmax() == 4000 and np.abs(room[:3999]).max() < 1e-6
    tail = room[4001:]
    assert np.sum(tail**2) == pytest.approx(0.1, rel=1e-3)
    first, second = (np.mean(tail[start : start + 800] ** 2) for start in (400, 2000))
    assert 10 * np.log10(first / second) == pytest.approx(60 * 0.1 / 0.4, abs=4)
    assert np.abs(telephone(click)).argmax() == 4000


def test_a_telephone_keeps_only_its_band():
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    for hz, lowest, highest in ((1000, 0.95, 1.05), (75, 0, 0.01), (6800, 0, 0.01)):
        tone = np.sin(2 * np.pi * hz * time)
        assert lowest <= np.std(telephone(tone)[4000:-4000]) / np.std(tone) <= highest


def test_variants_fit_the_sound_and_are_as_the_seed_says():
    wave = voice(1)
    variants = [vary_sound(wave, coloured_noise, np.random.default_rng(seed)) for seed in (*range(8), 0)]
    assert np.array_equal(variants[0], variants[-1]) and not np.array_equal(variants[0], variants[1])
    assert all(
        variant.shape == wave.shape and variant.dtype == np.float32 and np.abs(variant).max() <= 1
        for variant in variants
    )


def test_recorded_backgrounds_are_found_and_heard(data_set, tmp_path, capsys):
    with pytest.raises(InputError, match=f"--noise {tmp_path}: found no sound in it"):
        find_recordings(tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    tone = np.sin(2 * np.pi * 3000 * np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    for name in ("deep/tone.flac", "deep/._tone.flac", ".Trashes/501/tone.flac", "deep/a.wav/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_flac(tmp_path / name, 0.3 * tone)
    with pytest.raises(InputError, match="--noise .*nowhere: found no such folder"):
        find_recordings(tmp_path / "nowhere")
    recordings = find_recordings(tmp_path)
    assert recordings == [tmp_path / "deep" / "tone.flac"]
    assert "warning: left out" in (told := capsys.readouterr().err) and "broken.wav" in told
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "linked").symlink_to(tmp_path / "deep")
    assert find_recordings(tmp_path / "noise") == [tmp_path / "noise" / "linked" / "tone.flac"]
    (clip,) = load_clips(data_set, "train")
    backgrounds = Backgrounds([clip], recordings)  # no other clip: made up or recorded
    spectra = [np.abs(np.fft.rfft(backgrounds(clip, 1600, np.random.default_rng(seed)))) ** 2 for seed in range(40)]
    recorded = sum(spectrum[299:302].sum() > 0.9 * spectrum.sum() for spectrum in spectra)
    assert 10 <= recorded <= 30


def test_other_clips_speak_in_the_background_and_never_the_clip_itself():
    def clip(number: int) -> SimpleNamespace:
        tone = np.sin(2 * np.pi * 1000 * number * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
        return SimpleNamespace(info=SimpleNamespace(id=str(number)), sound=lambda: tone)

    clips, voices = [clip(number) for number in (1, 2, 3)], 0
    backgrounds = Backgrounds(clips, [])
    for seed in range(40):
        spectrum = np.abs(np.fft.rfft(backgrounds(clips[0], 1600, np.random.default_rng(seed)))) ** 2
        own, *others = (spectrum[100 * number - 1 : 100 * number + 2].sum() / spectrum.sum() for number in (1, 2, 3))
        if sum(others) > 0.9:
            voices += 1
            assert own < 0.01
    assert 10 <= voices <= 30


def test_training_hears_the_variants_that_the_command_wrote(data_set, tmp_path, monkeypatch):
    from preprocess.augment_sound import main

    copy = shutil.copytree(data_set, tmp_path / "copy")
    with pytest.raises(InputError, match=r"has no whisper_1.npy; run python -m preprocess.augment_sound --data .*copy"):
        base_item(copy, sound=0.5)

    def run() -> dict[Path, int]:
        monkeypatch.setattr("sys.argv", ["augment_sound", "--data", str(copy), "--variants", "2", "--workers", "1"])
        main()
        return {path: path.stat().st_mtime_ns for path in copy.glob("clips/*/*_[0-9].npy")}

    written = run()
    (clip,) = load_clips(copy, "train")
    assert sorted(path.name for path in written) == ["mel_1.npy", "mel_2.npy", "whisper_1.npy", "whisper_2.npy"]
    assert clip.variants("mel") == 2
    plain, noisy = clip.features("whisper"), clip.features("whisper", 1)
    assert (
        noisy.shape == plain.shape
        and noisy.dtype == plain.dtype
        and np.isfinite(noisy).all()
        and not np.array_equal(plain, noisy)
    )
    assert run() == written  # a second run writes nothing again
    clean = base_item(copy)["audio"]
    heard = [base_item(copy, sound=0.5), base_item(copy, sound=1.0)]
    assert torch.equal(base_item(copy, sound=0.0)["audio"], clean) and not torch.equal(heard[1]["audio"], clean)
    assert torch.equal(heard[1]["faces"], base_item(copy)["faces"])  # the picture is the same
    dataset = samples(BaseDataset, DataConfig(str(copy)), AugmentConfig(sound=0.5), BaseConfig(), 0)
    rng = np.random.default_rng(0)
    drawn = [dataset._windows(0, np.array([20]), rng) for _ in range(200)]
    variants = [audio_windows(features, [20], Fraction(25), "whisper", 18) for features in dataset.features[0]]
    shares = [sum(np.array_equal(sound, variant) for sound in drawn) / 200 for variant in variants]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.12)


def test_damaged_archives_are_named(tmp_path):
    path = tmp_path / "faces.zip"
    images = [np.full((16, 16, 3), value, np.uint8) for value in (10, 90, 200)]
    assert write_archive(path, images) == 3
    archive = Archive(path)
    assert len(archive) == 3 and [picture[0, 0, 0] for picture in archive.pictures([2, 0])] == [200, 10]
    assert archive.pictures([]) == []
    with pytest.raises(InputError, match="holds 3 pictures, number 3"):
        archive.pictures([3])
    content = bytearray(path.read_bytes())
    content[archive._starts[1] : archive._starts[2] - 60] = bytes(archive._starts[2] - 60 - archive._starts[1])
    path.write_bytes(content)
    with pytest.raises(InputError, match="picture 1 of .* is damaged"):
        archive.pictures([1])
    path.write_bytes(b"no zip")
    with pytest.raises(InputError, match="cannot be read"):
        Archive(path)

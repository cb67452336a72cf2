"""Functions and readers of text given anything: what holds for all inputs."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_trust_security import ROW

from datasets.clips import ClipInfo, read_index
from engine.config import load_config
from engine.options import InferenceConfig, TrainBaseConfig, TrainHRConfig
from errors import InputError
from face.smooth import smoothed
from speech.mel import MEL_BANDS, MEL_SILENCE
from speech.rates import MEL_RATE, WHISPER_LEAD, WHISPER_RATE
from speech.windows import audio_window_at, audio_windows, first_feature

fuzz = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

WAYS = [("mel", "centred"), ("mel", "published"), ("whisper", "centred")]
RATE = {"mel": MEL_RATE, "whisper": WHISPER_RATE}
seconds = st.fractions(min_value=-5, max_value=1000, max_denominator=100_000)
lengths = st.integers(1, 40)
rates = st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(24), Fraction(50), Fraction(15), Fraction(1)])


@pytest.mark.parametrize("kind, convention", WAYS)
@fuzz
@given(first=seconds, step=st.fractions(min_value=0, max_value=10, max_denominator=1000), length=lengths)
def test_windows_move_on_with_time_and_surround_it(kind, convention, first, step, length):
    """A later frame's window begins no earlier, and by as much later as time has passed, to a feature; a centred one
    has its middle within a feature of the frame's."""
    begins = first_feature(first, kind, length, convention)
    moved = first_feature(first + step, kind, length, convention) - begins
    assert moved >= 0 and abs(moved - step * RATE[kind]) < (2 if convention == "published" else 1)
    if convention == "centred":
        middle = begins + Fraction(length, 2) - (Fraction(1, 2) if kind == "mel" else 0)
        assert abs(middle - first * RATE[kind]) <= 1


def sound(kind: str, count: int) -> np.ndarray:
    """Features whose value is their number, none of them silent; around Whisper's, those of silence, which are -1."""
    if kind == "mel":
        return np.repeat(np.arange(count, dtype=np.float32)[:, None], MEL_BANDS, 1)
    values = np.full((WHISPER_LEAD + count + 50, 384), -1, np.float32)
    values[WHISPER_LEAD : WHISPER_LEAD + count] = np.arange(count)[:, None]
    return values


@pytest.mark.parametrize("kind, convention", WAYS)
@fuzz
@given(count=st.integers(1, 200), index=st.integers(-20, 400), fps=rates, length=lengths)
def test_a_window_holds_the_sound_of_its_features_and_silence_beyond(kind, convention, count, index, fps, length):
    [window] = audio_windows(sound(kind, count), [index], fps, kind, length, convention)
    assert window.dtype == np.float32 and window.shape == ((1, MEL_BANDS, length) if kind == "mel" else (length, 384))
    begins = first_feature((index + Fraction(1, 2)) / fps, kind, length, convention)
    heard = window[0, 0] if kind == "mel" else window[:, 0]
    numbers = begins + np.arange(length)
    expected = np.where((numbers >= 0) & (numbers < count), numbers, MEL_SILENCE if kind == "mel" else -1)
    np.testing.assert_array_equal(heard, expected)


@pytest.mark.parametrize("kind, convention", WAYS)
@fuzz
@given(count=st.integers(1, 120), frames=st.integers(1, 40), fps=rates, length=lengths)
def test_windows_are_one_a_frame_and_those_of_single_frames(kind, convention, count, frames, fps, length):
    features = sound(kind, count)
    windows = audio_windows(features, frames, fps, kind, length, convention)
    assert len(windows) == frames
    for index in {0, frames // 2, frames - 1}:
        one = audio_window_at(features, (index + Fraction(1, 2)) / fps, kind, length, convention)
        np.testing.assert_array_equal(windows[index], one)


stretches = st.lists(st.none() | st.integers(0, 3), max_size=30)


@fuzz
@given(numbers=stretches, seed=st.integers(0, 1000), gone=st.sets(st.integers(0, 29)))
def test_smoothing_keeps_lengths_means_and_stretches(numbers, seed, gone):
    """As many come out as went in; those of no stretch as they were; the mean of a stretch stays, for the ends stand in
    for their missing neighbours; what happens in one stretch leaves all others as they are."""
    points = list(np.random.default_rng(seed).normal(size=(len(numbers), 4, 2)))
    given_points = [
        None if stretch is None and index in gone else points[index] for index, stretch in enumerate(numbers)
    ]
    out = list(smoothed(zip(given_points, numbers, strict=True)))
    assert len(out) == len(numbers)
    runs: list[list[int]] = []
    for index, stretch in enumerate(numbers):
        if stretch is None:
            assert out[index] is given_points[index]
        elif index and numbers[index - 1] == stretch:
            runs[-1].append(index)
        else:
            runs.append([index])
    for run in runs:
        before, after = (np.stack([part[index] for index in run]) for part in (points, out))
        np.testing.assert_allclose(after.mean(0), before.mean(0), atol=1e-12)
        assert (after >= before.min(0) - 1e-12).all() and (after <= before.max(0) + 1e-12).all()
        moved = [value + 100.0 if index in run else value for index, value in enumerate(points)]
        again = list(smoothed(zip(moved, numbers, strict=True)))
        for index in range(len(numbers)):
            if index not in run:
                np.testing.assert_array_equal(again[index], out[index] if numbers[index] is not None else points[index])


SCHEMAS = [InferenceConfig, TrainBaseConfig, TrainHRConfig]
KEYS = [
    *("face", "audio", "crf", "base", "hr", "model", "data", "optim", "run", "loss", "augment", "preset"),
    *(
        "lr",
        "betas",
        "batch",
        "crop",
        "window",
        "scale",
        "latent_channels",
        "script",
        "precision",
        "max_size",
        "device",
    ),
]
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["light", "published", "auto", "mel", "1e-4", "512x512", "none", "~"])
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner),
    max_leaves=12,
)


anything = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5) | st.integers() | st.none(), trees, max_size=5)
TRAINING = {"run": {"batch": 4, "steps": 9}, "optim": {"lr": 0.1}, "data": {"window": 5}, "precision": "bf16"}
FITTING = {
    InferenceConfig: {"crf": 18, "base": "b", "watermark": True, "face": {"crop": "box"}, "audio": {"track": 1}},
    TrainBaseConfig: TRAINING,
    TrainHRConfig: TRAINING,
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_any_tree_is_a_config_or_one_mistake(tmp_path, schema):
    """Of any keys and values, and of keys that there are, whose values fit or are something else."""
    taken, refused, path = [], [], tmp_path / "a.yaml"
    fits = {key: st.just(value) for key, value in FITTING[schema].items()}
    whole, nearly = (
        st.fixed_dictionaries({}, optional=values)
        for values in (fits, {key: value | trees for key, value in fits.items()})
    )

    @fuzz
    @given(tree=anything | nearly | whole)
    def read(tree):
        path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
        (taken if config_or_mistake(schema, path) else refused).append(tree)

    read()
    assert len([tree for tree in taken if tree]) > 5 < len(refused)


@pytest.mark.parametrize("schema", SCHEMAS)
@fuzz
@given(text=st.text(alphabet="abcf:-[]{}!&*|>'\" \n\t#%@0123456789.~", max_size=60))
def test_any_text_is_a_config_or_one_mistake(tmp_path, schema, text):
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    config_or_mistake(schema, path)


@pytest.mark.parametrize("schema", SCHEMAS)
@fuzz
@given(key=st.sampled_from(KEYS) | st.text(max_size=5), value=st.text(max_size=12) | st.sampled_from(KEYS))
def test_any_override_is_a_config_or_one_mistake(schema, key, value):
    config_or_mistake(schema, None, [f"{key}={value}"])


@pytest.mark.parametrize(
    "text",
    [
        "crf: 2001-01-01",
        "crf: 2001-99-99",
        "audio: {motion_gain: 2001-01-01}",
        f"audio: {{motion_gain: 1{'0' * 400}}}",
        f"crf: {'9' * 5000}",
        "inherit: [a]",
        f"inherit: {'a' * 300}",
        "inherit: a\\0b",
        "crf: " + "[" * 3000,
        "? {a: 1}\n: 2",
        "? [a]\n: 2",
        "a: &a [*a]",
        "crf: !!binary aaa",
        "crf: !!set {1}",
        "face: {crop: [1]}",
        "preset: {a: 1}",
    ],
)
def test_odd_configs_are_one_mistake(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        load_config(InferenceConfig, tmp_path / "a.yaml")


def config_or_mistake(schema: type, path, overrides=()) -> bool:
    """Whether it is a config."""
    try:
        assert isinstance(load_config(schema, path, overrides), schema)
    except InputError as error:
        assert error.problems
        return False
    return True


FIELDS = list(ClipInfo.__dataclass_fields__)
rows = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), leaves | st.lists(leaves, max_size=2))
whole = st.fixed_dictionaries(dict.fromkeys(FIELDS, leaves))
lines = st.text(max_size=30) | st.one_of(rows, whole, leaves, st.lists(leaves, max_size=3)).map(json.dumps)
changed = st.dictionaries(st.sampled_from(FIELDS), leaves, max_size=2).map(lambda values: json.dumps(ROW | values))


def test_any_index_is_clips_or_one_mistake(tmp_path):
    """Of lines of any kind, and of rows in which up to two fields are something else: some of these are taken."""
    taken, refused = [], []

    @fuzz
    @given(texts=st.lists(lines, max_size=5) | st.lists(changed, min_size=1, max_size=2))
    def read(texts):
        (tmp_path / "index.jsonl").write_bytes("\n".join(texts).encode("utf-8", "surrogatepass"))
        try:
            taken.extend(read_index(tmp_path))
        except InputError:
            refused.append(texts)

    read()
    assert len(taken) > 5 < len(refused)
    clips = (tmp_path / "clips").resolve()
    for info in taken:
        assert (clips / info.id).resolve().parent == clips
        assert all(type(value) is str for value in (info.id, info.split, info.source, info.person, info.sha256))
        assert all(type(value) is int for value in (info.fps, info.frames, info.size))
        assert all(math.isfinite(value) for value in (info.seconds, info.face_px, info.offset_ms))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"\0", b"null"])
def test_odd_indexes_are_mistakes(tmp_path, content):
    (tmp_path / "index.jsonl").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_index(tmp_path)

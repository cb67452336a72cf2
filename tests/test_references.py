"""Which frames of a clip become references."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import peak_memory

from datasets.draw import window_starts
from datasets.key_frames import MOUTHS
from datasets.references import (
    HOLD,
    KEY_POSES_DRAWN,
    OWN_FRAMES,
    ClipMoves,
    Portraits,
    References,
    drawn_references,
    spanning_references,
    usual_references,
)
from face.pose import SHAPE

LIP_GAPS = np.random.default_rng(0).permutation(101) / 100
"""Every hundredth from 0 to 1 once."""
STILL = ClipMoves(LIP_GAPS, np.zeros((101, 2)))
RNG = np.random.default_rng(0)
TURNING = ClipMoves(RNG.permutation(200) / 200, np.stack([20 * np.sin(np.arange(200) / 20), np.zeros(200)], 1))
"""A head that turns 20 degrees to either side."""


def looking(lip_gaps: np.ndarray, yaw: np.ndarray | float = 0.0) -> ClipMoves:
    """A clip of these lip gaps whose head looks there, degrees."""
    return ClipMoves(lip_gaps, np.stack([np.broadcast_to(yaw, len(lip_gaps)), np.zeros(len(lip_gaps))], 1))


def drawn(policy: str, clip: ClipMoves, window: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The two mouths of one draw."""
    (frames,) = drawn_references(policy, clip, window, 2, rng).frames
    return frames


def test_references_span_from_closed_to_wide():
    assert LIP_GAPS[spanning_references(STILL, 1)].tolist() == [0]
    assert LIP_GAPS[spanning_references(STILL, 2)] == pytest.approx([0, 0.95])
    assert spanning_references(looking(np.array([0.3])), 2).tolist() == [0, 0]  # a picture has one face
    assert spanning_references(looking(np.array([np.nan, 0.5, np.nan, 0.2])), 2).tolist() == [3, 1]
    # A turned face has to be shut further, and to open wider, to be taken.
    turned = looking(np.array([0.0, 0.1, 0.6, 0.5]), np.array([35.0, 0, -35, 0]))
    assert spanning_references(turned, 2).tolist() == [1, 3]


def test_silence_is_shown_by_the_most_closed_tenth_in_every_pose():
    assert sorted(LIP_GAPS[STILL.closed]) == pytest.approx(np.arange(11) / 100)
    seen = TURNING.only(np.arange(200) % 3 == 0)
    assert not (seen.closed % 3).any() and np.ptp(seen.pose[seen.closed, 0]) > 20


@pytest.mark.parametrize("policy", ["random", "far", "closed", "span", "pose"])
def test_frames_without_a_face_are_no_references(policy):
    rng, seen = np.random.default_rng(3), TURNING.only(np.arange(200) % 3 == 0)
    chosen = [drawn_references(policy, seen, np.arange(5), 2, rng).frames for _ in range(200)]
    assert not any((frames % 3).any() for frames in chosen)
    for rule in ("closed", "first", "pose"):
        assert not (usual_references(rule, seen, 2).frames % 3).any()


def test_windows_begin_where_every_frame_shows_the_face():
    visible = np.array([1, 1, 1, 0, 1, 1], bool)
    assert window_starts(visible, 1).tolist() == [0, 1, 2, 4, 5] and window_starts(visible, 2).tolist() == [0, 1, 4]
    assert (
        window_starts(visible, 3).tolist() == [0]
        and not len(window_starts(visible, 4))
        and not len(window_starts(visible, 7))
    )


@pytest.mark.parametrize("policy", ["far", "span"])
def test_far_references_keep_their_distance(policy):
    rng, window = np.random.default_rng(1), np.arange(40, 45)
    chosen = np.array([drawn(policy, STILL, window, rng) for _ in range(300)])
    assert np.abs(chosen[..., None] - window).min() >= 10
    short = drawn(policy, looking(LIP_GAPS[:2]), np.arange(2), rng)
    assert set(short) <= {0, 1}


def test_training_spans_roughly_and_sometimes_shows_one_frame_twice():
    rng = np.random.default_rng(2)
    chosen = np.array([drawn("span", STILL, np.arange(5), rng) for _ in range(500)])
    same = chosen[:, 0] == chosen[:, 1]
    assert 0.05 < same.mean() < 0.16
    closed, wide = LIP_GAPS[chosen[~same]].T
    assert closed.max() < 0.3 and wide.min() > 0.65 and len(set(closed)) > 10
    assert LIP_GAPS[drawn("closed", STILL, np.arange(5), rng)] == pytest.approx([0, 0.95])


def test_every_rule_gives_fixed_frames_but_pose():
    for rule, frames in (("closed", spanning_references(STILL, 2)), ("first", [0, 0])):
        chosen = usual_references(rule, STILL, 2)
        assert chosen.frames.tolist() == [list(frames)]
        assert chosen.shares.shape == (101, 1, 2) and (chosen.shares == 1).all()


def test_a_clip_that_does_not_turn_has_one_key_pose():
    for lip_gaps in (LIP_GAPS, np.array([0.3]), np.where(np.arange(101) % 3, np.nan, LIP_GAPS)):
        count = len(lip_gaps)
        chosen = usual_references("pose", ClipMoves(lip_gaps, RNG.uniform(-1, 1, (count, 2))), 2)
        gaps = np.sort(lip_gaps[np.isfinite(lip_gaps)])
        ranks = np.array([MOUTHS.closed, MOUTHS.wide]) * (len(gaps) - 1)
        assert lip_gaps[chosen.frames].tolist() == [gaps[ranks.round().astype(int)].tolist()]
        assert (chosen.shares == 1).all()


def test_every_pose_has_a_closed_and_a_wide_mouth_near():
    frames = usual_references("pose", TURNING, 2).frames
    assert 3 <= len(frames) <= 20
    closed, wide = TURNING.lip_gaps[frames].T
    assert np.abs(closed - MOUTHS.closed).max() < 0.15 and np.abs(wide - MOUTHS.wide).max() < 0.25
    assert np.abs(closed - MOUTHS.closed).mean() < 0.05 and np.abs(wide - MOUTHS.wide).mean() < 0.1
    assert np.abs(TURNING.pose[:, None, None] - TURNING.pose[frames]).sum(-1).min(1).max() < 2 * MOUTHS.cell


def test_shares_sum_to_one_favour_the_near_and_never_jump():
    chosen = usual_references("pose", TURNING, 2)
    assert chosen.shares.shape == (200, *chosen.frames.shape) and chosen.shares.dtype == np.float32
    assert chosen.shares.sum(1) == pytest.approx(1, abs=1e-5)
    own = chosen.shares[chosen.frames[:, 0], :, 0]
    assert (own.argmax(1) == np.arange(len(own))).all()
    assert np.abs(np.diff(chosen.shares, axis=0)).max() < 0.7  # the head turns by a degree a frame


def test_stage_2_sees_the_most_closed_mouth_of_the_nearest_pose_and_does_not_switch_at_rest():
    portraits = TURNING.portraits
    assert 3 <= len(portraits.frames) <= 20 and TURNING.lip_gaps[portraits.frames].mean() < 0.25
    assert [portraits.of(frame) for frame in (0, 199)] == portraits.frames[portraits.shown[[0, 199]]].tolist()
    distance = np.linalg.norm(TURNING.pose[:, None] - TURNING.pose[portraits.frames], axis=2)
    own = distance[np.arange(200), portraits.shown]
    assert (own <= distance.min(1) + HOLD).all() and (own > distance.min(1)).any()
    keys = np.sort(TURNING.pose[portraits.frames, 0])
    between = np.stack([keys[:2].mean() + np.random.default_rng(0).uniform(-0.9, 0.9, 60), np.zeros(60)], 1)
    resting = replace(  # of no use as references, so that the key poses stay
        TURNING,
        lip_gaps=np.append(TURNING.lip_gaps, np.full(60, np.nan)),
        pose=np.concatenate([TURNING.pose, between]),
    )
    assert resting.portraits.frames.tolist() == portraits.frames.tolist()
    assert len(set(resting.portraits.shown[200:])) == 1


def test_training_in_the_windows_pose_sees_nothing_near_in_time():
    rng, window = np.random.default_rng(1), np.arange(60, 65)
    for _ in range(50):
        chosen = drawn_references("pose", TURNING, window, 2, rng)
        assert chosen.frames.shape == (KEY_POSES_DRAWN, 2)
        assert chosen.shares.shape == (5, KEY_POSES_DRAWN, 2) and chosen.shares.dtype == np.float32
        assert np.abs(chosen.frames[..., None] - window).min() >= 10
        assert chosen.shares.sum(1) == pytest.approx(1, abs=1e-5)


def test_training_fills_up_a_clip_that_does_not_turn_with_empty_shares():
    chosen = drawn_references("pose", STILL, np.arange(3), 2, np.random.default_rng(2))
    assert (chosen.frames[0] == chosen.frames[1]).all()
    assert (chosen.shares[:, 0] == 1).all() and (chosen.shares[:, 1] == 0).all()


def test_training_draws_other_mouths_each_time():
    rng = np.random.default_rng(3)
    chosen = [drawn_references("pose", TURNING, np.arange(100, 105), 2, rng).frames for _ in range(100)]
    assert len({tuple(frames.ravel()) for frames in chosen}) > 30
    assert 2 <= sum(len(set(frames.ravel())) == 1 for frames in chosen) <= 25  # a portrait has one face


def test_a_long_shot_lends_to_itself_and_that_of_the_portrait_to_short_ones():
    shot = np.repeat([0, 1, 2], [OWN_FRAMES, OWN_FRAMES - 1, OWN_FRAMES + 10])
    yaw = np.repeat([0.0, 30.0, -20.0], np.bincount(shot)) + RNG.uniform(-1, 1, len(shot))
    clip = looking(RNG.permutation(len(shot)) / len(shot), yaw)
    parts, within = clip.lenders(shot)
    home = shot[clip.portrait]
    assert home != 1
    assert [set(shot[frames]) for frames in within] == [{home, 1}, {2 - home}]
    lending = [frames[np.isfinite(part.lip_gaps)] for part, frames in zip(parts, within, strict=True)]
    assert [set(shot[frames]) for frames in lending] == [{home}, {2 - home}]

    chosen = References.joined([usual_references("pose", part, 2) for part in parts], within)
    portraits = Portraits.joined([part.portraits for part in parts], within)
    assert chosen.shares.sum(1) == pytest.approx(1, abs=1e-5)
    for frame in (0, OWN_FRAMES + 1, len(shot) - 1):
        own = {home if shot[frame] == 1 else shot[frame]}
        seen = chosen.shares[frame].any(1)
        assert set(shot[chosen.frames[seen]].ravel()) == own and shot[portraits.of(frame)] in own


def test_one_shot_lends_as_a_clip_does():
    [part], within = TURNING.lenders(np.zeros(200, int))
    assert np.array_equal(within, [np.arange(200)])
    joined, alone = References.joined([usual_references("pose", part, 2)], within), usual_references("pose", TURNING, 2)
    assert (joined.frames == alone.frames).all() and (joined.shares == alone.shares).all()


@pytest.mark.parametrize("shots", [1, 40])
def test_references_of_an_hour_take_memory_in_proportion(shots):
    count = 90_000
    turn = np.radians(25 * np.sin(np.arange(count) / 37))
    across = np.outer(np.cos(turn), SHAPE[:, 0]) - np.outer(np.sin(turn), SHAPE[:, 2])
    rigid = np.stack([across, np.broadcast_to(SHAPE[:, 1], across.shape)], 2)
    lip_gaps, shot = np.random.default_rng(0).permutation(count) / count, np.arange(count) * shots // count
    with peak_memory() as peak:
        parts, within = ClipMoves.of(lip_gaps, rigid, shot).lenders(shot)
        chosen = References.joined([usual_references("pose", part, 2) for part in parts], within)
        portraits = Portraits.joined([part.portraits for part in parts], within)
        assert peak() < 500e6
    assert len(chosen.shares) == len(portraits.shown) == count
    assert (shot[portraits.frames[portraits.shown]] == shot).mean() == (1 if shots == 1 else len(parts) / shots)

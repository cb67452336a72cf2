"""Which frames of a clip the networks see as references of the person."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from datasets.config import ReferencePolicy
from datasets.key_frames import MOUTHS, PORTRAITS, KeyPoses, at_ranks, key_frames, pose_shares
from face.pose import head_pose, smooth_pose
from models.config import ReferenceRule

FAR_FRAMES = 10
"""A far reference lies at least this many frames from the window."""
WIDEST = 0.95
"""Rank, 0..1, of the mouth that counts as a clip's widest: the very widest is often a misplaced landmark."""
CLOSED = 0.1
"""Share of a clip's frames, those with the most closed mouths, that stand for silence."""
NEAR_DRAWN = 0.25
"""In training the share of a clip's frames near a key pose lies between inference's and this one, so that short
clips have many pairs of mouths to show."""
KEY_POSES_DRAWN = 2
"""Key poses that a training sample sees: the two nearest hold nearly all of its shares."""
HOLD = 2.0
"""Degrees: a portrait is left for one that is nearer by this much, so that a head at rest between two sees one."""
OWN_FRAMES = 75
"""A shot of at least so many frames has references of its own: in fewer, no mouth is sure to close and to open wide."""
OWN_SHOTS = 8
"""Most shots that have: maps of their key frames are kept for the whole video, up to 24 MB a shot."""
_TURNED = 0.004
"""Lip gap that a degree of yaw weighs as much as: references should be frontal, too."""
_RANK_SPREAD = 0.2
_SAME = 0.1
"""Probability in training that all spanning references are one frame: a portrait has no other."""


@dataclass(frozen=True)
class ClipMoves:
    """What the choice of references looks at, of each of a clip's n frames.

    lip_gaps (n,): how far the lips open, NaN where a frame is of no use. pose (n, 2): smoothed yaw and pitch in
    degrees, NaN where no frame shows a face.
    """

    lip_gaps: np.ndarray
    pose: np.ndarray

    @classmethod
    def of(cls, lip_gaps: np.ndarray, rigid: np.ndarray, shot: np.ndarray | None = None) -> "ClipMoves":
        """From rigid points (n, 10, 2), NaN where there is no face; shot (n,): see smooth_pose."""
        return cls(lip_gaps, smooth_pose(head_pose(rigid)[:, :2], shot))

    @cached_property
    def closed(self) -> np.ndarray:
        """(m,) int: the frames with the most closed mouths, in whatever pose."""
        return np.flatnonzero(self.lip_gaps <= np.nanquantile(self.lip_gaps, CLOSED))

    @property
    def portrait(self) -> int:
        """The frame with the most closed mouth, a rather frontal one."""
        return int(spanning_references(self, 1)[0])

    @cached_property
    def portraits(self) -> "Portraits":
        """The references of stage 2."""
        frames = key_frames(self.lip_gaps, self.pose, PORTRAITS.ranks(1), PORTRAITS)[:, 0]
        return Portraits(frames, _held(np.linalg.norm(np.nan_to_num(self.pose)[:, None] - self.pose[frames], axis=2)))

    def only(self, usable: np.ndarray) -> "ClipMoves":
        """With references among the `usable` (n,) bool frames alone."""
        return ClipMoves(np.where(usable, self.lip_gaps, np.nan), self.pose)

    def lenders(self, shot: np.ndarray) -> tuple[list["ClipMoves"], list[np.ndarray]]:
        """The clip cut into parts with references of their own, and which of its frames (m,) int are in each.

        shot (n,) int. A long shot lends to itself, since light, background and even the person may be others in the
        next; short ones are in the first part, with the shot of the portrait, which lends to them.
        """
        home = shot[self.portrait]
        count = np.bincount(shot[np.isfinite(self.lip_gaps)])
        longest = np.argsort(-count, kind="stable")[:OWN_SHOTS]
        others = [number for number in longest if number != home and count[number] >= OWN_FRAMES]
        within = [np.flatnonzero(~np.isin(shot, others)), *(np.flatnonzero(shot == number) for number in others)]
        lending = np.where(np.isin(shot, [home, *others]), self.lip_gaps, np.nan)
        return [ClipMoves(lending[frames], self.pose[frames]) for frames in within], within


@dataclass(frozen=True)
class References:
    """Key frames of a clip: `frames` (K, R) are their numbers, R mouths, the most closed first, of each of K key poses.
    `shares` (n, K, R) float32: how much of each a frame's references hold, summing to 1 over K.
    """

    frames: np.ndarray
    shares: np.ndarray

    @classmethod
    def fixed(cls, frames: np.ndarray, count: int) -> "References":
        """The same R `frames` for `count` frames, whatever their pose."""
        return cls(frames[None], np.ones((count, 1, len(frames)), np.float32))

    @classmethod
    def joined(cls, parts: Sequence["References"], within: Sequence[np.ndarray]) -> "References":
        """Those of a whole clip from those of its parts, whose frames have the numbers `within` it."""
        frames, first = _joined_frames([part.frames for part in parts], within)
        shares = np.zeros((sum(map(len, within)), *frames.shape), np.float32)
        for part, numbers, begin in zip(parts, within, first, strict=True):
            shares[numbers, begin : begin + len(part.frames)] = part.shares
        return cls(frames, shares)


@dataclass(frozen=True)
class Portraits:
    """References of stage 2, which lends their very pixels, so they are not mixed: `frames` (K,) are rather closed
    mouths of K key poses, `shown` (n,) int says which of them each frame of the clip sees.
    """

    frames: np.ndarray
    shown: np.ndarray

    def of(self, frame: int) -> int:
        """The number of the frame that this one sees."""
        return int(self.frames[self.shown[frame]])

    @classmethod
    def fixed(cls, frame: int, count: int) -> "Portraits":
        """The same one for `count` frames."""
        return cls(np.array([frame]), np.zeros(count, int))

    @classmethod
    def joined(cls, parts: Sequence["Portraits"], within: Sequence[np.ndarray]) -> "Portraits":
        """Those of a whole clip from those of its parts, whose frames have the numbers `within` it."""
        frames, first = _joined_frames([part.frames for part in parts], within)
        shown = np.zeros(sum(map(len, within)), int)
        for part, numbers, begin in zip(parts, within, first, strict=True):
            shown[numbers] = part.shown + begin
        return cls(frames, shown)


def spanning_references(clip: ClipMoves, count: int) -> np.ndarray:
    """`count` frames: the most closed mouth, and further ones evenly on to the widest; rather frontal ones."""
    turned = _TURNED * np.abs(clip.pose[:, 0])
    chosen = at_ranks(clip.lip_gaps - turned, np.linspace(0, WIDEST, count))
    chosen[0] = np.nanargmin(clip.lip_gaps + turned)
    return chosen


def usual_references(rule: ReferenceRule, clip: ClipMoves, count: int) -> References:
    """The references, `count` mouths, that inference shows of a whole clip; see Feed for the rules."""
    frames = len(clip.lip_gaps)
    if rule == "first":
        return References.fixed(np.flatnonzero(np.isfinite(clip.lip_gaps))[:1].repeat(count), frames)
    if rule == "closed":
        return References.fixed(spanning_references(clip, count), frames)
    chosen = key_frames(clip.lip_gaps, clip.pose, MOUTHS.ranks(count), MOUTHS)
    return References(chosen, pose_shares(clip.pose[chosen], np.nan_to_num(clip.pose)))


def drawn_references(
    policy: ReferencePolicy,
    clip: ClipMoves,
    frames: np.ndarray,
    count: int,
    rng: np.random.Generator,
    rule: KeyPoses = MOUTHS,
) -> References:
    """`count` mouths for the window `frames` (T,) of a clip, in training.

    closed: always the same, the most closed mouth and on to a wide one; random: any; far: any at least FAR_FRAMES away
    (a third of a short clip); span: of the far ones, from a rather closed mouth to a wide one, the order in which
    inference has them; pose: as span, in the KEY_POSES_DRAWN key poses of the largest shares, for what is near in pose
    and in time would show the very mouth that is to be painted.
    """
    if policy == "closed":
        return References.fixed(spanning_references(clip, count), len(frames))
    known = np.isfinite(clip.lip_gaps)
    if policy != "random":
        times = np.arange(len(known))
        distance = np.minimum(np.abs(times - frames[0]), np.abs(times - frames[-1]))
        far = known & (distance >= min(FAR_FRAMES, len(known) // 3))
        known = far if far.any() else known
    choices = np.flatnonzero(known)
    if policy in ("random", "far"):
        return References.fixed(rng.choice(choices, count), len(frames))
    usual = rule.ranks(count) if policy == "pose" else np.linspace(0, WIDEST, count)
    ranks = (usual + rng.uniform(-_RANK_SPREAD, _RANK_SPREAD, count)).clip(0, 1)
    if policy == "pose":
        rule = replace(rule, near=rng.uniform(rule.near, NEAR_DRAWN))
        chosen = key_frames(np.where(known, clip.lip_gaps, np.nan), clip.pose, ranks, rule)
    else:
        chosen = choices[at_ranks(clip.lip_gaps[choices], ranks)][None]
    if rng.random() < _SAME:
        chosen = chosen[:1, :1].repeat(count, 1)
    if policy == "span":
        return References.fixed(chosen[0], len(frames))
    return _largest(chosen, pose_shares(clip.pose[chosen], clip.pose[frames]))


def _joined_frames(chosen: Sequence[np.ndarray], within: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Those `chosen` of each part by their numbers in the whole clip, and where among them each part's begin."""
    frames = [numbers[own] for own, numbers in zip(chosen, within, strict=True)]
    return np.concatenate(frames), np.cumsum([0, *map(len, frames[:-1])])


def _held(distance: np.ndarray) -> np.ndarray:
    """(n,) int: the nearest by distances (n, K) in degrees, left only for one that is nearer by HOLD."""
    shown = distance.argmin(1)
    for frame in range(1, len(shown)):
        before = shown[frame - 1]
        if distance[frame, before] < distance[frame, shown[frame]] + HOLD:
            shown[frame] = before
    return shown


def _largest(chosen: np.ndarray, shares: np.ndarray) -> References:
    """Of key frames (K, R) with shares (T, K, R) KEY_POSES_DRAWN of the largest; fewer are repeated, with no share."""
    order = np.argsort(-shares.mean(0), axis=0, kind="stable")[:KEY_POSES_DRAWN]
    shares = np.take_along_axis(shares, order[None], 1)
    missing = [(0, KEY_POSES_DRAWN - len(order)), (0, 0)]
    return References(
        np.pad(np.take_along_axis(chosen, order, 0), missing, mode="edge"),
        np.pad(shares / shares.sum(1, keepdims=True), [(0, 0), *missing]),
    )

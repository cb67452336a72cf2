"""Which landmark is what: MediaPipe's 478 points, and the 68 points of iBUG that `face_alignment` returns.

"Right" and "left" are the person's own; the right eye is on the left of the picture.
"""

RIGID = (33, 133, 263, 362, 168, 6, 197, 195, 5, 4)
"""Points that speech does not move: eye corners (right outer, inner, left outer, inner), nose from bridge to tip."""

LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
LIPS = LIPS_OUTER + LIPS_INNER
LIP_GAP = (13, 14)
"""Middle of the upper and lower lips' inner rims."""

RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
BROWS = ((46, 53, 52, 65, 55), (70, 63, 105, 66, 107), (276, 283, 282, 295, 285), (300, 293, 334, 296, 336))
NOSE = ((168, 6, 197, 195, 5, 4, 45, 220, 115, 48), (4, 275, 440, 344, 278))
CONTOUR = (
    127,
    234,
    93,
    132,
    58,
    172,
    136,
    150,
    149,
    176,
    148,
    152,
    377,
    400,
    378,
    379,
    365,
    397,
    288,
    361,
    323,
    454,
    356,
)
"""From the right ear under the chin to the left one."""

CLOSED_LINES = (LIPS_OUTER, LIPS_INNER, RIGHT_EYE, LEFT_EYE)
OPEN_LINES = (*BROWS, *NOSE, CONTOUR)

SPEECH_POINTS = (0, 13, 14, 17, 200, 152, 61, 291, 37, 267, 84, 314, 78, 308, 91, 321, 148, 377, 176, 400)
"""Lip and chin points that an audio encoder can learn to predict."""
SPEECH_POINTS_MIRRORED = (0, 1, 2, 3, 4, 5, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14, 17, 16, 19, 18)
"""Order of SPEECH_POINTS in a mirrored picture."""

TO_68 = (
    162,
    234,
    93,
    58,
    172,
    136,
    149,
    148,
    152,
    377,
    378,
    365,
    397,
    288,
    323,
    454,
    389,  # jaw, ear to ear
    71,
    63,
    105,
    66,
    107,
    336,
    296,
    334,
    293,
    301,  # brows
    168,
    197,
    5,
    4,
    75,
    97,
    2,
    326,
    305,  # nose: bridge to tip, then the nostrils' base
    33,
    160,
    158,
    133,
    153,
    144,
    362,
    385,
    387,
    263,
    373,
    380,  # eyes
    61,
    39,
    37,
    0,
    267,
    269,
    291,
    405,
    314,
    17,
    84,
    181,  # outer lips
    78,
    82,
    13,
    312,
    308,
    317,
    14,
    87,  # inner lips
)
"""The point of 478 that stands for each of the 68."""

CORNERS_68 = (36, 39, 45, 42)
"""Eye corners in the order of RIGID's first four."""
BRIDGE_68 = (27, 28, 29, 30)
"""The nose from bridge to tip."""
LIP_GAP_68 = (62, 66)
CLOSED_LINES_68 = (tuple(range(48, 60)), tuple(range(60, 68)), tuple(range(36, 42)), tuple(range(42, 48)))
OPEN_LINES_68 = (tuple(range(17, 22)), tuple(range(22, 27)), (*range(27, 31), *range(31, 36)), tuple(range(17)))

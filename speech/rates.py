"""How many features a second of sound has, and how many stand round those of a whole one. Imports no torch."""

MEL_RATE = 80
"""Mel frames a second; there is one more than a sound's length has."""
WHISPER_RATE = 50
WHISPER_LEAD = 25
"""Features of silence before the sound's first sample (0.5 s)."""
WHISPER_TAIL = 50
"""Features of silence after its last (1 s): Whisper hears the end of a sound better when silence follows."""
SEQUENCES = {"mel": (MEL_RATE, 1), "whisper": (WHISPER_RATE, WHISPER_LEAD + WHISPER_TAIL)}
"""By kind: features a second, and how many there are beside those of a whole sound."""

"""Words that mean nothing, for whatever agents have to remember: a model cannot have met them elsewhere."""

_SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]
WORDS = tuple(sorted({_SYLLABLES[i % 80] + _SYLLABLES[(i * 37 + i // 80 * 11) % 80] for i in range(400)}))
"""400 words of two syllables each, sorted."""

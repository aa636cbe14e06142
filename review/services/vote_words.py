"""How people spell a vote in files: words for left, right, tie and both bad, or the winner's own name.

Must not know the database, screens or models.
"""

import re

from review.protocol.ballots import CHOICES

_WORDS = {
    "left": ("left", "l", "left_better", "a", "model_a", "model_1", "first", "response_a"),
    "right": ("right", "r", "right_better", "b", "model_b", "model_2", "second", "response_b"),
    "tie": ("tie", "ties", "tied", "draw", "equal", "same", "both_good", "both", "tie_good", "tie_both_good", "no_preference"),
    "both_bad": ("both_bad", "bothbad", "tie_bothbad", "tie_both_bad", "tie_bad", "neither", "both_are_bad", "none"),
}
_CHOICE_OF = {word: choice for choice, words in _WORDS.items() for word in words}


def choice_of(said: str, left: str, right: str) -> str:
    """left, right, tie or both_bad; "" where it is none of these. The name of one of the two arms is a vote for it, before any other word.

    A bare number is nothing: 0, 1 and 2 mean different things in different sets.
    """
    said = said.strip()
    if said in CHOICES:
        return said
    if left != right and said in (left, right):
        return "left" if said == left else "right"
    return _CHOICE_OF.get(re.sub(r"[^a-z0-9]+", "_", said.casefold()).strip("_"), "")

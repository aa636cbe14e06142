"""Three training pairs with explanations, shown before a reviewer's first study. Neutral support topics; never counted.

Pure. Must not know the database, the models or the screens.
"""

from dataclasses import dataclass

from review.protocol.ballots import Choice


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """`number` counts from 1. `best` holds every vote that an attentive reader could give; `explanation` says why, whatever was voted."""

    number: int
    prompt: str
    left: str
    right: str
    best: tuple[Choice, ...]
    explanation: str


TRAINING_PAIRS: tuple[TrainingPair, ...] = ()

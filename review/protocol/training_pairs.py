"""Three training pairs with explanations, shown before a reviewer's first study. Neutral support topics; never counted.

Short: they are read in three quarters of a minute, so that the first real vote comes within one of signing in.
Pure. Must not know the database, the models or the screens.
"""

from review.protocol.ballots import TrainingPair

TRAINING_PAIRS: tuple[TrainingPair, ...] = (
    TrainingPair(
        number=1,
        prompt="The e-mail to reset my password never arrives. What can I do?",
        left="We are so sorry for the trouble! Your satisfaction matters to us.",
        right="Please look in your spam folder. If it is not there, choose “Send again” below the password field.",
        best=("right",),
        explanation="The right answer is better: it says what to do. The left one is only friendly.",
    ),
    TrainingPair(
        number=2,
        prompt="My printer says “paper jam”, but I see no paper inside.",
        left="Unplug it, take out the tray, and pull torn pieces of paper from behind the rollers.",
        right="Unplug it, take out the tray, and pour a little water over the rollers.",
        best=("left",),
        explanation="The left answer is better: water would break the printer. Both sound right, so read to the end.",
    ),
    TrainingPair(
        number=3,
        prompt="Can I still change the delivery address of today’s order?",
        left="Orders are delivered within three to five working days.",
        right="You can pay by card, invoice or bank transfer.",
        best=("both_bad",),
        explanation="Both are bad: neither answers the question. Where both would help, choose “Both good”.",
    ),
)

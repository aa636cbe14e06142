"""Three training pairs with explanations, shown before a reviewer's first study. Neutral support topics; never counted.

Pure. Must not know the database, the models or the screens.
"""

from review.protocol.ballots import TrainingPair

TRAINING_PAIRS: tuple[TrainingPair, ...] = (
    TrainingPair(
        number=1,
        prompt="I forgot my password and the reset e-mail never arrives. What can I do?",
        left="Thank you so much for reaching out! We are really sorry for the trouble. Your satisfaction is our highest priority, and our "
        "team is always happy to help. Please feel free to contact us at any time.",
        right="Please look in your spam folder first, and check that you typed the address you signed up with. If nothing arrives within "
        "15 minutes, choose “Send again” below the password field, or tell us your customer number and we reset it for you.",
        best=("right",),
        explanation="The right answer is better: it says what to do next. The left one is friendly, but the customer still cannot sign in. "
        "Ask of each answer: would this solve the problem?",
    ),
    TrainingPair(
        number=2,
        prompt="My printer shows “paper jam”, but I see no paper inside. How do I get rid of the message?",
        left="Switch the printer off and pull its plug. Open the rear cover and take out the paper tray: small torn pieces often sit "
        "behind the rollers. Remove them in the direction of the paper, close everything, and switch it on again.",
        right="Switch the printer off and pull its plug. Open the front cover while it is hot and press the rollers firmly with a metal "
        "ruler until the message disappears. Afterwards pour a little water over the tray to wash out the dust.",
        best=("left",),
        explanation="The left answer is better: its steps are safe and find the usual cause. The right one reads just as fluently, but a "
        "ruler and water would break the printer. Well written is not the same as right, so read to the end.",
    ),
    TrainingPair(
        number=3,
        prompt="Can I still change the delivery address of the order I placed this morning?",
        left="Orders are delivered within three to five working days. You can follow yours with the tracking link in the e-mail that "
        "confirms it.",
        right="We offer many ways to pay: card, invoice and bank transfer. You choose one at the end of the order.",
        best=("both_bad",),
        explanation="Both are bad: neither says whether the address can be changed. “Both bad” is a useful vote, because it shows what the "
        "model has yet to learn; you can then write the answer you would have sent. Where both would help, choose “Both good”.",
    ),
)

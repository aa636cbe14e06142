"""What reviewers are asked beside the vote unless a study says otherwise: criteria and reasons.

Pure. Must not know the database, the models or the screens.
"""

DEFAULT_CRITERIA = ("accuracy", "relevance", "coherence", "brand voice")
DEFAULT_REASONS = ("wrong fact", "missed the question", "too vague", "off-brand tone", "unsafe", "too long", "made-up steps")
SCALES = ("sides", "points")  # left, right or same for each criterion; or 1 to 5 points for each answer

"""The names of the metrics, and what each says, for somebody who has never heard of it. Must not know how they are computed."""

METRICS = ("bleu", "chrf", "rouge1", "rouge2", "rougeL", "meteor")
STEM_METEOR = "meteor_stem"  # what can be computed where WordNet is missing: another metric, so another name
EXACT = "exact"

METRIC_TITLES = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "meteor": "METEOR",
    STEM_METEOR: "METEOR without synonyms",
    EXACT: "Exact match",
}
METRIC_SCALE = {name: 100.0 if name in ("bleu", "chrf") else 1.0 for name in METRIC_TITLES}  # the best possible value
METRIC_WORDS = {
    "bleu": "How many of its words and runs of up to four words also stand in the human's answer. 0 to 100; strict about wording.",
    "chrf": "The same idea by letters instead of words, so a different word ending or a typo costs little. 0 to 100.",
    "rouge1": "How many single words it shares with the human's answer, in any order. 0 to 1; English letters and digits only.",
    "rouge2": "How many pairs of neighbouring words it shares with the human's answer. 0 to 1; English letters and digits only.",
    "rougeL": "How long a chain of the human's words it gives in the same order, gaps allowed. 0 to 1; English letters and digits only.",
    "meteor": "Shared words in order, where synonyms and other endings of a word count too. 0 to 1; English.",
    STEM_METEOR: "Shared words in order, where other endings of a word count too but synonyms do not, since the dictionary WordNet "
    "is not installed. 0 to 1; not comparable with METEOR.",
    EXACT: "The share of answers that are the human's answer word for word. 0 to 1.",
}
INTERVAL_WORDS = (
    "The range says how far the score could move if other prompts of the same kind had been drawn: "
    "about 95 of 100 such ranges hold the true value."
)
CAUTION_WORDS = "All of these compare wording with one human answer. A good answer in other words scores low: what people vote for decides."

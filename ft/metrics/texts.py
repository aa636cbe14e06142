"""Per-prompt sufficient statistics of an answer against its reference, metric by metric, and each metric's signature.

sacreBLEU for BLEU and chrF, google's rouge-score tokens for ROUGE, NLTK for METEOR; all imported where they are used. Must not know
intervals, the database or the screens.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from ft import wordnet
from ft.metrics.words import EXACT, METRIC_TITLES, STEM_METEOR

MAX_CHARACTERS = 50_000  # a longer answer or reference is cut before scoring, and the signature says so
Texts = Sequence[str]
Stats = list[list[float]]


def _sacrebleu(metric: str, answers: Texts, references: Texts) -> tuple[Stats, str]:
    from sacrebleu.metrics import BLEU, CHRF

    scorer: Any = BLEU() if metric == "bleu" else CHRF()
    rows = scorer._extract_corpus_statistics(list(answers), [list(references)])
    return [[float(count) for count in row] for row in rows], str(scorer.get_signature())


def common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, 64 cells a machine word (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for at, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << at
    full = (1 << len(first)) - 1
    row = full
    for token in second:
        match = row & places.get(token, 0)
        row = ((row + match) | (row - match)) & full
    return len(first) - row.bit_count()


def _f(shared: int, answer: int, reference: int) -> float:
    if not shared:
        return 0.0
    precision, recall = shared / answer, shared / reference
    return 2 * precision * recall / (precision + recall)


def _rouge_n(answer: list[str], reference: list[str], n: int) -> float:
    ours = Counter(zip(*(answer[i:] for i in range(n)), strict=False))
    theirs = Counter(zip(*(reference[i:] for i in range(n)), strict=False))
    return _f((ours & theirs).total(), max(ours.total(), 1), max(theirs.total(), 1))


def _rouge_tokens(text: str) -> list[str]:
    from rouge_score.tokenize import tokenize

    return list(tokenize(text, None))


def _rouge(metric: str, answers: Texts, references: Texts) -> tuple[Stats, str]:
    rows = []
    for answer, reference in zip(answers, references, strict=True):
        ours, theirs = _rouge_tokens(answer), _rouge_tokens(reference)
        if metric == "rougeL":
            rows.append([_f(common_length(ours, theirs), len(ours), len(theirs))])
        else:
            rows.append([_rouge_n(ours, theirs, int(metric[-1]))])
    return rows, f"nrefs:1|case:lower|tok:a-z0-9|stem:no|score:f1|like:rouge-score-{version('rouge-score')}"


class _NoSynonyms:
    def synsets(self, word: str) -> tuple[()]:
        return ()


class _Stems:
    """Porter's stemmer, remembering the words it has seen."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stem = lru_cache(maxsize=100_000)(PorterStemmer().stem)


@lru_cache(maxsize=1)
def _stems() -> _Stems:
    return _Stems()


def meteor_of(answer: Sequence[str], reference: Sequence[str], synonyms: Any) -> float:
    """NLTK's METEOR of two token lists (alpha 0.9, beta 3, gamma 0.5)."""
    from nltk.translate.meteor_score import single_meteor_score

    return float(single_meteor_score(reference, answer, stemmer=_stems(), wordnet=synonyms))


def _meteor(metric: str, answers: Texts, references: Texts) -> tuple[Stats, str]:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    synonyms = _NoSynonyms() if metric == STEM_METEOR else wordnet.load()
    words = NLTKWordTokenizer().tokenize
    rows = [[meteor_of(words(answer), words(reference), synonyms)] for answer, reference in zip(answers, references, strict=True)]
    dictionary = "none" if metric == STEM_METEOR else getattr(synonyms, "version", "unknown")
    return rows, f"nrefs:1|case:lower|tok:nltk-word|stem:porter|wordnet:{dictionary}|a:0.9|b:3|g:0.5|version:nltk-{version('nltk')}"


def _exact(metric: str, answers: Texts, references: Texts) -> tuple[Stats, str]:
    rows = [[float(answer.split() == reference.split())] for answer, reference in zip(answers, references, strict=True)]
    return rows, "nrefs:1|case:mixed|space:collapsed"


_STATISTICS: dict[str, Callable[[str, Texts, Texts], tuple[Stats, str]]] = {
    "bleu": _sacrebleu,
    "chrf": _sacrebleu,
    "rouge1": _rouge,
    "rouge2": _rouge,
    "rougeL": _rouge,
    "meteor": _meteor,
    STEM_METEOR: _meteor,
    EXACT: _exact,
}


def statistics(metric: str, answers: Texts, references: Texts) -> tuple[Stats, str]:
    """(one row a prompt, signature). `metric` is one of METRIC_TITLES. Raises Unavailable for "meteor" without WordNet."""
    long = any(len(text) > MAX_CHARACTERS for text in (*answers, *references))
    ours, theirs = ([text[:MAX_CHARACTERS] for text in texts] for texts in (answers, references))
    rows, signature = _STATISTICS[metric](metric, ours, theirs)
    return rows, f"{METRIC_TITLES[metric]}|{signature}" + (f"|cut:{MAX_CHARACTERS}" if long else "")

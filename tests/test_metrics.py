"""Scores equal those of the libraries and papers they are named after; intervals are seeded, paired and cover the truth."""

import json
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ft import metrics, wordnet
from ft.errors import BadInput, Unavailable
from ft.metrics.texts import MAX_CHARACTERS, common_length, meteor_of
from tests.conftest import ROOT, missing, shared

WORDS = ["the", "a", "of", "client", "portal", "settings", "button", "opens", "opening", "opened", "cp-101", "dog", "cats", ".", ",", "!"]


def expected(key: str) -> Any:
    return json.loads(shared("expected.json").read_text())[key]


def texts(draw: random.Random, count: int, longest: int = 25) -> list[str]:
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, longest))) for _ in range(count)]


@pytest.fixture(scope="module")
def dictionary() -> wordnet.WordNet:
    found = wordnet.find()
    if found is None:
        missing("WordNet", "apt install wordnet-base")
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(40))
def test_bleu_and_chrf_are_sacrebleus_corpus_scores(seed: int) -> None:
    import sacrebleu

    draw = random.Random(seed)
    count = draw.choice([1, 2, 5, 40])
    answers, references = texts(draw, count), [text or "x" for text in texts(draw, count)]
    assert metrics.score("bleu", answers, references).value == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score, abs=1e-9)
    assert metrics.score("chrf", answers, references).value == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score, abs=1e-9)


def test_signatures_hold_sacrebleus_own() -> None:
    from sacrebleu.metrics import BLEU, CHRF

    answers, references = ["the cat sat"], ["a cat sat down"]
    for name, scorer, title in (("bleu", BLEU(), "BLEU"), ("chrf", CHRF(), "chrF")):
        scorer.corpus_score(answers, [references])
        assert metrics.score(name, answers, references).signature == f"{title}|{scorer.get_signature()}|bs:1000|rs:12345"


def test_corpus_bleu_is_not_a_mean_of_sentence_scores() -> None:
    answers, references = ["the dog bit the man and ran away .", "no"], ["the dog bit the man and ran away .", "yes"]
    alone = [metrics.score("bleu", [a], [r]).value for a, r in zip(answers, references, strict=True)]
    assert abs(metrics.score("bleu", answers, references).value - sum(alone) / 2) > 5


def test_bleu_of_empty_answers_is_zero() -> None:
    for name in metrics.available():
        scored = metrics.score(name, ["", "", ""], ["The dog bit the man."] * 3)
        assert (scored.value, scored.low, scored.high, scored.n) == (0.0, 0.0, 0.0, 3)


def google_lines() -> tuple[list[str], list[str]]:
    read = [shared("metric_vectors", "google-rouge", name).read_text().splitlines() for name in ("prediction.txt", "target.txt")]
    return read[0], read[1]


def test_rouge_gives_the_values_of_rouge_1_5_5() -> None:
    predictions, targets = google_lines()
    checked = 0
    for case in expected("rouge_google")["cases"]:
        if case.get("stemmer") or case["type"] == "rougeLsum":
            continue
        answer, reference = (predictions[case["line"]], targets[case["line"]]) if "line" in case else (case["hyp"], case["ref"])
        assert metrics.score(case["type"], [answer], [reference]).value == pytest.approx(case["published_r_p_f"][2], abs=6e-5), case
        checked += 1
    assert checked >= 8


def test_rouge_equals_googles_rouge_score_bit_for_bit() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    draw = random.Random(3)
    answers, references = texts(draw, 300, 60), texts(draw, 300, 60)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    theirs = [scorer.score(reference, answer) for answer, reference in zip(answers, references, strict=True)]
    for name in ("rouge1", "rouge2", "rougeL"):
        ours = metrics.score(name, answers, references).statistics
        assert [row[0] for row in ours] == [row[name].fmeasure for row in theirs]


def test_the_longest_common_subsequence_is_that_of_the_usual_table() -> None:
    draw = random.Random(9)
    for _ in range(200):
        first, second = (draw.choices("abcd", k=draw.randrange(80)) for _ in range(2))
        row = [0] * (len(second) + 1)
        for one in first:
            old = row[:]
            for at, other in enumerate(second, 1):
                row[at] = old[at - 1] + 1 if one == other else max(old[at], row[at - 1])
        assert common_length(first, second) == row[-1]


def test_meteor_gives_nltks_published_values(dictionary: wordnet.WordNet) -> None:
    assert dictionary.version == "3.0"
    for case in expected("meteor_nltk")["cases"]:
        best = max(meteor_of(case["hyp"].split(), reference.split(), dictionary) for reference in case["refs"])
        assert best == pytest.approx(case["computed"], abs=1e-6), case["hyp"]
        if "published" in case:
            assert best == pytest.approx(case["published"], abs=6e-5)


def test_meteor_equals_nltks_function_over_the_same_dictionary(dictionary: wordnet.WordNet) -> None:
    from nltk.tokenize.destructive import NLTKWordTokenizer
    from nltk.translate.meteor_score import meteor_score

    words = NLTKWordTokenizer().tokenize
    draw = random.Random(5)
    answers, references = texts(draw, 100), [text or "dog" for text in texts(draw, 100)]
    ours = metrics.score("meteor", answers, references).statistics
    theirs = [meteor_score([words(r)], words(a), wordnet=dictionary) for a, r in zip(answers, references, strict=True)]
    assert [row[0] for row in ours] == theirs


def test_meteor_counts_synonyms_only_with_a_dictionary(dictionary: wordnet.WordNet) -> None:
    answer, reference = ["the automobile is quick"], ["the car is fast"]
    assert metrics.score("meteor", answer, reference).value > metrics.score(metrics.STEM_METEOR, answer, reference).value
    assert "wordnet:3.0" in metrics.score("meteor", answer, reference).signature
    assert "wordnet:none" in metrics.score(metrics.STEM_METEOR, answer, reference).signature


def test_meteor_is_the_same_from_many_threads(dictionary: wordnet.WordNet) -> None:
    words = (
        [line.split()[0] for line in (wordnet.DEBIAN / "index.noun").read_text().splitlines()[2000:4000:7]]
        if wordnet.DEBIAN.exists()
        else WORDS
    )
    answers = [" ".join(words[i : i + 8]) for i in range(0, len(words) - 8, 8)]
    references = answers[1:] + answers[:1]
    alone = metrics.score("meteor", answers, references).statistics
    dictionary.synsets.cache_clear()
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda _: metrics.score("meteor", answers, references).statistics, range(6)))
    assert all(rows == alone for rows in together)


def test_without_wordnet_the_metric_has_another_name_and_the_message_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordnet, "find", lambda: None)
    assert metrics.available() == ("bleu", "chrf", "rouge1", "rouge2", "rougeL", metrics.STEM_METEOR)
    with pytest.raises(Unavailable, match="apt install wordnet-base"):
        metrics.score("meteor", ["a"], ["a"])


def test_a_folder_without_the_dictionary_is_no_wordnet(tmp_path: Path) -> None:
    code = "from ft import metrics; print(metrics.available()[-1])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
                         env={"WNSEARCHDIR": str(tmp_path), "NLTK_DATA": str(tmp_path), "HOME": str(tmp_path), "PATH": ""})  # fmt: skip
    assert run.stdout.strip() in (metrics.STEM_METEOR, "meteor")  # "meteor" where NLTK's own data is installed for everybody


def test_nltks_own_copy_of_wordnet_serves_as_well(dictionary: wordnet.WordNet, tmp_path: Path) -> None:
    if not wordnet.DEBIAN.exists():
        pytest.skip("there is no Debian copy to lay out as NLTK's")
    folder = tmp_path / "corpora" / "wordnet"
    shutil.copytree(wordnet.DEBIAN, folder, ignore=shutil.ignore_patterns("pixmaps", "bin", "wnres"))
    (folder / "lexnames").write_text("".join(f"{i:02}\t{name}\t{part}\n" for i, (name, part) in enumerate(wordnet._LEXNAMES)))
    (folder / "index.sense").write_text("")
    code = "from ft import metrics; s = metrics.score('meteor', ['the automobile is quick'], ['the car is fast']); print(s.value)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
                         env={"WNSEARCHDIR": str(tmp_path), "NLTK_DATA": str(tmp_path), "HOME": str(tmp_path), "PATH": ""})  # fmt: skip
    assert float(run.stdout) == metrics.score("meteor", ["the automobile is quick"], ["the car is fast"]).value


def test_exact_match_ignores_only_white_space() -> None:
    assert metrics.score(metrics.EXACT, ["a  b", "A b", "a b"], ["a b\n", "a b", "a c"]).value == pytest.approx(1 / 3)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    draw = random.Random(1)
    answers, references = texts(draw, 50), [text or "x" for text in texts(draw, 50)]
    one, again = (metrics.score("rougeL", answers, references) for _ in range(2))
    other = metrics.score("rougeL", answers, references, seed=1)
    assert (one.low, one.high) == (again.low, again.high) != (other.low, other.high)
    assert one.low < one.value < one.high
    assert one.signature.endswith("|bs:1000|rs:12345")


def test_resampled_bleu_is_sacrebleu_of_the_resampled_texts() -> None:
    """The interval re-adds statistics; here the same resamples are scored from their texts by sacrebleu."""
    import sacrebleu

    draw = random.Random(2)
    answers, references = texts(draw, 12), [text or "x" for text in texts(draw, 12)]
    for name, scorer in (("bleu", sacrebleu.corpus_bleu), ("chrf", sacrebleu.corpus_chrf)):
        scored = metrics.score(name, answers, references)
        counts = np.random.default_rng(metrics.SEED).multinomial(12, np.full(12, 1 / 12), size=metrics.RESAMPLES)
        values = []
        for row in counts:
            chosen = np.repeat(np.arange(12), row)
            values.append(scorer([answers[i] for i in chosen], [[references[i] for i in chosen]]).score)
        assert (scored.low, scored.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-9)


def test_intervals_hold_the_truth_about_95_times_in_100() -> None:
    draw = np.random.default_rng(8)
    held = 0
    for _ in range(400):
        rows = draw.beta(2, 5, size=(60, 1)).tolist()
        low, high = metrics.interval("rougeL", rows, resamples=400)
        held += low <= 2 / 7 <= high
    assert 0.90 <= held / 400 <= 0.98


def test_pairing_finds_a_small_steady_difference_that_separate_intervals_hide() -> None:
    draw = np.random.default_rng(4)
    hard = draw.uniform(0, 1, size=80)
    base = [[float(x)] for x in hard * 0.8]
    ours = [[float(x * 0.8 + 0.03 + n)] for x, n in zip(hard, draw.normal(0, 0.02, 80), strict=True)]
    difference = metrics.paired("rougeL", ours, base)
    assert difference.clear
    assert difference.value == pytest.approx(metrics.value_of("rougeL", ours) - metrics.value_of("rougeL", base))
    assert metrics.interval("rougeL", ours)[0] < metrics.interval("rougeL", base)[1]
    assert metrics.paired("rougeL", base, ours).value == -difference.value
    same = metrics.paired("rougeL", ours, ours)
    assert (same.value, same.low, same.high, same.clear) == (0, 0, 0, False)


def test_one_prompt_tells_nothing_of_others() -> None:
    scored = metrics.score("bleu", ["the dog bit the man ."], ["the dog bit the man ."])
    assert (scored.value, scored.low, scored.high) == (pytest.approx(100), 0, 100)
    difference = metrics.paired("rougeL", [[1.0]], [[0.0]])
    assert (difference.low, difference.high, difference.clear) == (-1, 1, False)


def test_what_cannot_be_scored_says_why() -> None:
    for answers, references in ([], []), (["a"], []), (["a"], ["a", "b"]):
        with pytest.raises(BadInput):
            metrics.score("bleu", answers, references)
    with pytest.raises(BadInput, match="Known metrics"):
        metrics.score("bertscore", ["a"], ["a"])
    with pytest.raises(BadInput, match="cannot be paired"):
        metrics.paired("rougeL", [[1.0]], [[1.0], [0.0]])


@pytest.mark.hostile
def test_an_endless_answer_is_cut_said_so_and_scored_in_time() -> None:
    import time

    draw = random.Random(6)
    long = " ".join(draw.choices([*WORDS, *map(str, range(500))], k=200_000))
    for name in metrics.available():
        started = time.perf_counter()
        scored = metrics.score(name, [long, "short"], ["the client opens", long])
        assert time.perf_counter() - started < 10, name
        assert f"|cut:{MAX_CHARACTERS}" in scored.signature


def test_every_metric_is_explained_in_plain_words() -> None:
    for name in (*metrics.METRICS, metrics.STEM_METEOR, metrics.EXACT):
        words = metrics.METRIC_WORDS[name]
        assert words.endswith(".")
        assert f"0 to {metrics.METRIC_SCALE[name]:g}" in words
        for jargon in ("n-gram", "precision", "recall", "F1", "corpus", "token"):
            assert jargon not in words

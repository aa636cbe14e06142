"""What is the same prompt, what is nearly the same, which split it gets, and which personal data the rules find."""

import json
import random
import time
from collections import Counter

import pytest

from ft.curate import KINDS, Known, New, Placed, content_hash, find, mask, near, place, split_of
from ft.records import Record, read
from tests.conftest import shared

PROMPT = "Since this morning the client says CP-101 and the light turns amber, what can I do?"


def new(text: str, split: str | None = None) -> New:
    return New(text, content_hash(text), split)


@pytest.mark.parametrize(
    "other",
    [
        PROMPT.upper(),
        f"  {PROMPT.replace(' ', '   ')}\n",
        PROMPT.replace(" ", "\u00a0"),
        PROMPT.replace("CP", "ＣＰ"),
        PROMPT.replace("light", "l\u0131ght").replace("\u0131", "i"),
    ],
)
def test_case_space_and_unicode_form_do_not_make_another_prompt(other: str) -> None:
    assert content_hash(other) == content_hash(PROMPT)


def test_the_hash_keeps_instruction_and_input_apart() -> None:
    assert content_hash("a", "b") != content_hash("a b") != content_hash("b", "a")


@pytest.mark.hostile
@pytest.mark.parametrize(
    "other",
    [
        PROMPT.replace("this morning", "today morning"),
        PROMPT.replace("client", "cleint").replace(",", ""),
        f"Hello! {PROMPT}",
        PROMPT.replace("amber", "amber!!"),
        PROMPT.lower().replace(" ", "\u2003"),
    ],
)
def test_a_near_duplicate_of_a_test_prompt_joins_the_test_set_whatever_it_names(other: str) -> None:
    home = Known(PROMPT, "its-cluster", "test")
    for named in (None, "train", "validation"):
        assert place([new(other, named)], [home]) == [Placed("its-cluster", "test", moved=named is not None)]


def test_an_unrelated_prompt_stays_where_it_wants_to_be() -> None:
    home = Known(PROMPT, "its-cluster", "test")
    [placed] = place([new("How do I add a second seat to my plan?", "train")], [home])
    assert placed == Placed(content_hash("How do I add a second seat to my plan?"), "train")


def test_a_chain_of_near_duplicates_is_one_cluster_with_one_split() -> None:
    words = PROMPT.split()
    chain = [" ".join(words[i:] + ["please"] * i) for i in range(4)]
    placed = place([new(text) for text in chain])
    assert len({p.cluster for p in placed}) == 1
    assert len({p.split for p in placed}) == 1


def test_the_strictest_named_split_wins_in_a_cluster() -> None:
    placed = place([new(PROMPT, "train"), new(f"{PROMPT} Thanks", "test"), new(f"Hi. {PROMPT}", "validation")])
    assert [(p.split, p.moved) for p in placed] == [("test", True), ("test", False), ("test", True)]


def test_between_known_clusters_the_test_one_wins() -> None:
    known = [Known(f"Hi. {PROMPT}", "a-train", "train"), Known(f"{PROMPT} Thanks", "z-test", "test")]
    assert place([new(PROMPT)], known)[0] == Placed("z-test", "test")


def test_a_split_is_for_life_and_shares_are_80_10_10() -> None:
    counts = Counter(split_of(f"cluster {i}") for i in range(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.8, abs=0.01)
    assert counts["validation"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert split_of("4d61df060cd015e892d2aec2de887408") == "train"  # written down: a change here would move every team's test set


def leaks_of(known: list[Known]) -> int:
    train, test = ([k.text for k in known if k.split == split] for split in ("train", "test"))
    assert len(test) > 200
    return len(near(train, test))


def test_clusters_keep_near_duplicates_out_of_the_test_set_over_any_number_of_imports() -> None:
    """Control: splitting each row by its own hash, as is usual, leaks. What is left here lies between clusters that had their places
    already; a snapshot leaves it out."""
    rows = [r.instruction for r in read(shared("banking77", "train.csv")) if isinstance(r, Record)][:3000]
    usual = leaks_of([Known(text, "", split_of(content_hash(text))) for text in rows])
    at_once = leaks_of([Known(text, p.cluster, p.split) for text, p in zip(rows, place([new(t) for t in rows]), strict=True)])
    random.Random(4).shuffle(rows)
    known: list[Known] = []
    for start in range(0, len(rows), 1000):
        batch = [new(text) for text in rows[start : start + 1000]]
        known += [Known(n.text, p.cluster, p.split) for n, p in zip(batch, place(batch, known), strict=True)]
    assert usual > 50
    assert at_once == 0
    assert leaks_of(known) < usual / 4


def test_ten_thousand_prompts_are_placed_in_seconds() -> None:
    rows = [new(r.instruction) for r in read(shared("banking77", "train.csv")) if isinstance(r, Record)]
    started = time.perf_counter()
    placed = place(rows)
    assert time.perf_counter() - started < 10
    assert max(Counter(p.cluster for p in placed).values()) < 100


def test_texts_without_letters_and_very_short_ones_have_a_cluster_too() -> None:
    placed = place([new(text) for text in ("?", "!", "a", "ok", "日本", "👍🏽", "x" * 200_000)])
    assert all(p.cluster and p.split for p in placed)
    assert len({p.cluster for p in placed}) == 7
    assert place([]) == []
    assert near([], ["a"]) == set()


FINDINGS = {
    "email": ["write to bob.smith+x@mail.example.co.uk please", "<jo@x.io>"],
    "phone": ["call +49 30 901820", "my number is (415) 555-2671.", "0044 20 7946 0958 or +44 20 7946 0958"],
    "card": ["4111 1111 1111 1111", "card 5500-0000-0000-0004 declined", "378282246310005"],
    "iban": ["DE89 3704 0044 0532 0130 00", "pay GB29NWBK60161331926819 now"],
    "ip": ["from 8.8.8.8.", "2001:4860:4860::8888 is down"],
    "ssn": ["SSN 078-05-1120"],
    "secret": ["password: hunter22", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1" * 18, "-----BEGIN RSA PRIVATE KEY-----", "api_key = 9f8e7d6c5b"],
}
CLEAN = [
    "order 4111 1111 1111 1112 was late",  # fails Luhn
    "DE89 3704 0044 0532 0130 01",  # fails mod 97
    "the gateway is 10.148.0.0/22, 192.168.1.1 or 127.0.0.1",
    "version 1.2.3.4.5 of the client, error CP-101, port 8443",
    "your password is required, and a token is missing",
    "{{Order Number}} for {{Email}}",
    "10:30:45 on 2026-11-03, ratio 3:4",
    "::",
]


@pytest.mark.parametrize("kind", FINDINGS)
def test_personal_data_is_found_and_masked(kind: str) -> None:
    assert kind in KINDS
    for text in FINDINGS[kind]:
        found = find(text)
        assert kind in {f.kind for f in found}, text
        assert f"[{kind}]" in mask(text)
        assert kind not in {f.kind for f in find(mask(text))}


@pytest.mark.parametrize("text", CLEAN)
def test_what_only_looks_like_personal_data_is_left_alone(text: str) -> None:
    assert find(text) == []
    assert mask(text) == text


def test_rules_find_every_card_ssn_email_and_address_of_presidios_samples() -> None:
    rows = json.loads(shared("presidio_pii", "generated_small.json").read_text())
    wanted = {"CREDIT_CARD": "card", "US_SSN": "ssn", "EMAIL_ADDRESS": "email", "IP_ADDRESS": "ip", "PHONE_NUMBER": "phone"}
    there, hit = Counter[str](), Counter[str]()
    for row in rows:
        found = find(row["full_text"])
        for span in row["spans"]:
            if kind := wanted.get(span["entity_type"]):
                there[kind] += 1
                hit[kind] += any(f.kind == kind and f.start < span["end_position"] and f.end > span["start_position"] for f in found)
        assert all(any(f.start < s["end_position"] and f.end > s["start_position"] for s in row["spans"]) for f in found), row["full_text"]
    assert {kind: hit[kind] for kind in ("card", "ssn", "email", "ip")} == {kind: there[kind] for kind in ("card", "ssn", "email", "ip")}
    assert hit["phone"] >= 4  # of 10 invented numbers from many countries: what docs/data.md promises, and no more


@pytest.mark.hostile
def test_no_text_makes_the_rules_slow() -> None:
    for text in ("1" * 100_000, "a@" * 50_000, "1 " * 50_000, "a." * 50_000 + "@", ":" * 100_000, "DE89 " * 20_000, "eyJ" + "a-" * 50_000):
        started = time.perf_counter()
        find(text)
        assert time.perf_counter() - started < 5, text[:10]

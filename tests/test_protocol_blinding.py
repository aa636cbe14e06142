"""What gives an arm away, and what must not be taken for it."""

import unicodedata

import pytest
from scipy.stats import binomtest

from ft.fields import conversation
from review.protocol.blinding import MODEL_NAMES, draw_sides, identity_words, new_id, prompt_text, shown_text, telling


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_built_in_name_is_found_in_any_case(name: str) -> None:
    for text in (f"I am {name}.", f"({name.upper()})", f"made with {name.lower()}, of course"):
        assert name in identity_words(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm SmolLM2-135M, happy to help.",
        "I am Smol LM.",
        "ＯｐｅｎＡＩ made me.",
        "O\u200bpen\u00adAI made me.",
        "ÓpénAI made me.",
        "ОреnАI made me.",  # Cyrillic О, р, е, А
        "Built on llama3.1-8b.",
        "gpt‑4 wrote this",  # non-breaking hyphen
        "As an AI language model developed by",
        "As an AI language model developed by researchers, I cannot.",
        "I am an AI assistant built by TechSolutions.",
        "I was trained by a team at Google.",
        "I'm Claude.",
        "**SmolLM**, Smol**LM** and `gpt-4`",
        "My name is Gemini and",
        "Google's language model",
    ],
)
def test_a_tell_is_found_however_it_is_written(text: str) -> None:
    assert identity_words(text)


@pytest.mark.parametrize(
    "text",
    [
        "Sign in with Google or Microsoft, then open Gemini Street 4.",
        "Claude from billing will call you. Apple devices need iOS 17.",
        "A phishing mail; the falcon flies; bloom filters; metadata; philosophy.",
        "The llamas graze. Gemma from sales will call.",
        "Update the base station. The human agent answers.",
        "This product was developed by TechSolutions.",
        "The AI features are described in chapter 3.",
        "The package was provided by Microsoft Store.",
        "I am Googling it. I'm applying the patch.",
    ],
)
def test_ordinary_support_text_is_no_tell(text: str) -> None:
    assert identity_words(text, ["base", "human", "v3"]) == ()


def test_given_names_are_found_whole_with_free_separators_and_versions() -> None:
    names = ["connectpro-v3", "meta-llama/Llama-3.1-8B-Instruct"]
    assert identity_words("Ask ConnectPro V3 about it", names) == ("connectpro-v3",)
    assert identity_words("Ask connectpro_v3.", names) == ("connectpro-v3",)
    assert identity_words("ConnectPro is the product. connectpro-v31 is not it.", names) == ()
    assert "meta-llama/Llama-3.1-8B-Instruct" in identity_words("meta llama / llama 3.1 8b instruct", names)


def test_a_name_the_prompts_speak_of_is_the_subject_and_no_tell() -> None:
    assert telling(["connectpro", "winter-lora", "base"], ["How do I install ConnectPro 5?", "Hello"]) == ("winter-lora",)


def test_shown_text_leaves_no_trace_of_line_ends_padding_or_control_characters() -> None:
    assert shown_text("\r\n a  \r\nb\t\n\n") == shown_text("a\nb") == "a\nb"
    assert shown_text("x\x00\x1b[31m\ud800y") == "x[31my"
    assert shown_text("  keeps\n  inner indents") == "keeps\n  inner indents"


def test_a_prompt_is_its_instruction_then_its_input() -> None:
    assert prompt_text("Fix it.", "Log: 1") == "Fix it.\n\nLog: 1"
    assert prompt_text("Fix it.", "  ") == "Fix it."


def test_an_imported_conversation_is_read_in_the_order_it_was_held() -> None:
    _, earlier, _ = conversation(
        [{"role": role, "content": said} for role, said in (("user", "Hello"), ("assistant", "Hi"), ("user", "So?"))]
    )
    assert prompt_text("So?", earlier) == "Customer: Hello\nAgent: Hi\n\nCustomer: So?"


def test_ids_are_random_and_never_repeat() -> None:
    ids = {new_id() for _ in range(10_000)}
    assert len(ids) == 10_000
    assert min(map(len, ids)) >= 24


def test_sides_are_a_fair_coin() -> None:
    lefts = sum(draw_sides("a", "b") == ("a", "b") for _ in range(10_000))
    assert binomtest(lefts, 10_000).pvalue > 0.001


def test_every_control_character_and_surrogate_is_left_out_and_nothing_else() -> None:
    everything = [chr(code) for code in range(0x110000) if chr(code) != "\r"]
    kept = set(shown_text("x" + "x".join(everything) + "x"))
    assert set(everything) - kept == {c for c in everything if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"}


def test_a_conversation_names_its_speakers_and_leaves_out_the_system_prompt_and_empty_turns() -> None:
    turns = [
        {"role": "system", "content": "You are SmolLM."},
        {"role": "user", "content": "Slow."},
        {"role": "assistant", "content": "Since when?"},
        {"role": "user", "content": " "},
        {"content": "nobody"},
    ]
    assert prompt_text("Monday.", "Log", turns) == "Customer:\nSlow.\n\nWe answered:\nSince when?\n\nCustomer:\nMonday.\n\nLog"
    assert prompt_text("Monday.", "", turns[:1]) == "Monday."

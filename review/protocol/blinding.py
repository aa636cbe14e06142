"""Sides, random ids, what a reviewer may see, and the words that would give an arm away.

Pure. Must not know the database, the models or the screens.
"""

import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeVar

from review.protocol.ballots import EMPTY as EMPTY

T = TypeVar("T")
SPEAKERS = {"user": "Customer", "assistant": "We answered"}
EARLIER = ("Customer: ", "Agent: ")  # how an imported chat begins, whose earlier turns are the prompt's input
VOIDED = "This pair cannot be compared and was set aside. Go on with the next pair."

# Names no support answer uses for anything but a language model or its maker.
MODEL_NAMES = (
    "SmolLM", "Smol LM", "Hugging Face", "Llama", "TinyLlama", "Vicuna", "OpenAI", "ChatGPT", "GPT-2", "GPT-3", "GPT-3.5", "GPT-4",
    "GPT-4o", "GPT-5", "GPT-J", "GPT-NeoX", "Anthropic", "Mistral AI", "Mistral-7B", "Mixtral", "Qwen", "DeepSeek", "DeepMind",
    "Meta AI", "Cohere AI", "EleutherAI", "Pythia", "StableLM", "Stability AI", "WizardLM", "xAI", "Moonshot AI", "ChatGLM",
    "InternLM", "OLMo", "Nemotron",
)  # fmt: skip
# Names that are also products or ordinary words ("sign in with Google"): a tell only where the answer speaks of itself.
_MAKERS = (
    r"(?:google|meta|microsoft|apple|amazon|nvidia|alibaba|baidu|ibm|cohere|mistral|claude|gemini|bard|phi|falcon|gemma|alpaca|grok|copilot|bloom"
    r"|open ?ai|anthropic|hugging ?face|deepseek)"
)
_MADE = r"(?:developed|trained|created|made|built|designed|fine-?tuned|released|powered|provided) (?:\w+ )?by\b"
_SELF = (
    rf"\b(?:i am|i'm|my name is|call me) (?:an? |the )?{_MAKERS}(?![\w'])",
    rf"\b(?:ai|language|chat) ?(?:language )?(?:model|assistant|bot)s? (?:(?:that|which) (?:is|was) )?{_MADE}(?: \w+)?",
    rf"\bi (?:am|was|have been) (?:an? [\w -]{{0,40}})?{_MADE} (?:[\w']+ ){{0,4}}{_MAKERS}(?![\w'])",
    rf"\b{_MAKERS}'s (?:large )?(?:ai|language) (?:model|assistant)",
)
# Words people use as arm names that name nothing by themselves.
_SAY_NOTHING = {
    "base", "human", "adapter", "model", "tuned", "demo", "test", "new", "old", "agent", "support", "assistant", "baseline", "default",
    "candidate", "current", "final", "reference",
}  # fmt: skip
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters and lone surrogates
_LOOKALIKES = str.maketrans("авеіјкмнорсԛѕтухьαβεικνορτυχ’‘ʼ‐‑‒–—−_", "abeijkmhopcqstyxbabeiknoptux'''-------")


def new_id() -> str:
    """A random id of 144 bits that says nothing about what it names."""
    return secrets.token_urlsafe(18)


def draw_sides(first: T, second: T) -> tuple[T, T]:
    """(left, right) by a cryptographic coin."""
    return (first, second) if secrets.randbelow(2) else (second, first)


def shown_text(text: str) -> str:
    """An answer as every reviewer sees it: the same treatment for both sides, no trace of how a model pads its lines."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _UNSHOWN.sub("", text)
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def prompt_text(instruction: str, input_text: str = "", history: Iterable[Mapping[str, str]] = ()) -> str:
    """The prompt as a reviewer reads it: the instruction, then its input where there is one; a conversation with who said what.

    Only what customer and support said is shown of earlier turns: a system prompt may name the model. What was said first is read first.
    """
    asked = "\n\n".join(part for part in (shown_text(instruction), shown_text(input_text)) if part)
    turns = [f"{SPEAKERS[role]}:\n{said}" for turn in history if (role := turn.get("role", "")) in SPEAKERS
             if (said := shown_text(str(turn.get("content", ""))))]  # fmt: skip
    if not turns and is_talk(input_text):
        return f"{shown_text(input_text)}\n\n{EARLIER[0]}{shown_text(instruction)}"
    return "\n\n".join([*turns, f"{SPEAKERS['user']}:\n{asked}"]) if turns else asked


def is_talk(input_text: str) -> bool:
    """Whether a prompt's input is what was said before in a conversation."""
    return input_text.startswith(EARLIER)


def fold(text: str) -> str:
    """Text for matching: compatibility forms, accents, case, emphasis, invisible and look-alike letters made equal."""
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    text = "".join(c for c in text if c not in "*`~" and unicodedata.category(c) not in ("Mn", "Me", "Cf"))
    return re.sub(r"\s+", " ", text.translate(_LOOKALIKES))


@lru_cache(maxsize=4096)
def _pattern(name: str) -> re.Pattern[str] | None:
    """The name as a whole word, its separators free ("smol-lm", "SmolLM 2"), a version number allowed behind it."""
    parts = re.findall(r"[^\W\d]+|\d+", fold(name))
    if len("".join(parts)) < 3 or " ".join(parts) in _SAY_NOTHING:
        return None
    body = r"[\s.\-/]*".join(re.escape(part) for part in parts)
    version = r"(?:[\s.\-]?v?\d+(?:\.\d+)*b?)?" if not parts[-1].isdigit() else ""
    return re.compile(rf"(?<![^\W_]){body}{version}(?![^\W_])")


_SELF_PATTERNS = tuple(re.compile(pattern) for pattern in _SELF)


def identity_words(text: str, names: Iterable[str] = ()) -> tuple[str, ...]:
    """The built-in and given names found in an answer, and phrases in which it names its maker. Empty: nothing gives it away."""
    folded = fold(text)
    found = [name for name in dict.fromkeys((*names, *MODEL_NAMES)) if (pattern := _pattern(name)) and pattern.search(folded)]
    phrases = [match.group(0).strip() for pattern in _SELF_PATTERNS if (match := pattern.search(folded))]
    return tuple(dict.fromkeys((*found, *phrases)))


def telling(names: Iterable[str], subject_texts: Iterable[str]) -> tuple[str, ...]:
    """Those of `names` that the prompts and references never use: a name people ask about is the subject, not a tell."""
    left = [name for name in dict.fromkeys(names) if _pattern(name)]
    for text in subject_texts:
        if not left:
            break
        folded = fold(text)
        left = [name for name in left if not _pattern(name).search(folded)]  # type: ignore[union-attr]
    return tuple(left)

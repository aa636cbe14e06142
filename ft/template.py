"""One way from messages to tokens, shared by training and answering. What a person typed never becomes a control token.

The chat template is rendered with a mark in place of every text; its own parts are tokenised with control tokens, the texts without.
A base that has no chat template gets PLAIN. Light: importing this file imports no torch and no transformers; the tokenizer comes
from the caller. Must not know reviewers, screens, the database or the engine's queue.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, get_args

from ft.engine import Message, Role
from ft.errors import BadInput, Unavailable
from ft.specs import digest

VERSION = 1  # raise it when the same messages would give other tokens
DEFAULT_SYSTEM = (
    "You answer customers of our support team. Be friendly and precise: say what to do, step by step, "
    "and say so openly when you need to know more or do not know."
)
PLAIN = (
    "{{ bos_token or '' }}{% for m in messages %}### {{ m['role'] | capitalize }}:\n{{ m['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
ROLES: tuple[str, ...] = get_args(Role)
_MARK = "@@text-{}@@"
_CHARACTERS = 16  # of a text for each token that may be read: more than a token has in any language
_MARKS = re.compile(r"@@text-(\d+)@@")
# Fixed, because some templates print today's date or ask for reasoning: the same messages must give the same tokens every day.
_CONSTANTS = {"date_string": "26 Jul 2024", "enable_thinking": False}


def messages_for(
    instruction: str, input: str = "", system: str = DEFAULT_SYSTEM, history: Sequence[Mapping[str, str]] = ()
) -> tuple[Message, ...]:
    """A prompt as messages: our system text, earlier turns if any, then instruction and input, apart by a blank line."""
    user = "\n\n".join(part.strip() for part in (instruction, input) if part.strip())
    earlier = [Message(_spoken_by(turn), turn.get("content", "")) for turn in history if turn.get("role") in ("user", "assistant")]
    return Message("system", system.strip() or DEFAULT_SYSTEM), *earlier, Message("user", user)


def _spoken_by(turn: Mapping[str, str]) -> Role:
    return "assistant" if turn.get("role") == "assistant" else "user"


def with_system(messages: Sequence[Message], system: str = DEFAULT_SYSTEM) -> tuple[Message, ...]:
    """The same conversation with a system text: never none, since templates then put in one that names the model."""
    if messages and messages[0].role == "system":
        return tuple(messages)
    return Message("system", system), *messages


def encode(tokenizer: Any, messages: Sequence[Message], most: int = 0) -> list[int]:
    """Tokens of the conversation, up to where the assistant begins to answer.

    Raises BadInput for an unknown role, an empty prompt or text that is not valid Unicode; and for one that has far more than `most`
    tokens, unless that is 0, without reading all of it: others wait meanwhile.
    """
    messages = with_system(messages)
    _check(messages)
    texts, rendered = _render(tokenizer, messages, add_generation_prompt=True)
    return _tokens(tokenizer, rendered, texts, most)


def encode_answer(tokenizer: Any, answer: str) -> list[int]:
    """Tokens of an answer to learn, its end-of-turn token included: what follows `encode` in a training example."""
    _, rendered = _render(tokenizer, (Message("system", "s"), Message("user", "u"), Message("assistant", "a")), add_generation_prompt=False)
    end = tokenizer(_MARKS.split(rendered)[-1], add_special_tokens=False)["input_ids"]
    special = set(control_tokens(tokenizer).values())
    stop = next((index for index, token in enumerate(end) if token in special), None)
    closing = [tokenizer.eos_token_id] if stop is None else end[: stop + 1]
    return plain_tokens(tokenizer, answer.strip()) + closing


def end_of_turn(tokenizer: Any) -> int | None:
    """The token that closes an answer by the template, where it is a control token: some models name another as their end of text."""
    last = encode_answer(tokenizer, "a")[-1]
    return int(last) if last in set(control_tokens(tokenizer).values()) else None


def plain_tokens(tokenizer: Any, text: str) -> list[int]:
    """Tokens of text that a person or a model wrote: no control token among them, whatever it says."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput("The text holds broken characters (half of a surrogate pair). Type or paste it again.") from error
    control = control_tokens(tokenizer)
    pieces = _cut(text, [name for name in control if name in text])
    read = tokenizer(pieces, add_special_tokens=False, split_special_tokens=True)["input_ids"] if pieces else []
    tokens = [token for piece in read for token in piece]
    if not set(tokens).isdisjoint(control.values()):
        raise BadInput("The text holds characters that this model reads as control tokens. Remove them and try again.")
    return tokens


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """Text and id of each token that steers the model: the special ones, and added ones that look like markup."""
    special = set(tokenizer.all_special_ids)
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    markup = {text: index for text, index in tokenizer.get_added_vocab().items() if re.fullmatch(r"<.+>|\[.+\]", text)}
    return added | markup | {tokenizer.convert_ids_to_tokens(index): index for index in special}


def _cut(text: str, names: Iterable[str]) -> list[str]:
    """`text` in pieces, cut inside each occurrence of each name, so that no piece holds a whole one. Pieces join to `text`."""
    cuts = {match.start() + 1 for name in names for match in re.finditer(f"(?={re.escape(name)})", text)}
    edges = [0, *sorted(cuts), len(text)]
    return [text[start:end] for start, end in pairwise(edges) if start < end]


def template_hash(tokenizer: Any) -> str:
    """Identity of the way from messages to tokens: template, fixed values and version of this file."""
    return digest([VERSION, _template(tokenizer), _CONSTANTS])


def describe(tokenizer: Any) -> str:
    """In words, which template is used."""
    if getattr(tokenizer, "chat_template", None):
        return "the model's own chat template"
    return "plain headings (### User: … ### Assistant:), because the model has no chat template"


def _template(tokenizer: Any) -> str:
    chosen = getattr(tokenizer, "chat_template", None)
    if isinstance(chosen, dict):
        chosen = chosen.get("default")
    return chosen or PLAIN


def _check(messages: Sequence[Message]) -> None:
    wrong = sorted({str(message.role) for message in messages} - set(ROLES))
    if wrong:
        raise BadInput(f"Unknown role {', '.join(wrong)}. Use system, user and assistant.")
    if any(message.role == "system" for message in messages[1:]):
        raise BadInput("A system text may only open the conversation. Leave it out further down.")
    if messages[-1].role != "user" or not messages[-1].content.strip():
        raise BadInput("The prompt is empty. Write a question first.")


def _render(tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool) -> tuple[list[str], str]:
    """The texts and the template rendered with marks in their place. A template without a system role gets it in the first user text."""
    for candidate in (messages, _folded(messages)):
        marked = [{"role": message.role, "content": _MARK.format(index)} for index, message in enumerate(candidate)]
        try:
            rendered = tokenizer.apply_chat_template(
                marked, chat_template=_template(tokenizer), tokenize=False, add_generation_prompt=add_generation_prompt, **_CONSTANTS
            )
        except Exception:
            continue  # templates raise to say that they know no system role
        if [int(found) for found in _MARKS.findall(rendered)] == list(range(len(candidate))):
            return [message.content.strip() for message in candidate], rendered
    raise Unavailable("The model's chat template cannot hold this conversation. Alternate user and assistant, or choose another base.")


def _folded(messages: Sequence[Message]) -> tuple[Message, ...]:
    system, first, *rest = messages
    return Message(first.role, f"{system.content}\n\n{first.content}"), *rest


def _tokens(tokenizer: Any, rendered: str, texts: Sequence[str], most: int) -> list[int]:
    tokens: list[int] = []
    for index, part in enumerate(_MARKS.split(rendered)):
        if index % 2:
            text = texts[int(part)]
            if most and len(text) > _CHARACTERS * most:  # its beginning tells, but for texts such as a hundred thousand blanks
                _refuse_long(len(tokens) + len(plain_tokens(tokenizer, text[: _CHARACTERS * most])), most)
            tokens += plain_tokens(tokenizer, text)
            _refuse_long(len(tokens), most)
        elif part:
            tokens += tokenizer(part, add_special_tokens=False)["input_ids"]
    return tokens


def _refuse_long(tokens: int, most: int) -> None:
    """By a margin, since a text that is cut in the middle of a word may have a few tokens more."""
    if most and tokens > 1.25 * most + 16:
        raise BadInput(f"The prompt has far more than {most} tokens, which is all that this model reads. Shorten it.")

"""Personal data found by rules: e-mail and IP addresses, phone, card and account numbers, US social security numbers, keys and passwords.

No rule here finds names, street addresses or what somebody tells about themselves; NOT_FOUND says so wherever counts are shown.
Must not know files, the database or the screens.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

NOT_FOUND = (
    "Found by rules. Names, street addresses and what people tell about themselves are not found: read the rows before you train on them."
)
REGION = "US"  # how a phone number without +country is read
_PHONE_TRIES = 200


@dataclass(frozen=True, slots=True)
class Finding:
    """`kind` as in KINDS, at text[start:end]."""

    kind: str
    start: int
    end: int


def _card(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    doubled = sum(sum(divmod(2 * d, 10)) for d in digits[-2::-2])
    return 13 <= len(digits) <= 19 and digits[0] in (2, 3, 4, 5, 6) and (doubled + sum(digits[-1::-2])) % 10 == 0


def _iban(text: str) -> bool:
    code = text.replace(" ", "")
    return 15 <= len(code) <= 34 and int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


def _public_address(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _always(text: str) -> bool:
    return True


_SECRETS = (
    r"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|sk-[A-Za-z0-9_-]{20,200}|xox[baprs]-[A-Za-z0-9-]{10,200}"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----|eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,1000}"
    r"|(?i:\b(?:password|passwd|pwd|passwort|api[_ -]?key|secret|token)\b\s{0,3}[:=]\s{0,3}(?=\S{0,100}\d)\S{6,100})"
)
_DIGIT = "0"  # stands for any digit


@dataclass(frozen=True, slots=True)
class _Rule:
    """`needs`: a text without any of these, in lower case, is not searched."""

    kind: str
    pattern: re.Pattern[str]
    needs: tuple[str, ...]
    good: Callable[[str], bool] = _always


_RULES = (
    _Rule("email", re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])"), ("@",)),
    _Rule("secret", re.compile(_SECRETS), ("akia", "gh", "sk-", "xox", "private key", "eyj", "pass", "pwd", "key", "secret", "token")),
    _Rule("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"), (_DIGIT,), _iban),
    _Rule("card", re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])"), (_DIGIT,), _card),
    _Rule("ssn", re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\d-])"), (_DIGIT,)),
    _Rule("ip", re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\d)"), (_DIGIT,), _public_address),
    _Rule("ip", re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"), ("::", _DIGIT), _public_address),
)
KINDS = {
    "email": "e-mail address",
    "phone": "phone number",
    "card": "card number",
    "iban": "bank account (IBAN)",
    "ip": "public IP address",
    "ssn": "US social security number",
    "secret": "key or password",
}
_ANY_DIGIT = re.compile(r"\d")
_DOTTED = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}")
_SEVEN_DIGITS = re.compile(r"\d(?:[\s().+/-]{0,3}\d){6}")


def _phones(text: str) -> Iterator[tuple[int, int]]:
    if not _SEVEN_DIGITS.search(text):
        return
    from phonenumbers import Leniency, PhoneNumberMatcher

    matches: Any = PhoneNumberMatcher(text, REGION, leniency=Leniency.POSSIBLE, max_tries=_PHONE_TRIES)
    for match in matches:
        if not _DOTTED.fullmatch(match.raw_string.partition("/")[0]):
            yield match.start, match.end


def find(text: str) -> list[Finding]:
    """Findings in the order of the text, none overlapping another."""
    found: list[Finding] = []
    lower = text.lower() + _DIGIT * bool(_ANY_DIGIT.search(text))
    rules = [rule for rule in _RULES if any(sign in lower for sign in rule.needs)]
    spans = [(rule.kind, m.span()) for rule in rules for m in rule.pattern.finditer(text) if rule.good(m.group())]
    spans += [("phone", span) for span in _phones(text)]
    for kind, (start, end) in spans:
        if all(end <= other.start or start >= other.end for other in found):
            found.append(Finding(kind, start, end))
    return sorted(found, key=lambda finding: finding.start)


def mask(text: str) -> str:
    """The text with every finding replaced by its kind in brackets, such as [email]."""
    for finding in reversed(find(text)):
        text = f"{text[: finding.start]}[{finding.kind}]{text[finding.end :]}"
    return text

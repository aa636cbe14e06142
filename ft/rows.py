"""Files cut into raw rows, one at a time: JSON Lines, a JSON list or object, CSV and TSV.

A row that cannot be read keeps its line, a reason and what was there; nothing here raises for one bad row, and no row is held
beyond MAX_ROW_BYTES. Must not know what the fields mean (`ft.fields` does), nor the database or the screens.
"""

import csv
import json
import math
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from ft.errors import BadInput

MAX_ROW_BYTES = 1_000_000
RAW_KEPT = 2_000  # characters of a refused row that are kept to be looked at
_CHUNK = 1 << 16
BOM = b"\xef\xbb\xbf"


class RowError(Exception):
    """Why one row cannot be used: words that finish the sentence "the row …"."""


@dataclass(frozen=True, slots=True)
class Row:
    """`line` is where the row starts, from 1. Exactly one of `value` and `reason` is given."""

    line: int
    value: dict[str, Any] | None = None
    reason: str = ""
    raw: str = ""


def shown(raw: bytes) -> str:
    """What was there, as text that any database stores: cut to RAW_KEPT characters, undecodable bytes and NUL replaced."""
    return raw[: RAW_KEPT * 4].decode("utf-8", "replace")[:RAW_KEPT].replace("\0", "␀")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise RowError(f"has the key {next(n for n in names if names.count(n) > 1)[:60]!r} twice")
    return value


def _constant(name: str) -> NoReturn:
    raise RowError(f"contains {name}, which is not JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise RowError(f"contains the number {text[:20]}, which is out of range")
    return value


def _whole(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (value := int(text)) < 2**63:
        raise RowError(f"contains the number {text[:24]}, which is out of range")
    return value


def parse(raw: bytes) -> Any:
    """One JSON value. Raises RowError."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(f"is not UTF-8 text (byte {error.start + 1})") from None
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise RowError("is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise RowError(f"is not valid JSON: {error.msg[0].lower()}{error.msg[1:]} at character {error.pos + 1}") from None


def _object(line: int, raw: bytes, keyed: bool = False) -> Row:
    try:
        value = parse(b"{" + raw + b"}" if keyed else raw)
        if keyed:
            value = next(iter(value.values()), None)
        if not isinstance(value, dict):
            raise RowError(f"is {kind(value)}, not an object with named fields")
    except RowError as error:
        return Row(line, reason=str(error), raw=shown(raw))
    return Row(line, value, raw=shown(raw))


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Physical lines, split at \\n only: (number, bytes with their \\n, whole). Of a too long line only the head is kept."""
    number = 0
    while chunk := file.readline(MAX_ROW_BYTES + 2):
        number += 1
        whole = chunk.endswith(b"\n") or len(chunk) <= MAX_ROW_BYTES
        rest = chunk
        while not whole and rest and not rest.endswith(b"\n"):
            rest = file.readline(_CHUNK)
        yield number, chunk.removeprefix(BOM) if number == 1 else chunk, whole


def _too_long(line: int, raw: bytes) -> Row:
    return Row(line, reason=f"is longer than {MAX_ROW_BYTES // 1_000_000} MB", raw=shown(raw))


def json_lines(file: BinaryIO) -> Iterator[Row]:
    """One JSON object a line; blank lines are skipped."""
    for number, raw, whole in _lines(file):
        if not whole:
            yield _too_long(number, raw)
        elif raw.strip():
            yield _object(number, raw.rstrip(b"\r\n"))


_OUTSIDE = re.compile(rb'["{}\[\],]')
_INSIDE = re.compile(rb'["\\]')


class _Splitter:
    """Cuts the members out of one JSON list or object without holding more than one of them."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.line = 1  # of the byte at `here`
        self.start = 1  # line on which the present member starts
        self.member = bytearray()
        self.long = False
        self.depth = 0
        self.quoted = self.escaped = self.closed = False
        self.keyed = False

    def _take(self, part: bytes) -> None:
        if not self.member and not self.long:
            bare = part.lstrip()
            self.line += part.count(b"\n", 0, len(part) - len(bare))
            self.start = self.line
            part = bare
        self.line += part.count(b"\n")
        if len(self.member) + len(part) > MAX_ROW_BYTES:
            self.long = True
            part = part[: RAW_KEPT * 4]
            del self.member[RAW_KEPT * 4 :]
        if not self.long or len(self.member) < RAW_KEPT * 4:
            self.member += part

    def _cut(self) -> Iterator[Row]:
        raw, long = bytes(self.member), self.long
        self.member.clear()
        self.long = False
        if long:
            yield _too_long(self.start, raw)
        elif raw.strip():
            yield _object(self.start, raw, self.keyed)

    def _mark(self, mark: bytes) -> bool:
        """Take one structural character into account; True where the present member ends before it."""
        if mark == b'"':
            self.quoted = True
        elif mark in b"{[":
            self.depth += 1
            if self.depth == 1:
                self.keyed = mark == b"{"
                return True
        elif mark in b"}]":
            self.depth -= 1
            self.closed = self.depth == 0
        return self.closed or (mark == b"," and self.depth == 1)

    def rows(self) -> Iterator[Row]:
        while chunk := self.file.read(_CHUNK):
            at = 0
            while at < len(chunk):
                if self.closed:
                    self._take(chunk[at:])
                    break
                if self.escaped:
                    self.escaped = False
                    self._take(chunk[at : at + 1])
                    at += 1
                    continue
                found = (_INSIDE if self.quoted else _OUTSIDE).search(chunk, at)
                if not found:
                    self._take(chunk[at:])
                    break
                end, mark = found.end(), found.group()
                if self.quoted:
                    self.escaped = mark == b"\\"
                    self.quoted = mark != b'"'
                    self._take(chunk[at:end])
                elif self._mark(mark):
                    self._take(chunk[at : end - 1])
                    yield from self._cut()
                else:
                    self._take(chunk[at:end])
                at = end
        yield from self._rest()

    def _rest(self) -> Iterator[Row]:
        raw = bytes(self.member)
        if self.closed and raw.strip():
            yield Row(self.start, reason="comes after the end of the JSON", raw=shown(raw))
        elif not self.closed:
            where = "is not closed: the file ends inside it" if raw.strip() else "is missing: the file ends before the JSON is closed"
            yield Row(self.start, reason=where, raw=shown(raw))


def json_members(file: BinaryIO) -> Iterator[Row]:
    """The objects of one JSON list, or the values of one JSON object of objects."""
    if file.read(len(BOM)) != BOM:
        file.seek(0)
    return _Splitter(file).rows()


class _Feed:
    """Lines for csv.reader, which remembers those of the present row so that a runaway quote can be given back."""

    def __init__(self, file: BinaryIO) -> None:
        self.source = _lines(file)
        self.back: deque[tuple[int, bytes, bool]] = deque()
        self.row: list[tuple[int, bytes, bool]] = []
        self.size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        item = self.back.popleft() if self.back else next(self.source)
        self.row.append(item)
        self.size += len(item[1])
        if not item[2] or self.size > MAX_ROW_BYTES:
            raise RowError(f"is longer than {MAX_ROW_BYTES // 1_000_000} MB, or a quotation mark is never closed")
        try:
            return item[1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise RowError(f"is not UTF-8 text (byte {error.start + 1})") from None

    def start(self) -> None:
        self.row, self.size = [], 0

    def give_back(self) -> None:
        """Read again from the second line of the row that failed: only its first line is known to be bad."""
        self.back.extendleft(reversed(self.row[1:]))


def _cells(file: BinaryIO, delimiter: str) -> Iterator[tuple[int, list[str], str, str]]:
    """(line, cells, reason, raw) of each row of a table."""
    csv.field_size_limit(MAX_ROW_BYTES + 2)
    feed = _Feed(file)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.start()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (RowError, csv.Error) as error:
            line, raw, _ = feed.row[0]
            reason = str(error) if isinstance(error, RowError) else _csv_words(str(error))
            feed.give_back()
            reader = csv.reader(feed, delimiter=delimiter, strict=True)
            yield line, [], reason, shown(raw)
        else:
            yield feed.row[0][0], cells, "", shown(b"".join(raw for _, raw, _ in feed.row).rstrip(b"\r\n"))


def _csv_words(message: str) -> str:
    if "unexpected end" in message:
        return "opens a quotation mark that is never closed"
    return f"is not a proper table row: {message}"


def table(file: BinaryIO, delimiter: str) -> Iterator[Row]:
    """Rows of a CSV or TSV file under its header line. Raises BadInput when the header is no header."""
    source = _cells(file, delimiter)
    line, header, reason, _ = next(source, (1, [], "is missing", ""))
    header = [name.strip() for name in header]
    if reason or len(set(header)) < len(header) or not all(header):
        why = reason or ("has an empty name" if not all(header) else "names a column twice")
        what = "Save the file as UTF-8" if "UTF-8" in why else "Give each column a name of its own in the first line"
        raise BadInput(f"The header of the table (line {line}) {why}. {what}.")
    for line, cells, reason, raw in source:
        if not reason and len(cells) != len(header) and cells:
            reason = f"has {len(cells)} cells where the header has {len(header)}"
        if reason:
            yield Row(line, reason=reason, raw=raw)
        elif any(cell.strip() for cell in cells):
            yield Row(line, dict(zip(header, cells, strict=True)), raw=raw)

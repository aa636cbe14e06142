"""Somebody's file of prompts, read row by row: a Record, or a Reject with its line and reason, for every row there is.

JSON Lines, a JSON list or object of objects, CSV, TSV and chat messages. Memory stays bounded whatever the file holds.
Must not know the database, the reviewers or the screens.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ft import fields as naming
from ft import rows
from ft.errors import BadInput, NotFound, Unavailable
from ft.fields import Record
from ft.rows import MAX_ROW_BYTES, RAW_KEPT, Row, RowError

__all__ = ["MAX_ROW_BYTES", "RAW_KEPT", "Reading", "Record", "Reject", "read"]

_HEAD = 1 << 16
_FORMATS = "Use JSON Lines, JSON, CSV or TSV"
_BINARY = {b"PK\x03\x04": "a zip or Excel file", b"\x1f\x8b": "a gzip file", b"PAR1": "a Parquet file", b"%PDF": "a PDF"}
_BINARY |= {b"SQLite format": "a database", b"\x89PNG": "a picture", b"GGUF": "a model"}


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that cannot be used. `reason` finishes the sentence "the row …"; `raw` is what was there, cut to 2,000 characters."""

    line: int
    reason: str
    raw: str


class Reading:
    """Iterates once over the rows of a file. `format` says how it is read, `share` (0..1) how far it is, `fields` which column
    became which field (those of the first usable row)."""

    def __init__(self, path: Path, form: str, rows_of: Callable[[BinaryIO], Iterator[Row]], mapping: Mapping[str, str]) -> None:
        self.format = form
        self.fields: dict[str, str] = {}
        self.share = 0.0
        self._mapping = mapping
        self._items = self._read(path, rows_of)

    def __iter__(self) -> Iterator[Record | Reject]:
        return self

    def __next__(self) -> Record | Reject:
        return next(self._items)

    def _read(self, path: Path, rows_of: Callable[[BinaryIO], Iterator[Row]]) -> Iterator[Record | Reject]:
        size = max(path.stat().st_size, 1)
        try:
            with path.open("rb") as file:
                for row in rows_of(file):
                    self.share = file.tell() / size
                    yield self._judge(row)
        except OSError as error:
            raise Unavailable(f"{path.name} could not be read to its end ({error.strerror}). Check the disk and try again.") from error

    def _judge(self, row: Row) -> Record | Reject:
        if row.value is None:
            return Reject(row.line, row.reason, row.raw)
        try:
            record = naming.record(row.line, row.value, self._mapping)
        except RowError as error:
            return Reject(row.line, str(error), row.raw)
        if not self.fields:
            self.fields = naming.source_of(tuple(row.value), self._mapping)
        return record


def _head(path: Path) -> bytes:
    if not path.exists():
        raise NotFound(f"There is no file {path.name}. Check its name and folder.")
    if not path.is_file():
        raise BadInput(f"{path.name} is a folder, not a file. Name one file in it.")
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise Unavailable(f"{path.name} could not be opened ({error.strerror}). Check who may read it.") from error


def _refuse_binary(path: Path, head: bytes) -> None:
    if not head.removeprefix(rows.BOM).strip():
        raise BadInput(f"{path.name} is empty. Export it again, or choose another file.")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or head[:4] == b"\0\0\xfe\xff" or head.count(0) > len(head) // 5:
        raise BadInput(f"{path.name} is not UTF-8 text (it looks like UTF-16). Save it again with the encoding UTF-8.")
    kind = next((kind for magic, kind in _BINARY.items() if head.startswith(magic)), None)
    if kind:
        raise BadInput(f"{path.name} is {kind}, not text. {_FORMATS}.")


def _complete_object(line: bytes) -> bool:
    try:
        return isinstance(rows.parse(line), dict)
    except RowError:
        return False


def _json_form(head: bytes) -> str:
    """ "lines" where each line is an object by itself, "members" where the whole file is one list or object."""
    first, _, rest = head.lstrip().partition(b"\n")
    following = rest.lstrip()[:1]
    if first.startswith(b"{") and (following == b"{" or (_complete_object(first) and not _object_of_objects(first))):
        return "lines"
    return "members"


def _object_of_objects(line: bytes) -> bool:
    value = rows.parse(line)
    return bool(value) and all(isinstance(member, dict) for member in value.values())


def _form(path: Path, head: bytes) -> str:
    suffix = path.suffix.casefold()
    head = head.removeprefix(rows.BOM)
    if suffix in (".jsonl", ".ndjson"):
        return "lines"
    if suffix in (".csv", ".tsv", ".tab"):
        return "csv" if suffix == ".csv" else "tsv"
    if head.lstrip()[:1] in (b"{", b"["):
        return _json_form(head)
    header = head.partition(b"\n")[0]
    if suffix != ".json" and (b"\t" in header or b"," in header):
        return "tsv" if b"\t" in header else "csv"
    raise BadInput(f"{path.name} is in no format that can be read. {_FORMATS}, with one prompt a row.")


def _table(file: BinaryIO, delimiter: str, mapping: Mapping[str, str], name: str) -> Iterator[Row]:
    """A table whose header was checked once, so that a wrong one is one sentence and not a reason a row."""
    for number, row in enumerate(rows.table(file, delimiter)):
        if number == 0 and row.value is not None:
            naming.check_header(tuple(row.value), mapping, name)
        yield row


def read(path: Path | str, fields: Mapping[str, str] | None = None) -> Reading:
    """Rows of the file at `path`. `fields` maps a field to a column ({"instruction": "Question"}) or, with a leading "=", to a fixed
    text ({"instruction": "=Put this in plain words:"}); fields not named are found by the documented names.

    Raises NotFound, BadInput or Unavailable for a file that cannot be read at all: missing, empty, binary, not UTF-8, no known format.
    """
    path, mapping = Path(path), dict(fields or {})
    naming.check_mapping(mapping)
    head = _head(path)
    _refuse_binary(path, head)
    form = _form(path, head)
    tables = {"csv": ("CSV", ","), "tsv": ("TSV", "\t")}
    if form in tables:
        title, delimiter = tables[form]
        return Reading(path, title, partial(_table, delimiter=delimiter, mapping=mapping, name=path.name), mapping)
    if form == "lines":
        return Reading(path, "JSON Lines", rows.json_lines, mapping)
    return Reading(path, "JSON", rows.json_members, mapping)

"""A CSV read for certain columns: UTF-8 (or what spreadsheets call Unicode), commas, semicolons or tabs, columns in any order and case.

Other columns are left alone and named. What is wrong is said with its line. Must not know what the rows are about.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ft.errors import BadInput, NotFound, Unavailable

MAX_BYTES = 200_000_000
SEPARATORS = ",;\t"


@dataclass
class Table:
    """Rows as (line, cells by column), cells stripped; blank rows are not in it. `ignored`: columns that nobody asked for."""

    rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    ignored: tuple[str, ...] = ()


def table(path: Path, needed: Sequence[str], optional: Sequence[str] = (), other_names: Mapping[str, Sequence[str]] | None = None) -> Table:
    """`other_names`: column -> what it is called elsewhere, where its own name is missing. Raises BadInput, NotFound, Unavailable."""
    text = read_text(path, MAX_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_separator(text))
    found, start = Table(), 1
    try:
        header = _names([cell.strip() for cell in next(reader, [])], (*needed, *optional), other_names or {})
        _check_header(path, header, needed, optional)
        known = [name if name in (*needed, *optional) else "" for name in header]
        found.ignored = tuple(name for name, kept in zip(header, known, strict=True) if name and not kept)
        start = reader.line_num + 1
        for cells in reader:
            line, start = start, reader.line_num + 1
            if any(cell.strip() for cell in cells):
                found.rows.append((line, _row(path, line, known, cells)))
    except csv.Error as error:
        raise BadInput(f"Line {start} of {path.name} is not CSV ({error}). Mend that line.") from error
    return found


def _row(path: Path, line: int, known: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """Empty cells too many at the end of a row are nothing."""
    while len(cells) > len(known) and not cells[-1].strip():
        cells = cells[:-1]
    if len(cells) != len(known):
        raise BadInput(f"Line {line} of {path.name} has {len(cells)} cells, but the header has {len(known)}. Mend that line.")
    return {name: cell.strip() for name, cell in zip(known, cells, strict=True) if name}


def _separator(text: str) -> str:
    """Whichever of them the first line has most of, outside quotes; a comma where it has none."""
    first = next(iter(text.splitlines()), "")
    bare = "".join(first.split('"')[::2])
    return max(SEPARATORS, key=lambda one: (bare.count(one), one == ","))


def _names(header: Sequence[str], wanted: Sequence[str], other_names: Mapping[str, Sequence[str]]) -> list[str]:
    """The header with our names for the columns that we know."""
    lower = [name.casefold().replace(" ", "_") for name in header]
    ours = {}
    for name in wanted:
        called = next((other for other in (name, *other_names.get(name, ())) if other in lower), name)
        ours[called] = name
    return [ours.get(low, name) for low, name in zip(lower, header, strict=True)]


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> None:
    columns = ", ".join(needed) + (f" and, if known, {', '.join(optional)}" if optional else "")
    lacking = [name for name in needed if name not in header]
    others = [name[:40] for name in header if name and name not in (*needed, *optional)]
    problems = [
        ("it lacks", lacking),
        ("it has", others if lacking else []),
        ("it repeats", sorted({name for name in header if name and header.count(name) > 1 and name in (*needed, *optional)})),
    ]
    if any(names for words, names in problems if words != "it has"):
        said = "; ".join(f"{words} {', '.join(names)}" for words, names in problems if names)
        raise BadInput(f"The columns of {path.name} do not fit: {said}. Its first line must name {columns}.")


def read_text(path: Path, most: int) -> str:
    """A whole UTF-8 file (or UTF-16 with its mark), byte order marks dropped. Raises NotFound, BadInput where it is no text or too large,
    Unavailable."""
    try:
        if path.stat().st_size > most:
            raise BadInput(f"{path.name} is larger than {most // 1_000_000} MB. Split it into parts.")
        raw = path.read_bytes()
        return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path.name} is not UTF-8 text. Save it as UTF-8.") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read ({error.strerror}). Check the path and its permissions.") from error

"""A CSV read strictly: UTF-8, commas, the columns asked for and no others, every row as long as the header.

Must not know what the rows are about.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from ft.errors import BadInput, NotFound, Unavailable

MAX_BYTES = 200_000_000


def rows(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, cells by column) of each row that is not blank; cells are stripped. Raises BadInput for any other header."""
    text = read_text(path, MAX_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(path, header, needed, optional)
        start = reader.line_num + 1
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise BadInput(f"Line {line} of {path.name} has {len(cells)} cells, but the header has {len(header)}. Mend that line.")
            yield line, dict(zip(header, (cell.strip() for cell in cells), strict=True))
    except csv.Error as error:
        raise BadInput(f"Line {start} of {path.name} is not CSV ({error}). Mend that line.") from error


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> None:
    columns = ", ".join(needed) + (f" and, if known, {', '.join(optional)}" if optional else "")
    problems = [
        ("it lacks", [name for name in needed if name not in header]),
        ("it has the unknown", [name[:40] or "(empty)" for name in header if name not in (*needed, *optional)]),
        ("it repeats", sorted({name for name in header if name and header.count(name) > 1 and name in (*needed, *optional)})),
    ]
    if wrong := [f"{words} {', '.join(names)}" for words, names in problems if names]:
        raise BadInput(f"The columns of {path.name} do not fit: {'; '.join(wrong)}. Its first line must name {columns}.")


def read_text(path: Path, most: int) -> str:
    """A whole UTF-8 file, a byte order mark dropped. Raises NotFound, BadInput where it is no text or too large, Unavailable."""
    try:
        if path.stat().st_size > most:
            raise BadInput(f"{path.name} is larger than {most // 1_000_000} MB. Split it into parts.")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path.name} is not UTF-8 text. Save it as UTF-8.") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read ({error.strerror}). Check the path and its permissions.") from error

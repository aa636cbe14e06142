"""Tables as CSV that no spreadsheet runs as a formula. JSON is the exact form. Must not know what the tables are about."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_RISKY = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")  # the wide forms too: some spreadsheets read them alike


def safe_cell(value: object) -> str:
    """A cell's text. One that a spreadsheet would run as a formula gets an apostrophe before it; numbers are left as they are."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if isinstance(value, str) and text.startswith(_RISKY) else text


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows under a header line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([safe_cell(column) for column in columns])
    writer.writerows([safe_cell(row.get(column)) for column in columns] for row in rows)
    return out.getvalue()

"""Files to take home: backups, whole studies, votes, boards, exported models. Each is made when it is asked for, for those who may have it.

An export of a study names arms and reviewers, so nobody who votes may have one. Must not know screens or models.
"""

import json
import re
from collections.abc import Iterator

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response, StreamingResponse

from ft.errors import BadInput, Conflict, Refused
from review.guard import person_of
from review.services.boards import board_csv, board_json
from review.services.exchange import Exchange
from review.services.exports import zipped
from review.services.house import House
from review.services.spreadsheets import csv_text

JSONL, CSV, JSON = "application/x-ndjson", "text/csv; charset=utf-8", "application/json"
STUDY_FORMS = ("study", "votes", "votes.csv")


def add_downloads(app: FastAPI, house: House) -> None:
    """The routes under /download."""

    @app.get("/download/backups/{name}")
    def backup(request: Request, name: str) -> Response:
        _only(request, "Backups are for admins. Ask an admin for one.", "admin")
        return FileResponse(house.upkeep.backup(name), media_type="application/vnd.sqlite3", filename=name)

    @app.get("/download/export/{export_id}")
    def export(request: Request, export_id: str) -> Response:
        """The files of a proved export as one zip, put together while it is sent."""
        _only(request, "Exports of models are for engineers and admins.", "engineer", "admin")
        view = house.exports.export(export_id)
        if view.state != "finished":
            raise Conflict("That export is not finished, so there is nothing to fetch yet.")
        return _file(zipped(view.folder), f"{view.adapter}-{view.kind}.zip", "application/zip")

    @app.get("/download/study")
    def study(request: Request, name: str = "", form: str = "study") -> Response:
        """A whole study in one file, or its votes line by line (exact) or as a table (safe in a spreadsheet)."""
        _only(request, "Exports name arms and reviewers, so they are for engineers and admins.", "engineer", "admin")
        if form == "study":
            return _file(Exchange(house.db).export(name), f"{name}.jsonl", JSONL)
        rows = house.comparisons.export_votes(name)
        if form == "votes":
            return _file((json.dumps(row, ensure_ascii=False) + "\n" for row in rows), f"{name}-votes.jsonl", JSONL)
        if form == "votes.csv":
            return _file(iter([csv_text(list(rows[0]), rows) if rows else ""]), f"{name}-votes.csv", CSV)
        raise BadInput(f"There is no such form of a study. Choose {', '.join(STUDY_FORMS)}.")

    @app.get("/download/board")
    def board(request: Request, prompts: str = "", split: str = "test", study: str = "", form: str = "csv") -> Response:
        """A board as a table for a spreadsheet, or whole as JSON."""
        _only(request, "Boards are not for reviewers while they judge. Ask an engineer.", "viewer", "engineer", "admin")
        found = house.boards.board(prompts, split, study or None)
        if form == "json":
            return _file(iter([board_json(found)]), f"board-{prompts}-{split}.json", JSON)
        return _file(iter([board_csv(found)]), f"board-{prompts}-{split}.csv", CSV)


def _only(request: Request, words: str, *roles: str) -> None:
    """The second wall behind the guard. Raises Refused."""
    if getattr(person_of(request.scope), "role", "") not in roles:
        raise Refused(words)


def _file(lines: Iterator[str] | Iterator[bytes], name: str, kind: str) -> Response:
    """An attachment whose name is safe in a header and on any disk."""
    safe = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "tiebreak"
    return StreamingResponse(lines, media_type=kind, headers={"content-disposition": f'attachment; filename="{safe[-120:]}"'})

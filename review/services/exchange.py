"""Studies taken elsewhere and brought in from elsewhere, as study files (docs/exchange.md).

What comes in is a closed study with arms, prompts, answers and reviewers of its own, stored in one transaction or not at all; nobody can
sign in as its reviewers. Must not know screens or models.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ft.errors import NotFound, Unavailable
from review.services import study_export
from review.services.faults import reading, writing
from review.services.storing import Stored, Storing
from review.services.study_files import StudyFile, given, read
from review.services.study_lines import write_line
from review.services.study_results import study_result
from review.services.study_views import StudyResult
from storage.database import Database
from storage.queries import studies as declared


@dataclass(frozen=True, slots=True)
class ExchangeReport:
    """What came in. `renamed`: names that were taken here, old -> new. `identical`: pairs of equal answers; the votes on them are kept,
    but stay out of the result (`identical_votes`). `ignored`: fields of the file that are not of the format, as "vote.mood"."""

    study: str
    set_name: str
    arms: int
    prompts: int
    answers: int
    reviewers: int
    votes: int
    skips: int
    identical: int
    identical_votes: int
    renamed: dict[str, str]
    ignored: tuple[str, ...] = ()


class Exchange:
    def __init__(self, db: Database) -> None:
        self._db = db

    def export(self, name: str, as_list: bool = False) -> Iterator[str]:
        """The study's file, line by line, all of one moment; `as_list`: as one JSON list. Raises NotFound."""
        with reading(self._db) as session:
            study = declared.named(session, name)
            if study is None:
                raise NotFound(f"There is no study “{name}”. See the list of studies.")
            lines = list(study_export.lines(session, study))
        return _as_list([write_line(line) for line in lines]) if as_list else map(write_line, lines)

    def write(self, name: str, path: Path, as_list: bool = False) -> None:
        """The same into a file, readable by its owner only; a file that is there is replaced whole. Raises NotFound, Unavailable."""
        lines, part = self.export(name, as_list), path.with_name(f"{path.name}.part")
        try:
            part.touch(mode=0o600)
            with part.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(lines)
            part.replace(path)
        except OSError as error:
            raise Unavailable(f"{path} cannot be written ({error.strerror}). Choose another place with --out.") from error

    def import_file(self, path: Path, name: str = "", by: int | None = None) -> ExchangeReport:
        """Bring a study file in; `name` replaces the study's own. Raises BadInput with the line, Conflict for a taken name."""
        study = read(path)
        with writing(self._db) as session:
            stored = Storing(session, study, name.strip() or study.header.name.strip(), path.name, by).all()
        return _report(study, stored)


def _as_list(lines: list[str]) -> Iterator[str]:
    yield "[\n"
    yield from (line.replace("\n", ",\n") for line in lines[:-1])
    yield f"{lines[-1]}]\n"


def recount(path: Path) -> StudyResult:
    """The result of a study file by the rules that boards use, computed from the file alone. Raises BadInput, NotFound, Unavailable."""
    return study_result(given(read(path)))


def _report(study: StudyFile, stored: Stored) -> ExchangeReport:
    on_identical = {cast.place for cast in study.votes if study.is_identical(cast)}
    return ExchangeReport(
        study=stored.study,
        set_name=stored.set_name,
        arms=len(study.arms),
        prompts=len(study.prompts),
        answers=len(study.answers),
        reviewers=len(study.reviewers),
        votes=len({cast.place for cast in study.votes}),
        skips=len(study.skips),
        identical=len(study.identical),
        identical_votes=len(on_identical),
        renamed=stored.renamed,
        ignored=study.ignored,
    )

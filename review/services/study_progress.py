"""How far a study is, for whoever leads it: votes by reviewer and tag, agreement so far, time per vote, who is doubted and why.

Must not know screens or models.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from sqlmodel import Session

from review.protocol.agreement import agreement
from review.protocol.doubts import FLIPPED, plain_of, repeats_of
from review.protocol.records import VoteRecord
from review.protocol.tally import aside_of, counted, current, reviewer_doubts
from review.services.study_reading import beside, key, live_pairs, record
from review.services.study_views import ReviewerProgress, SkippedPair, StudyProgress, TagProgress
from storage.queries import decisions as decided
from storage.queries import studies as rows
from storage.queries import votes as cast
from storage.tables import ReviewerDecision, Study


def study_progress(session: Session, study: Study) -> StudyProgress:
    study_id = key(study.id)
    pairs = [prompt for prompt, _, _ in live_pairs(session, study)]
    votes = cast.votes(session, study_id)
    records = [record(row) for row in votes]
    skips, decisions = decided.skips(session, study_id), decided.decisions(session, study_id)
    names = rows.user_names(session, sorted({r.reviewer for r in records} | {s.reviewer_id for s in skips} | set(decisions)))
    known = beside(session, study, votes)
    doubted = reviewer_doubts(records)
    aside = aside_of(records, known, doubted)
    given = [r for r in current(records) if r.kind == "real" and not r.voided]
    times = [r.seconds for r in records if r.revision == 1 and r.seconds > 0]
    last = {row.reviewer_id: row.created_at for row in votes}
    return StudyProgress(
        name=study.name,
        state=study.state,
        votes=len(given),
        needed=len(pairs) * study.votes_per_pair,
        pairs=len(pairs),
        identical=len(rows.identical_keys(session, study_id)),
        reviewers=_reviewers(records, names, doubted, aside, decisions, Counter(s.reviewer_id for s in skips), last, _alike(given, aside)),
        tags=_tags(pairs, given, rows.prompt_tags(session, study.set_id, study.split, study.last_prompt_id), study.votes_per_pair),
        agreement=agreement(counted(records, aside)),
        skipped=tuple(SkippedPair(s.reviewer, s.prompt, s.reason, s.created_at) for s in skips),
        seconds=median(times) if times else 0.0,
    )


def _reviewers(
    records: Sequence[VoteRecord],
    names: Mapping[int, str],
    doubted: Mapping[int, tuple[str, ...]],
    aside: set[int],
    decisions: Mapping[int, ReviewerDecision],
    skipped: Mapping[int, int],
    last: Mapping[int, float],
    alike: Mapping[int, tuple[int, int]],
) -> tuple[ReviewerProgress, ...]:
    now = current(records)
    repeats = repeats_of(now)
    of, times = defaultdict(list), defaultdict(list)
    for r in now:
        of[r.reviewer].append(r)
    for r in records:
        if r.revision == 1:
            times[r.reviewer].append(r.seconds)
    found = []
    for reviewer, name in sorted(names.items(), key=lambda item: item[1]):
        mine, seconds = of[reviewer], times[reviewer]
        again, plain, decision = repeats.get(reviewer, []), plain_of(mine), decisions.get(reviewer)
        found.append(
            ReviewerProgress(
                name=name,
                votes=len(mine),
                seconds=median(seconds) if seconds else 0.0,
                doubts=doubted.get(reviewer, ()),
                aside=reviewer in aside,
                decision=("counted" if decision.counted else "aside") if decision else "",
                reason=decision.reason if decision else "",
                repeats=len(again),
                repeated_alike=sum(FLIPPED[second] == first for first, second in again),
                plain=len(plain),
                plain_right=sum(plain),
                skipped=skipped.get(reviewer, 0),
                last_at=last.get(reviewer),
                compared=alike.get(reviewer, (0, 0))[1],
                alike=alike.get(reviewer, (0, 0))[0],
            )
        )
    return tuple(found)


def _alike(votes: Iterable[VoteRecord], aside: set[int]) -> dict[int, tuple[int, int]]:
    """Reviewer -> how many of the others' votes on the same pairs say the same, of how many; votes aside are compared with nobody's."""
    by_pair: dict[str, list[VoteRecord]] = defaultdict(list)
    for vote in votes:
        by_pair[vote.pair].append(vote)
    found: dict[int, tuple[int, int]] = {}
    for on_it in by_pair.values():
        for mine in on_it:
            others = [other.side for other in on_it if other.reviewer != mine.reviewer and other.reviewer not in aside]
            agreed, compared = found.get(mine.reviewer, (0, 0))
            found[mine.reviewer] = agreed + others.count(mine.side), compared + len(others)
    return found


def _tags(pairs: Iterable[int], votes: Iterable[VoteRecord], tags: Mapping[int, list[str]], each: int) -> tuple[TagProgress, ...]:
    needed = Counter(tag for prompt in pairs for tag in set(tags.get(prompt, ())))
    given = Counter(tag for vote in votes for tag in set(tags.get(vote.prompt, ())))
    return tuple(TagProgress(tag, needed[tag], given[tag], needed[tag] * each) for tag in sorted(needed | given))

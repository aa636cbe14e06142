"""The tables and nothing else. UNIQUE and CHECK live in SQL, since SQLModel does not validate table classes.

Append-only tables (votes, corrections, assignments, audit, run events) are guarded by triggers, see `storage/triggers.py`.
Counts and scores are derived from rows, never stored as counters. Must not know models, screens or rules.
All times are UTC seconds since 1970 (float).
"""

import time
from typing import Any

from sqlalchemy import JSON, CheckConstraint, Column, Index, MetaData, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

SQLModel.metadata.naming_convention = {  # type: ignore[assignment]
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
metadata: MetaData = SQLModel.metadata

ROLES = ("reviewer", "engineer", "viewer", "admin")
SPLITS = ("train", "validation", "test")
CHOICES = ("left", "right", "tie", "both_bad")
EXAMPLE_STATES = ("draft", "approved", "rejected")
RUN_STATES = ("queued", "running", "paused", "finished", "failed", "cancelled", "lost")
LIVE = text("voided_at IS NULL")
VOIDED = text("voided_at IS NOT NULL")
JOB_STATES = ("queued", "running", "paused", "finished", "failed", "cancelled")
JOB_KINDS = ("answer", "score", "export", "keep")
PURPOSES = ("task", "keep", "canary")
PAIR_KINDS = ("real", "repeat", "gold", "training")


def one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(v) for v in values)})", name=column)


def json_column(default: str) -> Column[Any]:
    return Column(JSON, nullable=False, server_default=default)


class User(SQLModel, table=True):
    __table_args__ = (one_of("role", ROLES),)
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    role: str
    password_hash: str = ""
    created_at: float = Field(default_factory=time.time)
    disabled_at: float | None = None


class SignInLink(SQLModel, table=True):
    """A one-time sign-in link; only the hash of its token is kept."""

    __tablename__ = "sign_in_link"
    token_hash: str = Field(primary_key=True)
    user_id: int = Field(foreign_key="user.id", index=True)
    created_at: float = Field(default_factory=time.time)
    expires_at: float
    used_at: float | None = None


class Session(SQLModel, table=True):
    token_hash: str = Field(primary_key=True)
    user_id: int = Field(foreign_key="user.id", index=True)
    created_at: float = Field(default_factory=time.time)
    expires_at: float
    revoked_at: float | None = None


class SignInFailure(SQLModel, table=True):
    """Failed password sign-ins, for the lock-out, whether or not such a user exists. Hashed: people type passwords as names."""

    __tablename__ = "sign_in_failure"
    id: int | None = Field(default=None, primary_key=True)
    name_hash: str = Field(index=True)
    at: float = Field(default_factory=time.time)


class ApiKey(SQLModel, table=True):
    """A key for the HTTP interface. It acts with its own role, never above its maker's; only its hash is kept."""

    __tablename__ = "api_key"
    __table_args__ = (one_of("role", ROLES),)
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    role: str
    key_hash: str = Field(unique=True)
    created_by: int | None = Field(default=None, foreign_key="user.id")
    created_at: float = Field(default_factory=time.time)
    revoked_at: float | None = None


class Setting(SQLModel, table=True):
    """Facts of this installation, such as the base's fingerprint and the adapter in use."""

    key: str = Field(primary_key=True)
    value: Any = Field(sa_column=json_column("null"))


class PromptSet(SQLModel, table=True):
    """Named prompts. `purpose`: the team's own task; "keep": good answers that must stay good; "canary": general abilities."""

    __tablename__ = "prompt_set"
    __table_args__ = (one_of("purpose", PURPOSES),)
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    source: str = ""
    purpose: str = Field(default="task", sa_column_kwargs={"server_default": "task"})
    created_by: int | None = Field(default=None, foreign_key="user.id")
    created_at: float = Field(default_factory=time.time)


class Prompt(SQLModel, table=True):
    __table_args__ = (one_of("split", SPLITS), UniqueConstraint("set_id", "content_hash"))
    id: int | None = Field(default=None, primary_key=True)
    set_id: int = Field(foreign_key="prompt_set.id", index=True)
    split: str = Field(index=True)
    instruction: str = Field(sa_type=Text)
    input: str = Field(default="", sa_type=Text)
    reference: str = Field(default="", sa_type=Text)
    category: str = ""
    tags: list[str] = Field(default_factory=list, sa_column=json_column("[]"))
    history: list[dict[str, str]] = Field(default_factory=list, sa_column=json_column("[]"))  # earlier turns: role, content
    expects: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))  # what a canary's answer must satisfy
    cluster: str = ""
    content_hash: str
    line: int = 0


class ImportReject(SQLModel, table=True):
    """A row that could not be read: kept aside with its line and reason, never lost."""

    __tablename__ = "import_reject"
    id: int | None = Field(default=None, primary_key=True)
    set_id: int = Field(foreign_key="prompt_set.id", index=True)
    line: int
    reason: str
    raw: str = Field(default="", sa_type=Text)


class Adapter(SQLModel, table=True):
    """A registered adapter. `wanted` is what people asked for, `resident` what the running app reports."""

    __table_args__ = (one_of("status", ("registered", "quarantined", "removed")),)
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    title: str = ""
    folder: str
    content_hash: str = Field(index=True)
    method: str = "LoRA"
    rank: int
    alpha: float
    targets: list[str] = Field(default_factory=list, sa_column=json_column("[]"))
    bytes: int
    base_hash: str = ""
    status: str = "registered"
    status_reason: str = ""
    wanted: bool = False
    resident: bool = False
    pinned: bool = Field(default=False, sa_column_kwargs={"server_default": "0"})
    about: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))  # what it was made from: a blend's parts, its passport
    run_id: str | None = Field(default=None, foreign_key="run.id")
    created_by: int | None = Field(default=None, foreign_key="user.id")
    created_at: float = Field(default_factory=time.time)


class Arm(SQLModel, table=True):
    """Something that answers prompts, with fixed settings. Immutable: other settings are another arm."""

    __table_args__ = (one_of("kind", ("base", "adapter", "human", "remote", "imported")), UniqueConstraint("settings_hash"))
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    kind: str
    adapter_id: int | None = Field(default=None, foreign_key="adapter.id")
    system_prompt: str = Field(default="", sa_type=Text)
    decode: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))
    remote: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))  # address and model of a remote arm; never its key
    settings_hash: str
    created_at: float = Field(default_factory=time.time)


class Answer(SQLModel, table=True):
    """One arm's stored output for one prompt, with what is needed to produce it again."""

    __table_args__ = (
        Index("uq_answer_live", "arm_id", "prompt_id", unique=True, sqlite_where=LIVE, postgresql_where=LIVE),
        Index("ix_answer_voided", "arm_id", sqlite_where=VOIDED, postgresql_where=VOIDED),
    )
    id: int | None = Field(default=None, primary_key=True)
    arm_id: int = Field(foreign_key="arm.id", index=True)
    prompt_id: int = Field(foreign_key="prompt.id", index=True)
    text: str = Field(sa_type=Text)
    prompt_tokens: int = 0
    new_tokens: int = 0
    finish: str = "stop"
    seconds: float = 0.0
    base_hash: str = ""
    adapter_hash: str = ""
    template_hash: str = ""
    decode_hash: str = ""
    engine: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))  # device, dtype, quantisation, versions
    cost: float = Field(default=0.0, sa_column_kwargs={"server_default": "0"})  # of a remote arm, in its own currency
    seed: int = 0
    created_at: float = Field(default_factory=time.time)
    voided_at: float | None = None
    void_reason: str = ""


class Study(SQLModel, table=True):
    """A declared comparison. What it declares is fixed once it is open (trigger); only its state moves.

    `scale`: how a criterion is judged, by side (left, right, same) or in points (1-5 for each answer). `checks`: repeats, plain pairs and
    the blinding question are mixed in.
    """

    __table_args__ = (
        one_of("state", ("draft", "open", "paused", "closed")),
        one_of("reveal", ("after_close", "after_vote")),
        one_of("scale", ("sides", "points")),
        CheckConstraint("votes_per_pair >= 1", name="votes_per_pair"),
    )
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    state: str = "draft"
    set_id: int = Field(foreign_key="prompt_set.id")
    split: str = "test"
    tags: list[str] = Field(default_factory=list, sa_column=json_column("[]"))  # only prompts with one of them; empty: all
    votes_per_pair: int = 1
    reveal: str = "after_close"
    scale: str = Field(default="sides", sa_column_kwargs={"server_default": "sides"})
    checks: bool = Field(default=True, sa_column_kwargs={"server_default": "1"})
    criteria: list[str] = Field(default_factory=list, sa_column=json_column("[]"))
    reasons: list[str] = Field(default_factory=list, sa_column=json_column("[]"))
    rule: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))
    last_prompt_id: int | None = None  # the newest prompt when it first opened: prompts imported later do not join
    created_by: int | None = Field(default=None, foreign_key="user.id")
    created_at: float = Field(default_factory=time.time)
    opened_at: float | None = None
    closed_at: float | None = None


class StudyArm(SQLModel, table=True):
    __tablename__ = "study_arm"
    study_id: int = Field(foreign_key="study.id", primary_key=True)
    arm_id: int = Field(foreign_key="arm.id", primary_key=True)


class StudyReviewer(SQLModel, table=True):
    """Who may judge a study. None named: every reviewer."""

    __tablename__ = "study_reviewer"
    study_id: int = Field(foreign_key="study.id", primary_key=True)
    user_id: int = Field(foreign_key="user.id", primary_key=True)


class IdenticalPair(SQLModel, table=True):
    """Two arms that gave the same text for a prompt of a study: recorded, never shown."""

    __tablename__ = "identical_pair"
    study_id: int = Field(foreign_key="study.id", primary_key=True)
    prompt_id: int = Field(foreign_key="prompt.id", primary_key=True)
    first_answer_id: int = Field(foreign_key="answer.id", primary_key=True)
    second_answer_id: int = Field(foreign_key="answer.id", primary_key=True)
    created_at: float = Field(default_factory=time.time)


class Assignment(SQLModel, table=True):
    """One pair of answers given to one reviewer. Sides are drawn once, by a CSPRNG, and stored. `id` is random. Append-only."""

    __table_args__ = (
        one_of("kind", PAIR_KINDS),
        UniqueConstraint("study_id", "reviewer_id", "pair_key", "kind"),
        CheckConstraint("left_answer_id <> right_answer_id", name="two_answers"),
    )
    id: str = Field(primary_key=True)
    study_id: int = Field(foreign_key="study.id", index=True)
    reviewer_id: int = Field(foreign_key="user.id", index=True)
    prompt_id: int = Field(foreign_key="prompt.id", index=True)
    left_answer_id: int = Field(foreign_key="answer.id")
    right_answer_id: int = Field(foreign_key="answer.id")
    pair_key: str  # "<smaller answer id>-<larger answer id>"
    kind: str = "real"
    marked: str = ""  # identity words found before display; a marked pair stays out of the primary result
    served_at: float = Field(default_factory=time.time)


class Vote(SQLModel, table=True):
    """Append-only. A change of mind is a new revision; the same request key twice is one row."""

    __table_args__ = (
        one_of("choice", CHOICES),
        UniqueConstraint("assignment_id", "revision"),
        UniqueConstraint("request_key"),
        CheckConstraint("revision >= 1", name="revision"),
    )
    id: str = Field(primary_key=True)
    assignment_id: str = Field(foreign_key="assignment.id", index=True)
    reviewer_id: int = Field(foreign_key="user.id", index=True)
    revision: int = 1
    choice: str
    criteria: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))
    reasons: list[str] = Field(default_factory=list, sa_column=json_column("[]"))
    comment: str = Field(default="", sa_type=Text)
    request_key: str
    seconds: float = 0.0  # from served to vote, by the server's clock
    created_at: float = Field(default_factory=time.time)


class Guess(SQLModel, table=True):
    """A reviewer's answer to "which one is the tuned model?", asked on a sample of votes to measure the blinding. Append-only."""

    __table_args__ = (one_of("choice", ("left", "right", "unsure")),)
    assignment_id: str = Field(foreign_key="assignment.id", primary_key=True)
    reviewer_id: int = Field(foreign_key="user.id")
    choice: str
    created_at: float = Field(default_factory=time.time)


class Skip(SQLModel, table=True):
    """A pair a reviewer would not judge, and why. Append-only."""

    assignment_id: str = Field(foreign_key="assignment.id", primary_key=True)
    reviewer_id: int = Field(foreign_key="user.id")
    reason: str = Field(sa_type=Text)
    request_key: str = Field(unique=True)
    created_at: float = Field(default_factory=time.time)


class PracticeVote(SQLModel, table=True):
    """A reviewer's answer to one of the training pairs shown before the first study. Never counted. Append-only."""

    __tablename__ = "practice_vote"
    __table_args__ = (one_of("choice", CHOICES), UniqueConstraint("user_id", "pair"))
    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user.id")
    pair: int
    choice: str
    created_at: float = Field(default_factory=time.time)


class ReviewerDecision(SQLModel, table=True):
    """Whether a doubted reviewer's votes in a study count. Append-only; the newest counts, and none means: aside while in doubt."""

    __tablename__ = "reviewer_decision"
    id: int | None = Field(default=None, primary_key=True)
    study_id: int = Field(foreign_key="study.id", index=True)
    reviewer_id: int = Field(foreign_key="user.id")
    counted: bool
    reason: str = Field(default="", sa_type=Text)
    decided_by: int | None = Field(default=None, foreign_key="user.id")
    created_at: float = Field(default_factory=time.time)


class Adjudication(SQLModel, table=True):
    """A lead's decision on a pair that reviewers judged differently; their votes stay. Append-only; the newest counts."""

    __table_args__ = (one_of("choice", ("first", "second", "tie", "both_bad")),)
    id: int | None = Field(default=None, primary_key=True)
    study_id: int = Field(foreign_key="study.id", index=True)
    prompt_id: int = Field(foreign_key="prompt.id")
    first_answer_id: int = Field(foreign_key="answer.id")  # the smaller id, whichever side it stood on
    second_answer_id: int = Field(foreign_key="answer.id")
    choice: str
    reason: str = Field(default="", sa_type=Text)
    decided_by: int | None = Field(default=None, foreign_key="user.id")
    created_at: float = Field(default_factory=time.time)


class Correction(SQLModel, table=True):
    """The ideal answer a reviewer wrote instead. Append-only; the newest of an assignment counts."""

    id: str = Field(primary_key=True)
    assignment_id: str = Field(foreign_key="assignment.id", index=True)
    reviewer_id: int = Field(foreign_key="user.id")
    text: str = Field(sa_type=Text)
    request_key: str = Field(unique=True)
    created_at: float = Field(default_factory=time.time)


class Example(SQLModel, table=True):
    """A prompt and the answer to learn. Its texts never change: a better text is another example."""

    __table_args__ = (
        one_of("state", EXAMPLE_STATES),
        one_of("origin", ("imported", "correction", "winner")),
        UniqueConstraint("origin", "origin_id"),
    )
    id: int | None = Field(default=None, primary_key=True)
    prompt_id: int | None = Field(default=None, foreign_key="prompt.id", index=True)
    instruction: str = Field(sa_type=Text)
    input: str = Field(default="", sa_type=Text)
    output: str = Field(sa_type=Text)
    split: str = "train"  # train or validation: the prompt's own split; a test prompt never makes an example
    origin: str
    origin_id: str
    state: str = "draft"
    decided_by: int | None = Field(default=None, foreign_key="user.id")
    decided_at: float | None = None
    created_at: float = Field(default_factory=time.time)


class Snapshot(SQLModel, table=True):
    """A frozen, hashed list of examples: what a run trains on."""

    id: int | None = Field(default=None, primary_key=True)
    content_hash: str = Field(unique=True)
    created_by: int | None = Field(default=None, foreign_key="user.id")
    created_at: float = Field(default_factory=time.time)


class SnapshotExample(SQLModel, table=True):
    __tablename__ = "snapshot_example"
    snapshot_id: int = Field(foreign_key="snapshot.id", primary_key=True)
    example_id: int = Field(foreign_key="example.id", primary_key=True)


class Preference(SQLModel, table=True):
    """A judged answer or pair frozen in a snapshot, for DPO (`rejected` beside `chosen`) and KTO (`label` of `chosen` alone)."""

    __table_args__ = (one_of("kind", ("pair", "single")),)
    snapshot_id: int = Field(foreign_key="snapshot.id", primary_key=True)
    seq: int = Field(primary_key=True)
    kind: str
    prompt_id: int = Field(foreign_key="prompt.id")
    chosen: str = Field(sa_type=Text)
    rejected: str = Field(default="", sa_type=Text)
    label: bool = True
    split: str = "train"
    vote_id: str = Field(default="")  # where it comes from


class Sweep(SQLModel, table=True):
    """A small grid of runs queued together: its base spec, what varies, and the budget it was started with."""

    id: int | None = Field(default=None, primary_key=True)
    snapshot_id: int = Field(foreign_key="snapshot.id")
    spec: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))
    created_by: int | None = Field(default=None, foreign_key="user.id")
    created_at: float = Field(default_factory=time.time)


class Run(SQLModel, table=True):
    """One training run. The run directory is the truth while it runs; this row is a copy kept by a service."""

    __table_args__ = (one_of("status", RUN_STATES),)
    id: str = Field(primary_key=True)
    snapshot_id: int = Field(foreign_key="snapshot.id")
    spec: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))
    folder: str
    status: str = "queued"
    message: str = ""
    after: str = ""  # how far the follow-up is: "" | registered | answered | scored
    sweep_id: int | None = Field(default=None, foreign_key="sweep.id")
    started_at: float | None = None
    ended_at: float | None = None
    created_by: int | None = Field(default=None, foreign_key="user.id")
    created_at: float = Field(default_factory=time.time)


class RunEvent(SQLModel, table=True):
    """A line of the run directory's events file. Append-only."""

    __tablename__ = "run_event"
    run_id: str = Field(foreign_key="run.id", primary_key=True)
    seq: int = Field(primary_key=True)
    kind: str
    step: int = 0
    data: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))
    at: float


class Job(SQLModel, table=True):
    """Background work of the app itself: answering a prompt set, scoring it."""

    __table_args__ = (one_of("status", JOB_STATES), one_of("kind", JOB_KINDS))
    id: int | None = Field(default=None, primary_key=True)
    kind: str
    status: str = "queued"
    title: str = ""
    total: int = 0
    done: int = 0
    message: str = ""
    spec: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))
    owner: str = ""  # process that runs it; a running job of a dead owner is queued again
    created_by: int | None = Field(default=None, foreign_key="user.id")
    created_at: float = Field(default_factory=time.time)
    ended_at: float | None = None


class Evaluation(SQLModel, table=True):
    """An arm's automatic scores on a prompt set. `statistics` holds per-prompt sufficient statistics for paired bootstraps."""

    id: int | None = Field(default=None, primary_key=True)
    arm_id: int = Field(foreign_key="arm.id", index=True)
    set_id: int = Field(foreign_key="prompt_set.id", index=True)
    split: str
    answers_hash: str  # of the (prompt, answer) ids scored: the same answers are scored once
    statistics: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))
    created_at: float = Field(default_factory=time.time)


class ScoreRow(SQLModel, table=True):
    """One metric of an evaluation: value, 95 % interval, signature, number of prompts."""

    __tablename__ = "score"
    evaluation_id: int = Field(foreign_key="evaluation.id", primary_key=True)
    metric: str = Field(primary_key=True)
    value: float
    low: float
    high: float
    n: int
    signature: str


class IntegrityCheck(SQLModel, table=True):
    """One look at whether the arms are what they say: the base's fingerprint, an adapter's effect. Append-only."""

    __tablename__ = "integrity_check"
    __table_args__ = (one_of("kind", ("base", "adapter", "pair")),)
    id: int | None = Field(default=None, primary_key=True)
    at: float = Field(default_factory=time.time)
    kind: str
    adapter_id: int | None = Field(default=None, foreign_key="adapter.id")
    ok: bool
    words: str = Field(default="", sa_type=Text)
    detail: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))
    voided: int = 0  # answers made since the last good check and taken back by this one


class Promotion(SQLModel, table=True):
    """An adapter put into use, or the base again (none). `evidence`: what the page showed. Append-only; the newest counts."""

    id: int | None = Field(default=None, primary_key=True)
    adapter_id: int | None = Field(default=None, foreign_key="adapter.id")
    evidence: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))
    reason: str = Field(default="", sa_type=Text)
    decided_by: int | None = Field(default=None, foreign_key="user.id")
    created_at: float = Field(default_factory=time.time)


class Audit(SQLModel, table=True):
    """Who did what, when. Append-only."""

    id: int | None = Field(default=None, primary_key=True)
    at: float = Field(default_factory=time.time)
    user_id: int | None = Field(default=None, foreign_key="user.id")
    action: str
    detail: dict[str, Any] = Field(default_factory=dict, sa_column=json_column("{}"))


APPEND_ONLY = (
    "assignment", "vote", "correction", "audit", "run_event", "identical_pair", "guess", "skip", "practice_vote", "reviewer_decision",
    "adjudication", "integrity_check", "promotion",
)  # fmt: skip

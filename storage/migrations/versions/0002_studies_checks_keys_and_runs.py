"""studies, checks, keys and runs in full

Revision 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("key_hash", sa.String(), nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.CheckConstraint("role IN ('reviewer', 'engineer', 'viewer', 'admin')", name=op.f("ck_api_key_role")),
        sa.ForeignKeyConstraint(["created_by"], ["user.id"], name=op.f("fk_api_key_created_by_user")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_key_key_hash")),
        sa.UniqueConstraint("name", name=op.f("uq_api_key_name")),
    )
    op.create_table(
        "practice_vote",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("pair", sa.Integer(), nullable=False),
        sa.Column("choice", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.CheckConstraint("choice IN ('left', 'right', 'tie', 'both_bad')", name=op.f("ck_practice_vote_choice")),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_practice_vote_user_id_user")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_practice_vote")),
        sa.UniqueConstraint("user_id", "pair", name=op.f("uq_practice_vote_user_id")),
    )
    op.create_table(
        "sweep",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("snapshot_id", sa.Integer(), nullable=False),
        sa.Column("spec", sa.JSON(), server_default="{}", nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["user.id"], name=op.f("fk_sweep_created_by_user")),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshot.id"], name=op.f("fk_sweep_snapshot_id_snapshot")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweep")),
    )
    op.create_table(
        "preference",
        sa.Column("snapshot_id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("prompt_id", sa.Integer(), nullable=False),
        sa.Column("chosen", sa.Text(), nullable=False),
        sa.Column("rejected", sa.Text(), nullable=False),
        sa.Column("label", sa.Boolean(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("vote_id", sa.String(), nullable=False),
        sa.CheckConstraint("kind IN ('pair', 'single')", name=op.f("ck_preference_kind")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompt.id"], name=op.f("fk_preference_prompt_id_prompt")),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshot.id"], name=op.f("fk_preference_snapshot_id_snapshot")),
        sa.PrimaryKeyConstraint("snapshot_id", "seq", name=op.f("pk_preference")),
    )
    op.create_table(
        "reviewer_decision",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("reviewer_id", sa.Integer(), nullable=False),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["decided_by"], ["user.id"], name=op.f("fk_reviewer_decision_decided_by_user")),
        sa.ForeignKeyConstraint(["reviewer_id"], ["user.id"], name=op.f("fk_reviewer_decision_reviewer_id_user")),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_reviewer_decision_study_id_study")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviewer_decision")),
    )
    with op.batch_alter_table("reviewer_decision", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_reviewer_decision_study_id"), ["study_id"], unique=False)

    op.create_table(
        "study_reviewer",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_study_reviewer_study_id_study")),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_study_reviewer_user_id_user")),
        sa.PrimaryKeyConstraint("study_id", "user_id", name=op.f("pk_study_reviewer")),
    )
    op.create_table(
        "integrity_check",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("adapter_id", sa.Integer(), nullable=True),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), server_default="{}", nullable=False),
        sa.Column("voided", sa.Integer(), nullable=False),
        sa.CheckConstraint("kind IN ('base', 'adapter', 'pair')", name=op.f("ck_integrity_check_kind")),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapter.id"], name=op.f("fk_integrity_check_adapter_id_adapter")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_integrity_check")),
    )
    op.create_table(
        "promotion",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("adapter_id", sa.Integer(), nullable=True),
        sa.Column("evidence", sa.JSON(), server_default="{}", nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapter.id"], name=op.f("fk_promotion_adapter_id_adapter")),
        sa.ForeignKeyConstraint(["decided_by"], ["user.id"], name=op.f("fk_promotion_decided_by_user")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotion")),
    )
    op.create_table(
        "adjudication",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("prompt_id", sa.Integer(), nullable=False),
        sa.Column("first_answer_id", sa.Integer(), nullable=False),
        sa.Column("second_answer_id", sa.Integer(), nullable=False),
        sa.Column("choice", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.CheckConstraint("choice IN ('first', 'second', 'tie', 'both_bad')", name=op.f("ck_adjudication_choice")),
        sa.ForeignKeyConstraint(["decided_by"], ["user.id"], name=op.f("fk_adjudication_decided_by_user")),
        sa.ForeignKeyConstraint(["first_answer_id"], ["answer.id"], name=op.f("fk_adjudication_first_answer_id_answer")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompt.id"], name=op.f("fk_adjudication_prompt_id_prompt")),
        sa.ForeignKeyConstraint(["second_answer_id"], ["answer.id"], name=op.f("fk_adjudication_second_answer_id_answer")),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_adjudication_study_id_study")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adjudication")),
    )
    with op.batch_alter_table("adjudication", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_adjudication_study_id"), ["study_id"], unique=False)

    op.create_table(
        "guess",
        sa.Column("assignment_id", sa.String(), nullable=False),
        sa.Column("reviewer_id", sa.Integer(), nullable=False),
        sa.Column("choice", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.CheckConstraint("choice IN ('left', 'right', 'unsure')", name=op.f("ck_guess_choice")),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignment.id"], name=op.f("fk_guess_assignment_id_assignment")),
        sa.ForeignKeyConstraint(["reviewer_id"], ["user.id"], name=op.f("fk_guess_reviewer_id_user")),
        sa.PrimaryKeyConstraint("assignment_id", name=op.f("pk_guess")),
    )
    op.create_table(
        "skip",
        sa.Column("assignment_id", sa.String(), nullable=False),
        sa.Column("reviewer_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("request_key", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignment.id"], name=op.f("fk_skip_assignment_id_assignment")),
        sa.ForeignKeyConstraint(["reviewer_id"], ["user.id"], name=op.f("fk_skip_reviewer_id_user")),
        sa.PrimaryKeyConstraint("assignment_id", name=op.f("pk_skip")),
        sa.UniqueConstraint("request_key", name=op.f("uq_skip_request_key")),
    )
    with op.batch_alter_table("adapter", schema=None) as batch_op:
        batch_op.add_column(sa.Column("pinned", sa.Boolean(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("about", sa.JSON(), server_default="{}", nullable=False))

    with op.batch_alter_table("answer", schema=None) as batch_op:
        batch_op.add_column(sa.Column("engine", sa.JSON(), server_default="{}", nullable=False))
        batch_op.add_column(sa.Column("cost", sa.Float(), server_default="0", nullable=False))
        batch_op.create_index(
            "ix_answer_voided",
            ["arm_id"],
            unique=False,
            sqlite_where=sa.text("voided_at IS NOT NULL"),
            postgresql_where=sa.text("voided_at IS NOT NULL"),
        )

    with op.batch_alter_table("arm", schema=None) as batch_op:
        batch_op.add_column(sa.Column("remote", sa.JSON(), server_default="{}", nullable=False))

    with op.batch_alter_table("prompt", schema=None) as batch_op:
        batch_op.add_column(sa.Column("history", sa.JSON(), server_default="[]", nullable=False))
        batch_op.add_column(sa.Column("expects", sa.JSON(), server_default="{}", nullable=False))

    with op.batch_alter_table("prompt_set", schema=None) as batch_op:
        batch_op.add_column(sa.Column("purpose", sa.String(), server_default="task", nullable=False))
        batch_op.create_check_constraint(op.f("ck_prompt_set_purpose"), "purpose IN ('task', 'keep', 'canary')")

    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.add_column(sa.Column("sweep_id", sa.Integer(), nullable=True))
        batch_op.create_foreign_key(batch_op.f("fk_run_sweep_id_sweep"), "sweep", ["sweep_id"], ["id"])
        batch_op.drop_constraint(op.f("ck_run_status"), type_="check")
        batch_op.create_check_constraint(
            op.f("ck_run_status"), "status IN ('queued', 'running', 'paused', 'finished', 'failed', 'cancelled', 'lost')"
        )

    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("ck_job_status"), type_="check")
        batch_op.create_check_constraint(
            op.f("ck_job_status"), "status IN ('queued', 'running', 'paused', 'finished', 'failed', 'cancelled')"
        )
        batch_op.drop_constraint(op.f("ck_job_kind"), type_="check")
        batch_op.create_check_constraint(op.f("ck_job_kind"), "kind IN ('answer', 'score', 'export', 'keep')")

    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.add_column(sa.Column("tags", sa.JSON(), server_default="[]", nullable=False))
        batch_op.add_column(sa.Column("scale", sa.String(), server_default="sides", nullable=False))
        batch_op.add_column(sa.Column("checks", sa.Boolean(), server_default="1", nullable=False))
        batch_op.create_check_constraint(op.f("ck_study_scale"), "scale IN ('sides', 'points')")

"""Indexes for questions that are asked of a record of a million jobs: who published this, what is next, what ended."""

from alembic import op

revision = "20261123_indexes"
down_revision = "20261122_training"
branch_labels = None
depends_on = None

#: table → the columns of each new index
ADDED = {
    "jobs": [
        ["output_path"],
        ["state", "id"],
        ["state", "priority", "id"],
        ["state", "dispatched_at"],
        ["state", "finished_at"],
    ],
    "source_files": [["root", "id"]],
}


def upgrade() -> None:
    """Make them."""
    for table, indexes in ADDED.items():
        for columns in indexes:
            op.create_index(op.f(_name(table, columns)), table, columns)
    op.drop_index(op.f("ix_jobs_state_not_before"), table_name="jobs")  # (state, id) answers what it did


def downgrade() -> None:
    """Drop them."""
    op.create_index(op.f("ix_jobs_state_not_before"), "jobs", ["state", "not_before"])
    for table, indexes in ADDED.items():
        for columns in indexes:
            op.drop_index(op.f(_name(table, columns)), table_name=table)


def _name(table: str, columns: list[str]) -> str:
    return f"ix_{table}_{'_'.join(columns)}"

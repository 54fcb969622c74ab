"""Indexes by which what waits or has ended is not read at every look: of a folder's jobs, of jobs of the same bytes."""

from alembic import op

revision = "20261123_roots_and_twins"
down_revision = "20261123_indexes"
branch_labels = None
depends_on = None

#: the columns of each index of `jobs` that goes, and of the one that answers what it did, and more
REPLACED = [
    (["source_sha256", "variant"], ["source_sha256", "state", "variant", "id"]),
    (["state", "priority", "id"], ["state", "root", "priority", "id"]),
]


def upgrade() -> None:
    """Make them, and drop those that they make needless."""
    for old, new in REPLACED:
        op.create_index(op.f(_name(new)), "jobs", new)
        op.drop_index(op.f(_name(old)), table_name="jobs")


def downgrade() -> None:
    """The other way round."""
    for old, new in REPLACED:
        op.create_index(op.f(_name(old)), "jobs", old)
        op.drop_index(op.f(_name(new)), table_name="jobs")


def _name(columns: list[str]) -> str:
    return f"ix_jobs_{'_'.join(columns)}"

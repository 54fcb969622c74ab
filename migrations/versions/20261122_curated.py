"""Curated photos: the training set's record."""

import sqlalchemy as sa
from alembic import op

revision = "20261122_curated"
down_revision = "20261122_models"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "curated_photos",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("source_file_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("display_path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "pending",
                "accepted",
                "rejected",
                name="curatedstate",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("judged_by", sa.Text(), nullable=False),
        sa.Column("judged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("width_px", sa.Integer(), nullable=True),
        sa.Column("height_px", sa.Integer(), nullable=True),
        sa.Column("colourfulness", sa.Double(), nullable=True),
        sa.Column("perceptual_hash", sa.String(length=64), nullable=True),
        sa.Column("duplicate_of", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("slice", sa.Text(), nullable=False),
        sa.Column("licence", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("use", sa.String(length=16), nullable=False),
        sa.Column("first_run", sa.BigInteger(), nullable=True),
        sa.Column("claim_no", sa.Integer(), nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["duplicate_of"], ["curated_photos.id"], name=op.f("fk_curated_photos_duplicate_of_curated_photos")
        ),
        sa.ForeignKeyConstraint(
            ["source_file_id"], ["source_files.id"], name=op.f("fk_curated_photos_source_file_id_source_files")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_curated_photos")),
        sa.UniqueConstraint("source_file_id", name=op.f("uq_curated_photos_source_file_id")),
    )
    with op.batch_alter_table("curated_photos", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_curated_photos_sha256"), ["sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_curated_photos_state"), ["state"], unique=False)


def downgrade() -> None:
    """Drop it; the photos stay."""
    with op.batch_alter_table("curated_photos", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_curated_photos_state"))
        batch_op.drop_index(batch_op.f("ix_curated_photos_sha256"))

    op.drop_table("curated_photos")

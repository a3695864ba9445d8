"""Tables of what is known of bundles beside their bytes: papers, smoke tests, and the policy for pickles."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Boolean, Double, ForeignKeyConstraint, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.core.db import UtcDateTime, name_type
from fairlead.core.ids import new_row_id
from fairlead.registry.tables import ROW_ID, InWorkspace


class BundlePaperRow(InWorkspace):
    """A paper of a bundle, as text: its `lock`, its `sbom`, its `provenance`."""

    __tablename__ = "bundle_papers"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "bundle_id"], ["bundles.workspace_id", "bundles.id"]),
        ForeignKeyConstraint(["workspace_id", "model_id"], ["registered_models.workspace_id", "registered_models.id"]),
    )

    bundle_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    model_id: Mapped[str] = mapped_column(ROW_ID)
    content: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class BundleTestRow(InWorkspace):
    """A smoke test of a bundle: PENDING, then PASSED or FAILED. `error_...` say what failed, or what is waited for."""

    __tablename__ = "bundle_tests"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "bundle_id"], ["bundles.workspace_id", "bundles.id"]),
        ForeignKeyConstraint(["workspace_id", "model_id"], ["registered_models.workspace_id", "registered_models.id"]),
        Index(None, "workspace_id", "bundle_id"),
        Index(None, "state"),
    )

    id: Mapped[str] = mapped_column(ROW_ID, primary_key=True, default=new_row_id)
    bundle_id: Mapped[str] = mapped_column(ROW_ID)
    model_id: Mapped[str] = mapped_column(ROW_ID)
    residency: Mapped[str] = mapped_column(name_type(63))
    state: Mapped[str] = mapped_column(String(16))
    answered: Mapped[int | None] = mapped_column(Integer)
    compared: Mapped[int | None] = mapped_column(Integer)
    largest_difference: Mapped[float | None] = mapped_column(Double)
    seconds: Mapped[float | None] = mapped_column(Double)
    error_code: Mapped[str | None] = mapped_column(String(63))
    error_detail: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class BundlePolicyRow(InWorkspace):
    """What bundles of a model may hold; a model without a row is under the server's setting."""

    __tablename__ = "bundle_policies"
    __table_args__ = (
        ForeignKeyConstraint(["workspace_id", "model_id"], ["registered_models.workspace_id", "registered_models.id"]),
    )

    model_id: Mapped[str] = mapped_column(ROW_ID, primary_key=True)
    allows_pickle: Mapped[bool] = mapped_column(Boolean)
    updated_by: Mapped[str] = mapped_column(name_type())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

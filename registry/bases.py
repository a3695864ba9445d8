"""Base candidates: which artifacts of a location a new one probably differs little from.

Lineage comes first: the version that the new one was made from. Then what the same model had before, newest first. Then
any artifact whose tensors have the same names, kinds and shapes. All are of the upload's own dedup domain and VERIFIED
at its location, so nothing is learnt, or built on, across a residency class, a key or a workspace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.registry.tables import ArtifactRow, ModelVersionRow, RegisteredModelRow, ReplicaRow, UploadRow

BaseReason = Literal["parent", "previous", "tensors"]

_PREVIOUS = 3
_SAME_TENSORS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseCandidate:
    """An artifact that the upload's location holds, the layout it was read back through, and why it is a candidate."""

    digest: str
    layout_key: str
    reason: BaseReason


def find_bases(
    session: Session,
    upload: UploadRow,
    *,
    model: str | None = None,
    parent_version: int | None = None,
    tensor_signature: str | None = None,
) -> list[BaseCandidate]:
    """What a new version may be stored as a difference to, the likeliest first."""
    found: dict[str, BaseCandidate] = {}
    wanted: dict[BaseReason, Iterator[str]] = {
        "parent": _of_model(session, upload, None if parent_version is None else model, parent_version),
        "previous": _of_model(session, upload, model, None),
        "tensors": _of_tensors(session, upload, tensor_signature),
    }
    for reason, digests in wanted.items():
        for digest in digests:
            if digest not in found and (layout_key := _layout_here(session, upload, digest)):
                found[digest] = BaseCandidate(digest=digest, layout_key=layout_key, reason=reason)
    return list(found.values())


def _of_model(session: Session, upload: UploadRow, model: str | None, version: int | None) -> Iterator[str]:
    """The artifact of one version of a model, or those of its newest READY ones."""
    if model is None:
        return
    query = (
        select(ModelVersionRow.artifact_digest)
        .join(
            RegisteredModelRow,
            (RegisteredModelRow.workspace_id == ModelVersionRow.workspace_id)
            & (RegisteredModelRow.id == ModelVersionRow.model_id),
        )
        .where(
            RegisteredModelRow.workspace_id == upload.workspace_id,
            RegisteredModelRow.name == model,
            ModelVersionRow.residency == upload.residency,
            ModelVersionRow.state == "READY",
        )
        .order_by(ModelVersionRow.version.desc())
        .limit(_PREVIOUS)
    )
    if version is not None:
        query = query.where(ModelVersionRow.version == version)
    yield from (digest for digest in session.scalars(query) if digest is not None)


def _of_tensors(session: Session, upload: UploadRow, tensor_signature: str | None) -> Iterator[str]:
    if tensor_signature is None:
        return
    yield from session.scalars(
        select(ArtifactRow.digest)
        .where(
            ArtifactRow.workspace_id == upload.workspace_id,
            ArtifactRow.residency == upload.residency,
            ArtifactRow.key_id == upload.key_id,
            ArtifactRow.tensor_signature == tensor_signature,
        )
        .order_by(ArtifactRow.created_at.desc(), ArtifactRow.digest)
        .limit(_SAME_TENSORS)
    )


def _layout_here(session: Session, upload: UploadRow, digest: str) -> str | None:
    replica = session.get(ReplicaRow, (upload.workspace_id, upload.residency, digest, upload.location_id))
    if replica is None or replica.state != "VERIFIED" or not replica.is_wanted or replica.layout_key is None:
        return None
    # An artifact that is moving to another key is still written under the old one here.
    is_ours = replica.layout_key.startswith(f"{upload.workspace_id}/{upload.residency}/{upload.key_id}/")
    return replica.layout_key if is_ours else None

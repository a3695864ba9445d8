"""The route of lineage."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from fairlead.registry.access import MayRead
from fairlead.registry.wire import AnswerModel
from fairlead.serving.lineage import LineageQuestion, Lineages, NodeKind

Asked = Annotated[str | None, Query(max_length=600)]


class NodeOut(AnswerModel):
    """A thing: a run, commit, feature service, snapshot, version, bundle, alias or deployment."""

    id: str
    kind: NodeKind
    name: str
    facts: dict[str, Any]


class EdgeOut(AnswerModel):
    """That `target` was made of, holds or runs `source`."""

    source: str
    target: str
    relation: str


class LineageOut(AnswerModel):
    """What something was made from and what was made of it; edges lead from the earlier to the later."""

    roots: list[str]
    nodes: list[NodeOut]
    edges: list[EdgeOut]
    is_whole: Annotated[bool, Field(description="False where there are more versions than one answer holds.")]


def lineage_router(lineages: Lineages) -> APIRouter:
    """Where things came from, and where they went."""
    router = APIRouter(prefix="/lineage", tags=["lineage"])

    @router.get("", response_model=LineageOut)
    def ask(
        caller: MayRead,
        *,
        version: Asked = None,
        snapshot: Asked = None,
        bundle: Asked = None,
        run: Asked = None,
        commit: Asked = None,
    ) -> Any:
        """Show what a version (`churn/3`, `churn@production`), snapshot, bundle, run or commit came from and became."""
        return lineages.ask(
            caller, LineageQuestion(version=version, snapshot=snapshot, bundle=bundle, run=run, commit=commit)
        )

    return router

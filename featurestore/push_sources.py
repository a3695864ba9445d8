"""Push sources: which views take the rows of a stream, and what its messages look like.

Every stream of a view is pushed to by its name: Feast's `PushSource` as well as Kafka and Kinesis sources, whose topic
is what a consumer reads. What a view's rows go through first (a user's function) never runs here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from fairlead.core.errors import PushSourceNotFound
from fairlead.featurestore.definitions import VIEW, ViewDefinition, view_from_content
from fairlead.featurestore.streams import StreamDefinition
from fairlead.featurestore.tables import FeatureDefinitionRow, FeatureVersionRow

MessageFormat = Literal["json", "arrow"]
_TOPICS = {"STREAM_KAFKA": "topic", "STREAM_KINESIS": "streamName"}
_FORMATS = {"STREAM_KAFKA": "messageFormat", "STREAM_KINESIS": "recordFormat"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSource:
    """A stream and the views that it feeds.

    `topic` is its name at the broker. `format` is None where the definition names none, or one that nobody here reads.
    `transformed` are the views whose rows go through a function before.
    """

    name: str
    kind: str
    topic: str
    format: MessageFormat | None
    views: tuple[ViewDefinition, ...]

    @property
    def transformed(self) -> tuple[str, ...]:
        """The views whose rows go through a user's function before they are rows of the view."""
        return tuple(view.name for view in self.views if view.transformation is not None)


def find_push_source(session: Session, workspace_id: str, name: str) -> PushSource:
    """The stream of this name, with the present versions of the views that it feeds.

    Raises:
        PushSourceNotFound: if no view takes rows from it.
    """
    views = [view for view in present_views(session, workspace_id) if view.stream and view.stream.name == name]
    if not views or views[0].stream is None:
        raise PushSourceNotFound(
            f"No feature view takes rows from {name[:80]!r}.",
            hint=f"Give one the source PushSource(name={name[:80]!r}, batch_source=...), and run: "
            "fairlead features apply PATH",
            source=name[:80],
        )
    stream = views[0].stream
    return PushSource(
        name=name,
        kind=stream.kind,
        topic=str(stream.place.get(_TOPICS.get(stream.kind, ""), name)),
        format=_format(stream),
        views=tuple(views),
    )


def present_views(session: Session, workspace_id: str) -> list[ViewDefinition]:
    """The present version of every view, by name."""
    query = (
        select(FeatureDefinitionRow, FeatureVersionRow.content)
        .join(
            FeatureVersionRow,
            and_(
                FeatureVersionRow.workspace_id == FeatureDefinitionRow.workspace_id,
                FeatureVersionRow.kind == FeatureDefinitionRow.kind,
                FeatureVersionRow.name == FeatureDefinitionRow.name,
                FeatureVersionRow.digest == FeatureDefinitionRow.digest,
            ),
        )
        .where(
            FeatureDefinitionRow.workspace_id == workspace_id,
            FeatureDefinitionRow.kind == VIEW,
            FeatureDefinitionRow.removed_at.is_(None),
        )
        .order_by(FeatureDefinitionRow.name)
    )
    return [
        view_from_content(content, row.residency, row.home, row.column_residency)
        for row, content in session.execute(query)
    ]


def _format(stream: StreamDefinition) -> MessageFormat | None:
    said: Any = stream.place.get(_FORMATS.get(stream.kind, ""))
    return "json" if isinstance(said, dict) and "jsonFormat" in said else None

"""Views that live in other regions, as Feast's users ask for them: joined there, by Fairlead's feature agents.

A view with the tag `fairlead.home` is planned at the registry, which refuses what residency rules forbid before
anything leaves; of the entity rows only join keys, times and a row number go to its home, and only the asked features
come back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Literal

from feast.repo_config import FeastConfigBaseModel
from pydantic import SecretStr

from fairlead.core.errors import InvalidInput
from fairlead.featurestore.definitions import HOME_TAG
from fairlead.featurestore.duck import ArrowTable
from fairlead.featurestore.feast_history import Question, WantedView

_log = logging.getLogger(__name__)
_EVENT_TIMESTAMP = "event_timestamp"


class FederationConfig(FeastConfigBaseModel):
    """Which server plans the reads, and as what they are planned."""

    url: str | None = None
    """The Fairlead server; without it `FAIRLEAD_URL`, or else the embedded one."""
    token: SecretStr | None = None
    """Without it `FAIRLEAD_TOKEN`."""
    region: str | None = None
    """Where results go: the region that this process runs in. Views that are at home there are read as others are."""
    residency: str = "unrestricted"
    """The residency class of the entity rows."""
    live: bool = True
    """Whether a view's source is read, as Feast does, or else its newest snapshot."""
    on_unavailable: Literal["error", "stale", "missing"] = "error"
    """What becomes of views whose home does not answer."""


def is_elsewhere(wanted: WantedView, federation: FederationConfig | None) -> bool:
    """Whether a view is joined in another region."""
    home = wanted.view.tags.get(HOME_TAG)
    return federation is not None and bool(home) and home != federation.region


def join_elsewhere(federation: FederationConfig, entity_rows: ArrowTable, question: Question) -> Mapping[str, Any]:
    """The columns of features of views that live elsewhere, by their names, in the order of the entity rows.

    Raises:
        ResidencyViolation: before anything leaves.
        AgentUnavailable: if a region does not answer, and nothing may stand in for it.
        InvalidInput: if it is asked as of what was known then, which agents cannot answer.
    """
    if question.is_known:
        raise InvalidInput(
            "Views of other regions are joined by event timestamps alone.",
            hint="Leave filter_by_created_timestamp out, or ask for those views by themselves.",
        )
    found: dict[str, Any] = {}
    # The client's front door, as in any process of a user; nothing else of this package has use for it.
    connect: Any = import_module("fairlead").connect
    token = federation.token.get_secret_value() if federation.token else None
    with connect(federation.url, token=token) as client:
        for group in _by_keys(question.views):
            read = client.federation.read(
                _rows_for(group, entity_rows, question.time_column),
                features=[f"{wanted.view.name}:{feature}" for wanted in group for feature, _ in wanted.features],
                live=federation.live,
                region=federation.region,
                residency=federation.residency,
                on_unavailable=federation.on_unavailable,
            )
            outputs: Any = read.plan["outputs"]
            columns = {(each["alias"], each["feature"]): str(each["column"]) for each in outputs}
            _say_what_stands_in(read)
            for wanted in group:
                for feature, name in wanted.features:
                    found[name] = read.table.column(columns[wanted.view.name, feature])
    return found


def _say_what_stands_in(read: Any) -> None:
    """Warn of what was not joined in its region: Feast's result has no place to say so."""
    for hop in read.hops:
        if hop.outcome != "joined":
            old = ", ".join(f"{view}: {digest} of {as_of}" for view, (digest, as_of) in hop.snapshots.items())
            _log.warning(
                "%s: %s of %s, which did not answer (%s)%s",
                hop.outcome.upper(),
                ", ".join(hop.views),
                hop.region,
                hop.problem,
                f"; in its place {old}" if old else "",
            )


def _by_keys(views: Sequence[WantedView]) -> list[list[WantedView]]:
    """Views that can be asked for at once: each under its own name, by the same columns of the entity rows."""
    groups: list[list[WantedView]] = []
    for wanted in views:
        is_renamed = any(key != name for key, name in wanted.keys)
        for group in groups:
            names = {each.view.name for each in group}
            if not is_renamed and wanted.view.name not in names and not any(k != n for e in group for k, n in e.keys):
                group.append(wanted)
                break
        else:
            groups.append([wanted])
    return groups


def _rows_for(group: Sequence[WantedView], entity_rows: ArrowTable, time_column: str) -> ArrowTable:
    keys = dict(pair for wanted in group for pair in wanted.keys)
    rows = entity_rows.select([*keys.values(), time_column])
    return rows.rename_columns([*keys, _EVENT_TIMESTAMP])

"""How many bytes a hop of a federated read takes, and what else there would be to do: estimates, and said to be.

What goes out is known: the columns' bytes in Arrow, and eight for each row's number. What comes back is reckoned from
the schema: one answer for each entity row, each value of its type's width; texts and lists of the length between the
shortest and the longest that the snapshot has, and of a usual one where that is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session

from fairlead.catalog import Catalog, Residency, permits
from fairlead.featurestore.definitions import Column
from fairlead.featurestore.federation_plan import Moving
from fairlead.featurestore.replica_rows import ArtifactName, verified_regions
from fairlead.featurestore.tickets import TicketPart
from fairlead.registry import ledger
from fairlead.registry.tables import ArtifactRow

ROW_NUMBER_BYTES = 8
_USUAL_TEXT_BYTES = 16
_USUAL_LIST_LENGTH = 8
_OFFSET_BYTES = 4
_WIDTHS = {"INT32": 4.0, "INT64": 8.0, "FLOAT": 4.0, "DOUBLE": 8.0, "BOOL": 0.125, "UNIX_TIMESTAMP": 8.0}
_NULL_BYTES = 0.125


def bytes_back(features: Iterable[Column], rows: int, lengths: Mapping[str, float]) -> int:
    """About how many bytes features take for so many rows; `lengths` are of their texts and lists, by name."""
    return math.ceil(sum(_width(each.type, lengths.get(each.name)) for each in features) * rows)


def lengths_of(statistics: Mapping[str, Any] | None) -> dict[str, float]:
    """How long texts and lists are halfway between the shortest and the longest, as far as a part's statistics say."""
    columns: Mapping[str, Mapping[str, Any]] = (statistics or {}).get("columns", {})
    return {
        name: (facts["shortest"] + facts["longest"]) / 2
        for name, facts in columns.items()
        if facts.get("shortest") is not None and facts.get("longest") is not None
    }


def _width(kind: str, length: float | None = None) -> float:
    if kind.endswith("_LIST"):
        items = _USUAL_LIST_LENGTH if length is None else length
        return _OFFSET_BYTES + items * _width(kind.removesuffix("_LIST")) + _NULL_BYTES
    return _WIDTHS.get(kind, _OFFSET_BYTES + (_USUAL_TEXT_BYTES if length is None else length)) + _NULL_BYTES


def moving(
    session: Session,
    catalog: Catalog,
    *,
    workspace_id: str,
    parts: Sequence[TicketPart],
    home: str,
    region: str,
    usd_a_read: Decimal,
) -> Moving | None:
    """What replicating the parts from a view's home to the reader's region would take; None if nothing is stored."""
    jurisdiction = catalog.region(region).jurisdiction
    refused = next((part.residency for part in parts if not permits(Residency(part.residency), jurisdiction)), None)
    missing = 0
    for part in parts:
        if part.digest is None:
            return None
        name = ArtifactName(workspace_id=workspace_id, residency=part.residency, digest=part.digest)
        row = session.get(ArtifactRow, (workspace_id, part.residency, part.digest))
        if row is None:
            return None
        missing += 0 if region in verified_regions(session, name) else row.size_bytes
    usd = ledger.transfer_cost(catalog, source_region=home, region=region, size_bytes=missing).usd
    if refused is not None:
        why = f"{refused} data may not be in {region}"
        return Moving(bytes=missing, usd=usd, pays_after=None, refused=why)
    pays_after = None if usd_a_read <= 0 else math.ceil(usd / usd_a_read)
    return Moving(bytes=missing, usd=usd, pays_after=pays_after, refused=None)

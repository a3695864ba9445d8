"""What a copy costs, as its plan and its ledger entry say it: egress, and the requests for each object that is sent."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from fairlead.registry import ledger
from fairlead.sync.hops import EXTRA_OBJECTS, HopPrices, usd

if TYPE_CHECKING:
    from fairlead.catalog import Catalog
    from fairlead.core.ids import Digest
    from fairlead.registry.ledger import Cost
    from fairlead.sync.store.copy import CopyPlan
    from fairlead.sync.store.layout import Layout


def copy_cost(catalog: Catalog, *, source_region: str, region: str, size_bytes: int, objects: int) -> Cost:
    """What it costs to bring so many bytes in so many objects, each got, put and read back once.

    Raises:
        UnknownRegion: if the catalog has not one of the regions.
    """
    cost = ledger.transfer_cost(catalog, source_region=source_region, region=region, size_bytes=size_bytes)
    requests = usd(HopPrices(catalog).requests(source_region, region, objects))
    return replace(cost, usd=cost.usd + requests, price_source=f"{cost.price_source}; requests at list price")


def planned_objects(plan: CopyPlan, brought: Collection[Digest]) -> int:
    """How many objects a copy will have sent, with the packs that earlier attempts brought."""
    repacked = sum(block.stored_length for block in (*plan.loose, *plan.rewritten))
    return len(plan.whole_packs) + math.ceil(repacked / plan.pack_bytes) + len(brought) + EXTRA_OBJECTS


def sent_objects(plan: CopyPlan, written: Layout, brought: Collection[Digest]) -> int:
    """How many objects a copy has sent, with the packs that earlier attempts brought."""
    return len((set(written.packs) - plan.known_packs.keys()) | set(brought)) + EXTRA_OBJECTS

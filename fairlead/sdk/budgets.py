"""Budgets: what copies between regions may cost in a day or a month, and how fast they may go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from fairlead.core.ids import parse_name
from fairlead.sdk.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Record):
    """A budget, and how much of it is left until `resets_at`. Dollars are decimal text; no region means any."""

    name: str
    source_region: str | None = None
    region: str | None = None
    period: str
    limit_usd: str | None = None
    bytes_per_second: int | None = None
    spent_usd: str
    reserved_usd: str
    resets_at: datetime
    revision: int
    updated_by: str
    updated_at: datetime


class Budgets:
    """What copies may cost, and how fast they may go."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Budget]:
        """All budgets by name."""
        return map(Budget.from_json, self._transport.items("/api/v1/budgets"))

    def get(self, name: str) -> Budget:
        """One budget.

        Raises:
            BudgetNotFound: if there is none of that name.
        """
        return Budget.from_json(self._transport.get(_path(name)))

    def set(
        self,
        name: str,
        *,
        source_region: str | None = None,
        region: str | None = None,
        period: str = "month",
        limit_usd: str | None = None,
        bytes_per_second: int | None = None,
        revision: int | None = None,
    ) -> Budget:
        """Make or replace a budget; with `revision`, only if it is still at that one (0: not there yet).

        A copy that would exceed `limit_usd` (such as "50") in its period (day or month, UTC) waits, unless a promotion
        to production waits for it.

        Raises:
            StaleRevision: if someone changed it first.
            UnknownRegion: if the catalog has not one of the regions.
        """
        body: dict[str, JsonValue] = {
            "source_region": source_region,
            "region": region,
            "period": period,
            "limit_usd": limit_usd,
            "bytes_per_second": bytes_per_second,
        }
        return Budget.from_json(self._transport.request("PUT", _path(name), body=body, if_match=revision))

    def delete(self, name: str, *, revision: int | None = None) -> None:
        """Delete a budget; copies that it kept waiting go on.

        Raises:
            BudgetNotFound: if there is none of that name.
        """
        self._transport.request("DELETE", _path(name), if_match=revision)


def _path(name: str) -> str:
    return f"/api/v1/budgets/{quote(parse_name(name, what='budget'), safe='')}"

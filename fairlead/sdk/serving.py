"""Where models should run: what the placement engine answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fairlead.sdk.records import FleetPlacement, Placement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import Transport

_SOLVING_SECONDS = 900.0
"""A front and sensitivities over every region there is, with a loss to survive, are some hundred programmes."""


class Placements:
    """Answers of the placement engine."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, request: Mapping[str, JsonValue]) -> Placement:
        """Solve a placement request and keep the answer.

        Raises:
            InvalidInput: with the JSON pointer of the member in `attributes["pointer"]`.
            PlacementInfeasible: naming the limits to relax.
        """
        return Placement.from_json(self._solve("/api/v1/placements", request))

    def create_fleet(self, fleet: Mapping[str, JsonValue]) -> FleetPlacement:
        """Place many models under the quotas that they share (`models`, `quotas`, `defaults`), and keep each answer.

        Raises:
            InvalidInput: with the JSON pointer of the member in `attributes["pointer"]`.
            PlacementInfeasible: naming the model, or the quotas that no mix of placements keeps.
        """
        return FleetPlacement.from_json(self._solve("/api/v1/placements/fleet", fleet))

    def _solve(self, path: str, question: Mapping[str, JsonValue]) -> dict[str, Any]:
        return self._transport.post(path, question, silence_seconds=_SOLVING_SECONDS)

    def get(self, placement_id: str) -> Placement:
        """A kept answer.

        Raises:
            NotFound: if there is none of that id.
        """
        return Placement.from_json(self._transport.get(f"/api/v1/placements/{quote(placement_id, safe='')}"))

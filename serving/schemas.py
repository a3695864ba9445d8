"""What serving's routes take and give, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer

from fairlead.core.clock import format_time

Time = Annotated[datetime, PlainSerializer(format_time, return_type=str)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", from_attributes=True)


class PlacementOut(_Strict):
    """A placement request and its answer."""

    id: str
    request: dict[str, Any]
    answer: dict[str, Any]
    created_by: str
    created_at: Time


class FleetPlacementOut(_Strict):
    """A fleet's answer; `placements` holds, by model, the id of its placement."""

    placements: dict[str, str]
    answer: dict[str, Any]

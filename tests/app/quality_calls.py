"""Calls of what is expected of snapshots and of erasures, as the rehearsal of every route makes them."""

from __future__ import annotations

from typing import Any

from fairlead.app.service import Service
from fairlead.featurestore.expectations import from_json
from tests.record_world import World


def quality_calls(service: Service, world: World) -> dict[str, dict[str, Any]]:
    """The members of each call, by route; makes what they change."""
    expected = from_json({"view": "cells", "expectations": [{"kind": "rows", "max": 100}]})
    service.features.expectations.put(world.owner, "old", expected, expected_revision=0)
    return {
        "PUT /features/expectations/{name}": {
            "path": "/features/expectations/new",
            "body": {"view": "cells", "expectations": [{"kind": "rows", "min": 1}]},
        },
        "DELETE /features/expectations/{name}": {"path": "/features/expectations/old"},
        "POST /features/erasures": {
            "path": "/features/erasures",
            "body": {"entities": ["patient"], "salt": "0" * 64, "subject_hash": "1" * 64, "reason": "request 1"},
        },
    }

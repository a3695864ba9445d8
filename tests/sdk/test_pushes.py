"""Pushing rows: in requests that a server reads, each row under the index that the caller knows."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pyarrow as pa
import pytest

from fairlead.core.errors import FeatureRowsInvalid, InvalidInput
from fairlead.sdk.pushes import ARROW_BYTES_AT_ONCE, JSON_BYTES_AT_ONCE, ROWS_AT_ONCE, push_rows
from fairlead.sdk.transport import Transport

arrow: Any = pa


class Server:
    """Keeps the bodies that it was sent, and refuses the rows that say so."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def send(self, *_: Any, content: bytes, content_type: str, **__: Any) -> Any:
        self.bodies.append(content)
        rows = json.loads(content)["rows"] if content_type == "application/json" else list[Any]()
        bad = [number for number, row in enumerate(rows) if row.get("radius") == "bad"]
        if bad:
            told: list[Any] = [{"row": bad[0], "column": "radius", "reason": "is no FLOAT"}]
            raise FeatureRowsInvalid(f"In row {bad[0]}.", hint="Correct them.", refused=len(bad), rows=told)
        return self

    def json(self) -> Mapping[str, Any]:
        view = {"view": "cells", "accepted": 1, "duplicates": 0, "is_online": True}
        return {"region": "aws:us-east-1", "views": [view]}


@pytest.fixture
def server() -> Server:
    return Server()


def push(server: Server, rows: Any, event_ids: list[str] | None = None) -> Any:
    return push_rows(cast("Transport", server), "measurements", rows, to="online", region=None, event_ids=event_ids)


def test_refused_rows_have_the_index_that_the_caller_knows_also_in_a_later_request(server: Server) -> None:
    rows: list[dict[str, Any]] = [{"radius": 1.0} for _ in range(ROWS_AT_ONCE)]
    with pytest.raises(FeatureRowsInvalid) as caught:
        push(server, [*rows, {"radius": 2.0}, {"radius": "bad"}])
    assert caught.value.attributes["rows"] == [{"row": ROWS_AT_ONCE + 1, "column": "radius", "reason": "is no FLOAT"}]
    assert f"The {ROWS_AT_ONCE} rows before were taken" in caught.value.detail


def test_no_request_is_larger_than_a_server_reads(server: Server) -> None:
    rows = [{"note": "x" * (JSON_BYTES_AT_ONCE // 3)} for _ in range(5)]
    (pushed,) = push(server, rows, event_ids=list("abcde"))
    assert pushed.accepted == 3
    bodies = [json.loads(body) for body in server.bodies]
    assert [(len(body["rows"]), "".join(body["event_ids"])) for body in bodies] == [(2, "ab"), (2, "cd"), (1, "e")]
    server.bodies.clear()
    push(server, arrow.table({"note": ["x" * (ARROW_BYTES_AT_ONCE // 3)] * 4}))
    assert len(server.bodies) == 2


def test_values_of_python_have_a_form_in_json(server: Server) -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    push(server, [{"a": b"\xff", "b": [b"\x00"], "c": [moment], "d": float("nan"), "e": arrow.scalar(1).as_py()}])
    (row,) = json.loads(server.bodies[0])["rows"]
    text = base64.b64encode(b"\xff").decode()
    assert row == {"a": text, "b": ["AA=="], "c": ["2026-03-01T00:00:00+00:00"], "d": None, "e": 1}


def test_a_value_without_one_is_refused_by_its_row(server: Server) -> None:
    for value in ({"a": object()}, "text", None):
        with pytest.raises(InvalidInput, match="Row 1"):
            push(server, [{"a": 1}, value])

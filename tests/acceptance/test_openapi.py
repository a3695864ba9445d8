"""The API answers what its own description says, whatever is sent: no crash, no answer of an undescribed form."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import nullcontext, suppress
from importlib import import_module
from typing import Any, cast

import httpx2
import pyarrow as pa
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests.acceptance.command_line import LABELS, CommandLine, write_folder
from tests.acceptance.world import write_feast_repository
from tests.serving.models import model_files

pytestmark = pytest.mark.timeout(480)

EXAMPLES_EACH = 6
OPEN = {"/healthz": 200, "/api/v1/tokens/exchange": 400, "/api/v1/login": 200}
"""What needs no API token, and its answer to an empty request: the exchange wants a token of another kind."""
SECONDS = 30
# Typed in part.
_of_all: Any = import_module("schemathesis.checks")
_of_openapi: Any = import_module("schemathesis.specs.openapi.checks")
CHECKS: list[Any] = [
    _of_all.not_a_server_error,
    _of_openapi.status_code_conformance,
    _of_openapi.content_type_conformance,
    _of_openapi.response_schema_conformance,
]


ARROW_STREAM = "application/vnd.apache.arrow.stream"
arrow: Any = pa


def arrow_stream(keys: list[int], column: str) -> bytes:
    """Entity rows as a client sends them."""
    times = arrow.array([1_800_000_000_000_000] * len(keys), arrow.timestamp("us", tz="UTC"))
    table = arrow.table({column: arrow.array(keys, arrow.int64()), "event_timestamp": times})
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


schemathesis.openapi.media_type(
    ARROW_STREAM,
    st.binary(max_size=64)
    | st.builds(
        arrow_stream, st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3), st.sampled_from(["sample_id", "who"])
    ),
)


@schemathesis.serializer(ARROW_STREAM)
def serialize_arrow(ctx: Any, value: Any) -> bytes:
    del ctx
    return bytes(value)


@pytest.fixture(scope="module")
def known(fairlead: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Names and ids that exist, by the path parameter that takes them, so that requests get past the first look-up."""
    folder = write_folder(tmp_path_factory.mktemp("model"), model_files(0.5, extra_bytes=20_000))
    fairlead("features", "apply", write_feast_repository(tmp_path_factory.mktemp("clinic")))
    snapshot = fairlead.json("features", "snapshot", "diagnosis")
    version = fairlead.json("model", "register", "churn", folder, *LABELS, "--snapshot", snapshot["digest"])
    fairlead("model", "alias", "churn@champion", "1")
    promoted = fairlead.json("model", "promote", "churn/1", "--to", "dev")
    return {
        "name": ["churn", "diagnosis"],
        "version": [1],
        "alias": ["champion", "dev", "newest"],
        "environment": ["dev", "production"],
        "promotion": [promoted["id"]],
        "digest": [version["artifact_digest"]],
        "reference": [snapshot["digest"], snapshot["id"]],
    }


@pytest.fixture(scope="module")
def api(fairlead: CommandLine, known: dict[str, list[Any]]) -> Generator[tuple[Any, dict[str, str]]]:
    """The served description, and the headers of its owner."""
    assert known
    headers = {"authorization": f"Bearer {fairlead.token}"}
    yield schemathesis.openapi.from_url(f"{fairlead.address['url']}/openapi.json"), headers
    fairlead("model", "list")


def test_every_answer_is_of_a_described_form(
    api: tuple[Any, dict[str, str]], known: dict[str, list[Any]], fairlead: CommandLine
) -> None:
    schema, headers = api
    instance = fairlead.address["instance"]
    asked: dict[str, list[int]] = {}
    started = time.monotonic()
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update(headers)
        for result in schema.get_all_operations():
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                strategy = result.ok().as_strategy(generation_mode=mode)
                # What takes nothing cannot be given anything wrong.
                with suppress(Unsatisfiable) if mode == GenerationMode.NEGATIVE else nullcontext():
                    check(strategy, session, known, asked.setdefault(result.ok().label, []), until=started + SECONDS)
    statuses = {status for answers in asked.values() for status in answers}
    # The requests were not all refused at the door.
    assert {200, 201, 400, 404} <= statuses
    assert all(asked.values()), [label for label, answers in asked.items() if not answers]
    assert fairlead.address["instance"] == instance, "the server died on the way"


def test_the_description_names_every_route_and_its_errors(api: tuple[Any, dict[str, str]]) -> None:
    schema, _ = api
    document = cast("dict[str, Any]", schema.raw_schema)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            problem = operation["responses"]["4XX"]["content"]["application/problem+json"]["schema"]
            assert problem == {"$ref": "#/components/schemas/Problem"}, (method, path)
            assert path in OPEN or operation["security"], (method, path)


def test_without_a_token_nothing_is_answered(api: tuple[Any, dict[str, str]], fairlead: CommandLine) -> None:
    schema, _ = api
    with httpx2.Client(base_url=fairlead.address["url"], trust_env=False) as client:
        for path, methods in schema.raw_schema["paths"].items():
            for method in methods:
                answer = client.request(method.upper(), path.replace("{", "").replace("}", ""))
                assert answer.status_code == OPEN.get(path, 401), (method, path)


def check(
    strategy: Any, session: requests.Session, known: dict[str, list[Any]], answers: list[int], *, until: float
) -> None:
    """Send what the strategy makes, with names that exist about half of the time."""

    @settings(
        max_examples=EXAMPLES_EACH,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(case=strategy, data=st.data())
    def send(case: Any, data: st.DataObject) -> None:
        for parameter in cast("dict[str, Any]", case.path_parameters or {}):
            if parameter in known and data.draw(st.booleans()):
                case.path_parameters[parameter] = data.draw(st.sampled_from(known[parameter]))
        if answers and time.monotonic() > until:
            return
        response = case.call(session=session, timeout=30)
        answers.append(response.status_code)
        case.validate_response(response, checks=CHECKS)
        if response.status_code >= 400:
            (kind,) = response.headers["content-type"]
            problem = response.json()
            assert kind == "application/problem+json", (case, kind)
            assert {"type", "title", "status", "detail"} <= problem.keys(), (case, problem)
            assert problem["status"] == response.status_code, (case, problem)

    send()

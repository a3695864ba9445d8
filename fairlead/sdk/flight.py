"""Calls to feature agents: Arrow Flight over TLS, held to the certificate that the registry knows the agent by."""

from __future__ import annotations

import contextlib
import json
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.errors import AgentNotTrusted, AgentUnavailable, AnswerCorrupt
from fairlead.core.problems import from_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fairlead.core.errors import FairleadError, JsonValue

_ROWS_A_BATCH = 64 * 1024
_ANSWER_SECONDS = 3600.0
_IS_IT_THERE = [
    # Whether the agent's machine is still there, asked as often as gRPC's servers suffer it.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]
_NOT_TRUSTED = ("certificate", "ssl handshake failed", "ssl_error", "hostname verification")


def exchange(agent: Mapping[str, JsonValue], ticket: str, entity_rows: Any, *, authorization: str) -> tuple[Any, int]:
    """Send entity rows to an agent with a ticket; the Arrow table it answers, and the bytes of it.

    Raises:
        AgentNotTrusted: if who answers at the address has not the agent's certificate.
        AgentUnavailable: if nobody answers, or not to the end.
        FairleadError: what the agent raised.
    """
    arrow: Any = import_module("pyarrow")
    flight: Any = import_module("pyarrow.flight")
    region, certificate = str(agent["region"]), str(agent["certificate"]).encode()
    options = flight.FlightCallOptions(timeout=_ANSWER_SECONDS, headers=[(b"authorization", authorization.encode())])
    command = flight.FlightDescriptor.for_command(ticket.encode())
    try:
        client = flight.connect(
            f"grpc+tls://{agent['address']}", tls_root_certs=certificate, generic_options=_IS_IT_THERE
        )
        try:
            writer, reader = client.do_exchange(command, options)
            # An agent that refuses a call does so while rows are still being sent: what it said is read below.
            with contextlib.suppress(flight.FlightError, arrow.ArrowException, OSError):
                writer.begin(entity_rows.schema)
                writer.write_table(entity_rows, max_chunksize=_ROWS_A_BATCH)
                writer.done_writing()
            try:
                answer = _read(arrow, reader, entity_rows.num_rows, region)
            finally:
                with contextlib.suppress(flight.FlightError, arrow.ArrowException, OSError):
                    writer.close()
        finally:
            client.close()
    except flight.FlightError as error:
        raise _explain(error, region) from None
    except (arrow.ArrowException, OSError):
        # What Arrow makes of a stream that breaks off; its text may hold anything.
        raise _away(region, "its answer broke off") from None
    return answer, answer.nbytes


def _read(arrow: Any, reader: Any, rows: int, region: str) -> Any:
    batches: list[Any] = []
    count = 0
    schema = reader.schema
    for chunk in reader:
        count += chunk.data.num_rows
        if count > rows:
            raise AnswerCorrupt(f"The feature agent of {region} answered more rows than it was sent.", region=region)
        batches.append(chunk.data)
    answer = arrow.Table.from_batches(batches, schema=schema)
    answer.validate(full=True)
    return answer


def _explain(error: Any, region: str) -> FairleadError:
    problem = _problem(error)
    if problem is not None:
        return from_problem(problem, status=int(cast("int", problem.get("status", 500))))
    text = str(error).lower()
    if any(sign in text for sign in _NOT_TRUSTED):
        return AgentNotTrusted(
            f"Who answers in place of the feature agent of {region} has not its certificate.",
            hint="Nothing was sent. An admin registers another certificate: fairlead agent add",
            region=region,
        )
    return _away(region, "it does not answer")


def _problem(error: Any) -> dict[str, JsonValue] | None:
    try:
        found: object = json.loads(error.extra_info)
    except (ValueError, TypeError):
        return None
    return cast("dict[str, JsonValue]", found) if isinstance(found, dict) and "type" in found else None


def _away(region: str, why: str) -> AgentUnavailable:
    return AgentUnavailable(
        f"The feature agent of {region} is away: {why}.",
        hint="See: fairlead agent list. To go on without: --on-unavailable stale, or missing.",
        region=region,
    )

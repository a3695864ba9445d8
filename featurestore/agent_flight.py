"""The feature agent: an Arrow Flight server that joins in its region what tickets say, and nothing else.

One method is answered, `DoExchange`: its command is a ticket, its header `authorization` the caller's token. Entity
rows come in, and what goes back is the row number with the columns that were asked for. The token is judged before
anything of a call is read, and the ticket before its rows are: that this registry signed it, for this region and this
token, that no residency rule forbids it, and that the rows are going to be keys and times, in a form that says at once
how large they are. Rows, bytes both ways, time, joins at once and each caller's calls are limited. Nothing ends the
call of somebody who stops sending or reading, so such a call keeps its thread, but no join's place, none of its rows,
and, once its time is over, no place of its caller's. Every error carries its problem document, as in the REST API;
neither that nor a log holds a key or value.
"""

from __future__ import annotations

import hmac
import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from fairlead.core.errors import (
    AgentBusy,
    AgentUnavailable,
    BodyTooLarge,
    FairleadError,
    InvalidInput,
    JoinTimedOut,
    MethodNotAllowed,
    PermissionDenied,
    TicketInvalid,
    Unauthenticated,
    Unavailable,
)
from fairlead.core.ids import new_row_id
from fairlead.core.ports import Clock
from fairlead.core.problems import to_problem
from fairlead.featurestore.agents import Crossing
from fairlead.featurestore.duck import ArrowTable, bounded, load_arrow
from fairlead.featurestore.ticket_joins import TicketJoins
from fairlead.featurestore.tickets import Ticket, open_ticket, token_hash
from fairlead.sync.scratch import Scratch

_ROWS_A_BATCH = 64 * 1024
_WAIT_SECONDS = 5.0
_TOKENS_AT_ONCE = 8
_STOP_SECONDS = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLimits:
    """What one agent does at most.

    Rows and bytes of one call's entity rows, bytes of its answer, seconds for a call, joins at once, and calls of one
    principal under way at once.
    """

    rows: int = 20_000_000
    bytes: int = 2 * 2**30
    answer_bytes: int = 4 * 2**30
    joins: int = 4
    calls: int = 16
    seconds: float = 600.0


class AgentRegistry(Protocol):
    """What an agent asks of its registry."""

    @property
    def workspace(self) -> str:
        """The workspace that the agent is of."""
        ...

    def public_keys(self) -> tuple[bytes, ...]:
        """The keys that sign tickets, as they were last heard."""
        ...

    def check_token(self, token: str) -> None:
        """Ask whether a token is still good; while the registry is away, what was planned with it may go on.

        Raises:
            Unauthenticated: if it is not.
        """
        ...

    def report(self, ticket: str, crossing: Crossing) -> None:
        """Tell, now or later, what went through."""
        ...


class FeatureAgentServer:
    """Serves on an address with a certificate, until it is shut down.

    `certificate` and `key` are PEM. `observe` sees each table that comes in or goes out, for tests of what crosses.
    """

    def __init__(
        self,
        joins: TicketJoins,
        registry: AgentRegistry,
        clock: Clock,
        *,
        region: str,
        host: str,
        port: int,
        certificate: bytes,
        key: bytes,
        scratch: Scratch,
        limits: AgentLimits,
        observe: Callable[[str, ArrowTable], None] | None = None,
    ) -> None:
        flight = load_flight()
        self._exchange = exchange = _Exchange(
            joins, registry, clock, region=region, scratch=scratch, limits=limits, observe=observe, flight=flight
        )
        name = f"[{host}]" if ":" in host else host
        self._server: Any = _server_class(flight)(
            exchange,
            f"grpc+tls://{name}:{port}",
            tls_certificates=[(certificate, key)],
            middleware={"caller": _callers_class(flight)(exchange)},
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.port)

    def occupied(self) -> AbstractContextManager[None]:
        """Take the place of one join while the block runs, which shows what a busy agent answers.

        Raises:
            AgentBusy: if as many go on as may.
        """
        return self._exchange.slot()

    def calls_of(self, principal: str) -> int:
        """How many calls of a principal are under way."""
        return self._exchange.places.count(principal)

    def serve(self) -> None:
        """Wait until `shutdown`: it has answered since it was made.

        Arrow's own way to do so takes the process's signals for itself, and then waits for whoever stopped sending.
        """
        self._server.wait()

    def shutdown(self) -> bool:
        """Take no more calls, and finish what runs; whether that was done in a few seconds."""
        stopping = threading.Thread(target=self._server.shutdown, name="fairlead-agent-stop", daemon=True)
        stopping.start()
        stopping.join(_STOP_SECONDS)
        return not stopping.is_alive()


class _Places:
    """How many calls each principal has under way; one that takes longer than it may counts no more."""

    def __init__(self, limits: AgentLimits, region: str) -> None:
        self._limits = limits
        self._region = region
        self._lock = threading.Lock()
        self._ends: defaultdict[str, list[float]] = defaultdict(list)

    def count(self, principal: str) -> int:
        """How many a principal has."""
        with self._lock:
            return sum(end > time.monotonic() for end in self._ends.get(principal, ()))

    @contextmanager
    def taken(self, principal: str) -> Generator[None]:
        """Take one of a principal's places.

        Raises:
            AgentBusy: if as many calls go on as may.
        """
        now = time.monotonic()
        end = now + self._limits.seconds
        with self._lock:
            ends = self._ends[principal] = [each for each in self._ends[principal] if each > now]
            if len(ends) >= self._limits.calls:
                raise AgentBusy(
                    f"{principal!r} has {len(ends)} reads under way at the feature agent of {self._region} already.",
                    hint="Run the read again when one of them has ended.",
                    region=self._region,
                )
            ends.append(end)
        try:
            yield
        finally:
            with self._lock:
                left = self._ends[principal]
                if end in left:
                    left.remove(end)
                if not left:
                    del self._ends[principal]


class _Exchange:
    def __init__(
        self,
        joins: TicketJoins,
        registry: AgentRegistry,
        clock: Clock,
        *,
        region: str,
        scratch: Scratch,
        limits: AgentLimits,
        observe: Callable[[str, ArrowTable], None] | None,
        flight: Any,
    ) -> None:
        self._joins = joins
        self._registry = registry
        self._clock = clock
        self._region = region
        self._scratch = scratch
        self._limits = limits
        self._observe = observe
        self._flight = flight
        self._slots = threading.BoundedSemaphore(limits.joins)
        self.places = _Places(limits, region)
        self._asking = threading.BoundedSemaphore(_TOKENS_AT_ONCE)

    def admit(self, method: Any, headers: Mapping[str, list[str]]) -> str:
        """The token of a call, if it is good; nothing of the call is read before."""
        with self._told():
            scheme, _, token = (headers.get("authorization") or [""])[0].partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise Unauthenticated(
                    "The call carries no token.", hint="Send authorization: Bearer TOKEN; the SDK does."
                )
            # The registry may have to be asked: strangers are not to take all of this agent's threads for that.
            if not self._asking.acquire(timeout=_WAIT_SECONDS):
                raise AgentBusy("Too many tokens are being looked up.", hint="Try again.", region=self._region)
            try:
                self._registry.check_token(token.strip())
            finally:
                self._asking.release()
            if method != self._flight.FlightMethod.DO_EXCHANGE:
                raise MethodNotAllowed("A feature agent answers DoExchange alone.", hint="Read with the SDK.")
            return token.strip()

    def __call__(self, token: str, command: bytes | None, reader: Any, writer: Any) -> None:
        with self._told():
            self._answer(token, command, reader, writer)

    @contextmanager
    def _told(self) -> Generator[None]:
        """Have whatever goes wrong told as its problem document."""
        try:
            yield
        except FairleadError as error:
            _log.info("refused a call: %s", error.code)
            raise self._flight_error(error) from None
        except self._flight.FlightError:
            # The caller is gone.
            raise
        except Exception as error:  # noqa: BLE001  (its text may hold values, so nobody is told it)
            _log.error("a call failed unexpectedly: %s", type(error).__name__)
            unknown = FairleadError(
                f"The feature agent of {self._region} met something unexpected ({type(error).__name__}).",
                hint="Its log says when; run the read again.",
            )
            raise self._flight_error(unknown) from None

    def _answer(self, token: str, command: bytes | None, reader: Any, writer: Any) -> None:
        started = time.monotonic()
        text = (command or b"").decode(errors="replace")
        ticket = self._judge(token, text)
        rows, received, sent, problem = 0, 0, 0, None
        try:
            with self.places.taken(ticket.principal):
                entity_rows = self._receive(reader, ticket, started)
                rows, received = entity_rows.num_rows, entity_rows.nbytes
                if self._observe is not None:
                    self._observe("in", entity_rows)
                answer = self._join(ticket, entity_rows, started)
                if self._observe is not None:
                    self._observe("out", answer)
                sent = answer.nbytes
                writer.begin(answer.schema)
                for batch in answer.to_batches(max_chunksize=_ROWS_A_BATCH):
                    self._check_time(started)
                    writer.write_batch(batch)
        except FairleadError as error:
            problem, sent = error.code, 0
            raise
        except self._flight.FlightError:
            problem = AgentUnavailable.code
            raise
        except Exception:
            problem, sent = FairleadError.code, 0
            raise
        finally:
            if received:
                crossing = Crossing(call=new_row_id(), rows=rows, bytes_in=received, bytes_out=sent, error=problem)
                self._registry.report(text, crossing)

    def _judge(self, token: str, text: str) -> Ticket:
        ticket = open_ticket(text, self._registry.public_keys(), now=self._clock.now())
        is_theirs = hmac.compare_digest(ticket.token_sha256, token_hash(token))
        if not is_theirs or ticket.workspace_id != self._registry.workspace:
            raise TicketInvalid("The ticket was planned with another token.", hint="Plan the read with this one.")
        if ticket.region != self._region:
            raise TicketInvalid(f"The ticket is not for {self._region}.", hint="Plan the read again.")
        self._joins.check_residency(ticket)
        return ticket

    def _join(self, ticket: Ticket, entity_rows: ArrowTable, started: float) -> ArrowTable:
        with self.slot(), self._scratch.folder("agent-") as folder:
            self._check_time(started)
            left = self._limits.seconds - (time.monotonic() - started)
            with bounded(seconds=left, answer_bytes=self._limits.answer_bytes):
                return self._joins.join(ticket, entity_rows, scratch=folder)

    @contextmanager
    def slot(self) -> Generator[None]:
        """The place of one join."""
        if not self._slots.acquire(timeout=_WAIT_SECONDS):
            raise AgentBusy(
                f"The feature agent of {self._region} joins {self._limits.joins} reads already.",
                hint="Run the read again, or start another agent there.",
                region=self._region,
            )
        try:
            yield
        finally:
            self._slots.release()

    def _receive(self, reader: Any, ticket: Ticket, started: float) -> ArrowTable:
        arrow = load_arrow()
        batches: list[Any] = []
        rows = size = 0
        forgetting = threading.Timer(self._limits.seconds, batches.clear)
        forgetting.daemon = True
        forgetting.start()
        try:
            schema = reader.schema
            self._joins.check_columns(ticket, schema)
            for chunk in reader:
                self._check_time(started)
                rows, size = rows + chunk.data.num_rows, size + chunk.data.nbytes
                if rows > min(ticket.rows, self._limits.rows) or size > self._limits.bytes:
                    raise BodyTooLarge(
                        f"The entity rows are more than the {min(ticket.rows, self._limits.rows)} rows or "
                        f"{self._limits.bytes} bytes that the feature agent of {self._region} takes in one call.",
                        hint="Read them in parts.",
                        region=self._region,
                    )
                batches.append(chunk.data)
            table = arrow.Table.from_batches(batches, schema=schema)
            table.validate(full=True)
        except self._flight.FlightError:
            raise
        except (arrow.ArrowException, OSError):
            raise InvalidInput("The entity rows are no valid Arrow.", hint="Send them with the SDK.") from None
        finally:
            forgetting.cancel()
        # It may have been too late for the rows, too.
        self._check_time(started)
        return table

    def _check_time(self, started: float) -> None:
        if time.monotonic() - started > self._limits.seconds:
            raise JoinTimedOut(
                f"The read took longer than {self._limits.seconds:.0f} s at the feature agent of {self._region}.",
                hint="Read fewer rows at once.",
                region=self._region,
            )

    def _flight_error(self, error: FairleadError) -> Exception:
        flight = self._flight
        problem = json.dumps(to_problem(error)).encode()
        kind: Any = flight.FlightInternalError
        if isinstance(error, Unauthenticated):
            kind = flight.FlightUnauthenticatedError
        elif isinstance(error, PermissionDenied):
            kind = flight.FlightUnauthorizedError
        elif isinstance(error, Unavailable):
            kind = flight.FlightUnavailableError
        found: Exception = kind(error.code, extra_info=problem)
        return found


def load_flight() -> Any:
    """The module `pyarrow.flight`, as a value without a type: it ships none."""
    return import_module("pyarrow.flight")


def _server_class(flight: Any) -> Any:
    class Server(flight.FlightServerBase):
        def __init__(self, exchange: _Exchange, location: str, **options: Any) -> None:
            super().__init__(location, **options)
            self._exchange = exchange

        def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
            self._exchange(context.get_middleware("caller").token, descriptor.command, reader, writer)

    return Server


def _callers_class(flight: Any) -> Any:
    class Known(flight.ServerMiddleware):
        def __init__(self, token: str) -> None:
            super().__init__()
            self.token = token

    class Callers(flight.ServerMiddlewareFactory):
        def __init__(self, exchange: _Exchange) -> None:
            super().__init__()
            self._exchange = exchange

        def start_call(self, info: Any, headers: Mapping[str, list[str]]) -> Any:
            return Known(self._exchange.admit(info.method, headers))

    return Callers

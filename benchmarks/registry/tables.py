"""What was measured, as tables, and against the targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.registry.load import Figures

READS = ("alias", "search")
NAMES = {"alias": "get by alias", "search": "search by tag", "create": "create version", "move": "move alias"}
OURS = "Fairlead"
_READ_CPU, _WRITE_CPU, _READ_SPEED, _WRITE_SPEED = 1 / 5, 1 / 3, 4.0, 3.0
_ALIAS_MS, _SEARCH_MS, _GROWTH = 3.0, 20.0, 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One call to one server by so many clients."""

    database: str
    versions: int
    server: str
    dialect: str
    call: str
    clients: int
    count: int
    refused: int
    per_second: float
    cpu_ms: float
    database_cpu_ms: float
    p50_ms: float
    p99_ms: float

    @property
    def all_cpu_ms(self) -> float:
        """A request's, PostgreSQL's among it; SQLite's is always."""
        return self.cpu_ms + self.database_cpu_ms

    @classmethod
    def of(
        cls,
        figures: Figures,
        *,
        cpu_seconds: float,
        database_cpu_seconds: float,
        database: str,
        versions: int,
        server: str,
        dialect: str,
        call: str,
        clients: int,
    ) -> Measured:
        """What the load generator and the clocks of the processes say together."""
        latencies = sorted(figures.latencies)
        count = len(latencies)
        return cls(
            database=database,
            versions=versions,
            server=server,
            dialect=dialect,
            call=call,
            clients=clients,
            count=count,
            refused=figures.refused,
            per_second=count / figures.seconds,
            cpu_ms=cpu_seconds / count * 1000,
            database_cpu_ms=database_cpu_seconds / count * 1000,
            p50_ms=latencies[count // 2] * 1000,
            p99_ms=latencies[min(count - 1, count * 99 // 100)] * 1000,
        )


def result_tables(measured: Sequence[Measured]) -> Iterator[str]:
    """Every figure, a table for each database and size."""
    for database, versions in dict.fromkeys((each.database, each.versions) for each in measured):
        yield f"\n**{_DATABASES[database]}, {versions:,} versions**\n"
        yield "| call | clients | server | requests/s | CPU ms a request | of the database | p50 ms | p99 ms |"
        yield "|---|--:|---|--:|--:|--:|--:|--:|"
        here = [each for each in measured if (each.database, each.versions) == (database, versions)]
        for each in sorted(here, key=lambda each: (list(NAMES).index(each.call), each.clients)):
            server = f"{each.server}, native" if each.dialect == "native" else each.server
            refused = f" ({each.refused} refused)" if each.refused else ""
            yield (
                f"| {NAMES[each.call]} | {each.clients} | {server} | {each.per_second:.0f}{refused} | {each.cpu_ms:.2f}"
                f" | {each.database_cpu_ms:.2f} | {each.p50_ms:.1f} | {each.p99_ms:.1f} |"
            )


def target_lines(measured: Sequence[Measured]) -> Iterator[str]:
    """Each target with the worst figure of it, and whether that meets it."""
    yield "\n**Targets, each at its worst**\n"
    yield "| target | worst | where | met |"
    yield "|---|--:|---|---|"
    pairs = [
        (ours, theirs)
        for ours in measured
        if ours.server == OURS
        for theirs in measured
        if theirs.server != OURS and theirs.server.startswith("MLflow")
        if (ours.database, ours.versions, ours.call, ours.clients)
        == (theirs.database, theirs.versions, theirs.call, theirs.clients)
    ]
    for asked, dialect, is_alone in (
        ("16 and 64 clients", "mlflow", False),
        ("1 client", "mlflow", True),
        ("16 and 64 clients of Fairlead's own API", "native", False),
        ("1 client of Fairlead's own API", "native", True),
    ):
        some = [pair for pair in pairs if pair[0].dialect == dialect and (pair[0].clients == 1) is is_alone]
        yield from _comparisons(asked, some)
    mine = [each for each in measured if each.server.startswith(OURS)]
    yield _line(
        f"get by alias, p50 of one client: below {_ALIAS_MS:.0f} ms",
        ((each.p50_ms, _place(each)) for each in mine if each.call == "alias" and each.clients == 1),
        at_most=_ALIAS_MS,
    )
    yield _line(
        f"search by tag over 100,000 versions, p50 of one client: below {_SEARCH_MS:.0f} ms",
        (
            (each.p50_ms, _place(each))
            for each in mine
            if each.call == "search" and each.clients == 1 and each.versions == 100_000
        ),
        at_most=_SEARCH_MS,
    )
    yield _line(f"get by alias at 1,000,000 versions: within {_GROWTH} times of 1,000", _growth(mine), at_most=_GROWTH)
    yield _line("no call refused", ((float(each.refused), _place(each)) for each in mine), at_most=0)
    yield from _replica_lines(mine)


def _comparisons(asked: str, pairs: Sequence[tuple[Measured, Measured]]) -> Iterator[str]:
    """The targets that compare: ours and theirs."""
    for calls, cpu, speed, what in (
        (READS, _READ_CPU, _READ_SPEED, "reads"),
        (("create", "move"), _WRITE_CPU, _WRITE_SPEED, "writes"),
    ):
        some = [(ours, theirs, _where(ours, theirs)) for ours, theirs in pairs if ours.call in calls]
        yield _line(
            f"{asked}, {what}: CPU at most {cpu:.2f} of MLflow's",
            ((ours.cpu_ms / theirs.cpu_ms, where) for ours, theirs, where in some),
            at_most=cpu,
        )
        yield _line(
            f"{asked}, {what}: CPU with the database's at most {cpu:.2f} of MLflow's",
            ((ours.all_cpu_ms / theirs.all_cpu_ms, where) for ours, theirs, where in some),
            at_most=cpu,
        )
        yield _line(
            f"{asked}, {what}: throughput at least {speed:.0f} times MLflow's",
            ((ours.per_second / theirs.per_second, where) for ours, theirs, where in some),
            at_least=speed,
        )
        yield _line(
            f"{asked}, {what}: p99 below MLflow's",
            ((ours.p99_ms / theirs.p99_ms, where) for ours, theirs, where in some),
            at_most=1,
        )


def _growth(mine: Sequence[Measured]) -> Iterator[tuple[float, str]]:
    alone = [each for each in mine if each.call == "alias" and each.dialect == "mlflow" and each.clients == 1]
    for large in alone:
        if large.versions == 1_000_000 and large.server == f"{OURS}, 1 process":
            for small in alone:
                # Those that were asked in turns with it.
                if (small.versions, small.database, small.server) == (1_000, large.database, large.server):
                    yield large.cpu_ms / small.cpu_ms, f"CPU, {_place(large)}"
                    yield large.p50_ms / small.p50_ms, f"p50, {_place(large)}"


def _replica_lines(mine: Sequence[Measured]) -> Iterator[str]:
    replicas = [each for each in mine if "process" in each.server and each.clients == 64 and each.versions > 1_000]
    several = [each for each in replicas if each.database == "postgresql"]
    if several:
        yield "\n**API processes on one PostgreSQL, get by alias, 64 clients**\n"
        yield "| processes | requests/s | times one | CPU ms a request | of PostgreSQL | cores that all took together |"
        yield "|---|--:|--:|--:|--:|--:|"
        for each in several:
            cores = each.per_second * (each.cpu_ms + each.database_cpu_ms) / 1000
            yield (
                f"| {each.server.removeprefix(f'{OURS}, ')} | {each.per_second:.0f}"
                f" | {each.per_second / several[0].per_second:.2f} | {each.cpu_ms:.2f} | {each.database_cpu_ms:.2f}"
                f" | {cores:.2f} |"
            )


def _line(
    target: str,
    values: Iterable[tuple[float, str]],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> str:
    ranked = sorted(values)
    if not ranked:
        return f"| {target} | – | not measured | – |"
    worst, where = ranked[0] if at_least is not None else ranked[-1]
    is_met = worst >= at_least if at_least is not None else worst <= (at_most or 0)
    return f"| {target} | {worst:.2f} | {where} | {'yes' if is_met else '**no**'} |"


def _where(ours: Measured, theirs: Measured) -> str:
    return f"{_place(ours)} against {theirs.server}"


def _place(each: Measured) -> str:
    native = " (native)" if each.dialect == "native" else ""
    return f"{NAMES[each.call]}{native}, {_DATABASES[each.database]}, {each.versions:,}, {_clients(each.clients)}"


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


_DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

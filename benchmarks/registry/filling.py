"""Rows straight into each server's tables: registering 100 000 versions through MLflow's API would take half an hour.

A hundred versions a model, each with two tags: `team` (one of fifty) and `candidate` (one of as many as makes ten
versions share it). Every model has the alias `champion` at its fiftieth version. Both servers get the same, each in its
own tables, and the database's statistics are brought up to date afterwards.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from fairlead.core.clock import format_time

VERSIONS_EACH = 100
SHARING = 10
LOCATION = "00000000-0000-7000-8000-000000000001"
UPLOAD = "00000000-0000-7000-8000-000000000002"
DIGEST = "sha256:" + 64 * "a"
_MILLIS = 1_760_000_000_000
_NOW = datetime(2026, 3, 1, tzinfo=UTC)


def model_name(number: int) -> str:
    """The name of a model, counted from 1."""
    return f"model-{number:06d}"


def candidates(versions: int) -> int:
    """How many values the tag `candidate` has."""
    return max(1, versions // SHARING)


def fill_fairlead(engine: Engine, versions: int) -> None:
    """Bring Fairlead's tables to so many versions; what is there stays."""
    with engine.begin() as connection:
        rows = _Rows(connection, versions, {"now": _time(connection), "digest": DIGEST, "upload": UPLOAD})
        if not rows.known:
            _fill_upload(connection)
        model = {"workspace_id": "'default'", "model_id": rows.row_id}
        rows.insert(
            "registered_models",
            {
                "workspace_id": "'default'",
                "id": rows.row_id,
                "name": rows.name,
                "residency": "'unrestricted'",
                "description": "''",
                "owner": "'ana'",
                "team": "'risk'",
                "cost_centre": "'cc-1'",
                "last_version": ":each",
                "created_by": "'ana'",
                "created_at": ":now",
                "updated_at": ":now",
            },
        )
        rows.insert(
            "model_versions",
            {
                **model,
                "version": "v.n",
                "id": rows.version_id,
                "state": "'READY'",
                "residency": "'unrestricted'",
                "upload_id": ":upload",
                "artifact_digest": ":digest",
                "description": "''",
                "metrics": "'{}'",
                "params": "'{}'",
                "source": "'mlflow-artifacts:/1/models/x'",
                "created_by": "'ana'",
                "created_at": ":now",
                "ready_at": ":now",
            },
            of_versions=True,
        )
        for key, value in rows.tags().items():
            tag = {"version": "v.n", "key": f"'{key}'", "value": value}
            rows.insert("version_tags", {**model, **tag}, of_versions=True)
        pointer = {"name": "'champion'", "version": "50", "revision": "1", "moved_by": "'ana'", "moved_at": ":now"}
        rows.insert("aliases", {**model, **pointer})
    _analyze(engine)


def fill_mlflow(engine: Engine, versions: int) -> None:
    """Bring MLflow's tables to so many versions; what is there stays."""
    with engine.begin() as connection:
        rows = _Rows(connection, versions, {"now": _MILLIS})
        model = {"workspace": "'default'", "name": rows.name}
        times = {"creation_time": ":now", "last_updated_time": ":now", "description": "''"}
        rows.insert("registered_models", {**model, **times})
        rows.insert(
            "model_versions",
            {
                **model,
                **times,
                "version": "v.n",
                "user_id": "'ana'",
                "current_stage": "'None'",
                "source": "'s3://models/x'",
                "storage_location": "'s3://models/x'",
                "run_id": "''",
                "run_link": "''",
                "status": "'READY'",
                "status_message": "''",
            },
            of_versions=True,
        )
        for key, value in rows.tags().items():
            tag = {"version": "v.n", "key": f"'{key}'", "value": value}
            rows.insert("model_version_tags", {**model, **tag}, of_versions=True)
        rows.insert("registered_model_aliases", {**model, "alias": "'champion'", "version": "50"})
    _analyze(engine)


class _Rows:
    """What is still missing of so many versions, made by the database itself from numbers."""

    def __init__(self, connection: Connection, versions: int, values: dict[str, object]) -> None:
        self._connection = connection
        self._is_sqlite = connection.dialect.name == "sqlite"
        self._models = versions // VERSIONS_EACH
        self.known = int(connection.execute(text("SELECT count(*) FROM registered_models")).scalar_one())
        self._values = {**values, "known": self.known, "each": VERSIONS_EACH, "groups": candidates(versions)}
        self.name = self._padded("model-", "m.n", 6)
        self.row_id = self._padded("00000000-0000-7000-8001-", "m.n", 12)
        self.version_id = self._padded("00000000-0000-7000-8002-", f"m.n * {VERSIONS_EACH} + v.n", 12)

    def tags(self) -> dict[str, str]:
        """The values of each version's tags."""
        candidate = "((m.n - 1) * :each + v.n) % :groups"
        return {"team": self._padded("team-", "v.n % 50"), "candidate": self._padded("c-", candidate)}

    def insert(self, table: str, columns: dict[str, str], *, of_versions: bool = False) -> None:
        """A row for each missing model, or for each version of one."""
        each = VERSIONS_EACH if of_versions else 1
        count = (
            "(WITH RECURSIVE s(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM s WHERE n < {0}) SELECT n FROM s)"
            if self._is_sqlite
            else "(SELECT generate_series(1, {0}) AS n)"
        )
        numbers = f"{count.format(self._models)} AS m CROSS JOIN {count.format(each)} AS v"
        names, expressions = ", ".join(columns), ", ".join(columns.values())
        _execute(
            self._connection,
            f"INSERT INTO {table} ({names}) SELECT {expressions} FROM {numbers} WHERE m.n > :known",  # noqa: S608
            self._values,
        )

    def _padded(self, start: str, number: str, digits: int = 1) -> str:
        if self._is_sqlite:
            return f"printf('{start}%0{digits}d', {number})"
        if digits == 1:
            return f"'{start}' || ({number})::text"
        return f"'{start}' || lpad(({number})::text, {digits}, '0')"


def _fill_upload(connection: Connection) -> None:
    """One verified artifact, which all versions share."""
    values = {"location": LOCATION, "upload": UPLOAD, "digest": DIGEST, "now": _time(connection)}
    _execute(
        connection,
        "INSERT INTO locations (workspace_id, id, name, region, jurisdiction, url, options, kind, state, settings,"
        " published_refs_revision, published_record_sequence, created_at) VALUES ('default', :location, 'local',"
        " 'aws:us-east-1', 'US', 'memory://nowhere', '{}', 'storage', 'ACTIVE', '{}', -1, -1, :now)",
        values,
    )
    _execute(
        connection,
        "INSERT INTO artifacts (workspace_id, residency, digest, kind, size_bytes, file_count, labels, key_id,"
        " created_at) VALUES ('default', 'unrestricted', :digest, 'model', 1000, 1, '{}', 'plain', :now)",
        values,
    )
    _execute(
        connection,
        "INSERT INTO uploads (workspace_id, id, residency, key_id, kind, location_id, state, labels, artifact_digest,"
        " sent_bytes, created_by, created_at, expires_at) VALUES ('default', :upload, 'unrestricted', 'plain',"
        " 'model', :location, 'READY', '{}', :digest, 1000, 'ana', :now, :now)",
        values,
    )


def _execute(connection: Connection, statement: str, values: dict[str, object]) -> None:
    used = {name: value for name, value in values.items() if f":{name}" in statement}
    connection.execute(text(statement), used)


def _time(connection: Connection) -> object:
    return format_time(_NOW) if connection.dialect.name == "sqlite" else _NOW


def _analyze(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")

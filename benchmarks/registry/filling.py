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
WORKSPACE = "default"
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
        known = _scalar(connection, "SELECT count(*) FROM registered_models")
        if not known:
            _fill_upload(connection)
        models = versions // VERSIONS_EACH
        values = {
            "known": known,
            "each": VERSIONS_EACH,
            "rows": candidates(versions),
            "now": _time(connection),
            "digest": DIGEST,
            "upload": UPLOAD,
        }
        numbers, name, row_id = _numbers(connection, models), _name(connection), _row_id(connection)
        pairs = _numbers(connection, models, VERSIONS_EACH)
        for statement in (
            f"INSERT INTO registered_models (workspace_id, id, name, residency, description, owner, team, cost_centre,"
            f" last_version, created_by, created_at, updated_at) {numbers} SELECT 'default', {row_id}, {name},"
            " 'unrestricted', '', 'ana', 'risk', 'cc-1', :each, 'ana', :now, :now FROM m WHERE m.n > :known",
            f"INSERT INTO model_versions (workspace_id, model_id, version, id, state, residency, upload_id,"
            f" artifact_digest, description, metrics, params, source, created_by, created_at, ready_at) {pairs}"
            f" SELECT 'default', {row_id}, v.n, {_version_id(connection)}, 'READY', 'unrestricted', :upload, :digest,"
            " '', '{}', '{}', 'mlflow-artifacts:/1/models/x', 'ana', :now, :now FROM m CROSS JOIN v WHERE m.n > :known",
            f"INSERT INTO version_tags (workspace_id, model_id, version, key, value) {pairs} SELECT 'default',"
            f" {row_id}, v.n, 'team', {_numbered(connection, 'team', 'v.n % 50')}"
            " FROM m CROSS JOIN v WHERE m.n > :known",
            f"INSERT INTO version_tags (workspace_id, model_id, version, key, value) {pairs} SELECT 'default',"
            f" {row_id}, v.n, 'candidate', {_numbered(connection, 'c', '((m.n - 1) * :each + v.n) % :rows')}"
            " FROM m CROSS JOIN v WHERE m.n > :known",
            f"INSERT INTO aliases (workspace_id, model_id, name, version, revision, moved_by, moved_at) {numbers}"
            f" SELECT 'default', {row_id}, 'champion', 50, 1, 'ana', :now FROM m WHERE m.n > :known",
        ):
            _execute(connection, statement, values)
    _analyze(engine)


def fill_mlflow(engine: Engine, versions: int) -> None:
    """Bring MLflow's tables to so many versions; what is there stays."""
    with engine.begin() as connection:
        known = _scalar(connection, "SELECT count(*) FROM registered_models")
        models = versions // VERSIONS_EACH
        values = {"known": known, "each": VERSIONS_EACH, "rows": candidates(versions), "now": _MILLIS}
        numbers, name = _numbers(connection, models), _name(connection)
        pairs = _numbers(connection, models, VERSIONS_EACH)
        for statement in (
            "INSERT INTO registered_models (workspace, name, creation_time, last_updated_time, description)"
            f" {numbers} SELECT 'default', {name}, :now, :now, '' FROM m WHERE m.n > :known",
            "INSERT INTO model_versions (workspace, name, version, creation_time, last_updated_time, description,"
            " user_id, current_stage, source, storage_location, run_id, run_link, status, status_message)"
            f" {pairs} SELECT 'default', {name}, v.n, :now, :now, '', 'ana', 'None', 'mlflow-artifacts:/1/models/x',"
            " 'mlflow-artifacts:/1/models/x', '', '', 'READY', '' FROM m CROSS JOIN v WHERE m.n > :known",
            f"INSERT INTO model_version_tags (workspace, name, version, key, value) {pairs} SELECT 'default', {name},"
            f" v.n, 'team', {_numbered(connection, 'team', 'v.n % 50')} FROM m CROSS JOIN v WHERE m.n > :known",
            f"INSERT INTO model_version_tags (workspace, name, version, key, value) {pairs} SELECT 'default', {name},"
            f" v.n, 'candidate', {_numbered(connection, 'c', '((m.n - 1) * :each + v.n) % :rows')}"
            " FROM m CROSS JOIN v WHERE m.n > :known",
            "INSERT INTO registered_model_aliases (workspace, name, alias, version)"
            f" {numbers} SELECT 'default', {name}, 'champion', 50 FROM m WHERE m.n > :known",
        ):
            _execute(connection, statement, values)
    _analyze(engine)


def _fill_upload(connection: Connection) -> None:
    """One verified artifact, which all versions share."""
    now = _time(connection)
    values = {"location": LOCATION, "upload": UPLOAD, "digest": DIGEST, "now": now}
    for statement in (
        "INSERT INTO locations (workspace_id, id, name, region, jurisdiction, url, options, kind, state, settings,"
        " published_refs_revision, published_record_sequence, created_at) VALUES ('default', :location, 'local',"
        " 'aws:us-east-1', 'US', 'memory://nowhere', '{}', 'storage', 'ACTIVE', '{}', -1, -1, :now)",
        "INSERT INTO artifacts (workspace_id, residency, digest, kind, size_bytes, file_count, labels, key_id,"
        " created_at) VALUES ('default', 'unrestricted', :digest, 'model', 1000, 1, '{}', 'plain', :now)",
        "INSERT INTO uploads (workspace_id, id, residency, key_id, kind, location_id, state, labels, artifact_digest,"
        " sent_bytes, created_by, created_at, expires_at) VALUES ('default', :upload, 'unrestricted', 'plain',"
        " 'model', :location, 'READY', '{}', :digest, 1000, 'ana', :now, :now)",
    ):
        _execute(connection, statement, values)


def _execute(connection: Connection, statement: str, values: dict[str, object]) -> None:
    used = {name: value for name, value in values.items() if f":{name}" in statement}
    connection.execute(text(statement), used)


def _scalar(connection: Connection, statement: str) -> int:
    return int(connection.execute(text(statement)).scalar_one())


def _is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


def _time(connection: Connection) -> object:
    return format_time(_NOW) if _is_sqlite(connection) else _NOW


def _numbers(connection: Connection, models: int, versions: int = 1) -> str:
    """`WITH` tables m(n) and v(n) that count from 1."""
    if _is_sqlite(connection):
        return (
            f"WITH RECURSIVE m(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM m WHERE n < {models}),"
            f" v(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM v WHERE n < {versions})"
        )
    return f"WITH m(n) AS (SELECT generate_series(1, {models})), v(n) AS (SELECT generate_series(1, {versions}))"


def _name(connection: Connection) -> str:
    return "printf('model-%06d', m.n)" if _is_sqlite(connection) else "'model-' || lpad(m.n::text, 6, '0')"


def _row_id(connection: Connection) -> str:
    start = "00000000-0000-7000-8001-"
    return f"printf('{start}%012d', m.n)" if _is_sqlite(connection) else f"'{start}' || lpad(m.n::text, 12, '0')"


def _version_id(connection: Connection) -> str:
    start, number = "00000000-0000-7000-8002-", f"m.n * {VERSIONS_EACH} + v.n"
    if _is_sqlite(connection):
        return f"printf('{start}%012d', {number})"
    return f"'{start}' || lpad(({number})::text, 12, '0')"


def _numbered(connection: Connection, word: str, number: str) -> str:
    return f"'{word}-' || ({number})" + ("" if _is_sqlite(connection) else "::text")


def _analyze(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")

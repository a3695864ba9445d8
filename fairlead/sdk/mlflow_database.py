"""The database of an MLflow server as the source of an import: its tables read as they are, without MLflow.

Nothing is written there: SQLite files are opened read-only. Columns that an older MLflow did not have are taken as
empty; of a server with workspaces, the workspace `default` is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import InvalidInput, MissingExtra, NotFound, Unavailable
from fairlead.sdk.mlflow_files import below, files_at
from fairlead.sdk.mlflow_registry import (
    NO_STAGE,
    SourceFiles,
    SourceModel,
    SourceVersion,
    from_millis,
    without_credentials,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine, Table

_TABLES = (
    "registered_models",
    "registered_model_tags",
    "registered_model_aliases",
    "model_versions",
    "model_version_tags",
    "runs",
    "logged_models",
)
_HOPS_MAX = 10


class DatabaseRegistry:
    """A registry whose rows are read."""

    def __init__(self, uri: str, artifact_roots: Sequence[str]) -> None:
        try:
            from sqlalchemy import create_engine
        except ModuleNotFoundError as error:
            raise MissingExtra(
                "Reading an MLflow database needs SQLAlchemy.", hint="Run: pip install 'fairlead[server]'"
            ) from error
        self._uri = uri
        self._roots = tuple(artifact_roots)
        location, file = _engine_url(uri)
        if file is not None and not self._roots:
            self._roots = tuple(str(file.parent / name) for name in ("mlartifacts", "mlruns"))
        try:
            self._engine: Engine = create_engine(location, hide_parameters=True)
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"The driver {error.name!r} of that database is not installed.", hint=f"Run: pip install {error.name}"
            ) from error
        self._tables = self._reflect()

    @property
    def address(self) -> str:
        return without_credentials(self._uri)

    def models(self) -> Iterator[SourceModel]:
        tags: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for row in self._rows("registered_model_tags"):
            tags[row["name"]][row["key"]] = row["value"] or ""
        aliases: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for row in self._rows("registered_model_aliases"):
            aliases[row["name"]][row["alias"]] = int(row["version"])
        for row in sorted(self._rows("registered_models"), key=lambda each: str(each["name"])):
            name = row["name"]
            yield SourceModel(
                name=name, description=row.get("description") or "", tags=tags[name], aliases=aliases[name]
            )

    def versions(self, model: SourceModel) -> list[SourceVersion]:
        tags: defaultdict[int, dict[str, str]] = defaultdict(dict)
        for row in self._rows("model_version_tags", name=model.name):
            tags[int(row["version"])][row["key"]] = row["value"] or ""
        versions = [
            SourceVersion(
                name=model.name,
                version=int(row["version"]),
                created_at=from_millis(row.get("creation_time")),
                description=row.get("description") or "",
                tags=tags[int(row["version"])],
                stage=None if row.get("current_stage") in {None, "", NO_STAGE} else row["current_stage"],
                status=row.get("status") or "READY",
                source=row.get("source") or "",
                run_id=row.get("run_id") or None,
                run_link=row.get("run_link") or None,
            )
            # A deleted version is a row of its own stage until somebody collects it.
            for row in self._rows("model_versions", name=model.name)
            if row.get("current_stage") != "Deleted_Internal"
        ]
        return sorted(versions, key=lambda each: each.version)

    def files(self, version: SourceVersion) -> SourceFiles:
        address = self._address_of(version.name, version.version)
        if address.startswith("mlflow-artifacts:") or "/api/2.0/mlflow-artifacts/artifacts/" in address:
            address = self._below_root(address)
        found = files_at(address, self._roots)
        if found is None:
            raise InvalidInput(
                f"Its files are at {without_credentials(address)[:200]!r}, which is not read from here.",
                hint="Import from the MLflow server that can read them: fairlead import mlflow http://...",
            )
        return found

    def run_state(self, run_id: str) -> str | None:
        for row in self._rows("runs", run_uuid=run_id):
            return str(row.get("lifecycle_stage") or "active")
        return "deleted"

    def close(self) -> None:
        self._engine.dispose()

    def _address_of(self, name: str, number: int) -> str:
        """Where the files of a version are, followed through the records that its source names."""
        for _ in range(_HOPS_MAX):
            row = next(self._rows("model_versions", name=name, version=number), None)
            if row is None:
                raise NotFound(f"Its source is {name}/{number}, which is not there.", hint="Look at its source.")
            address = str(row.get("storage_location") or row.get("source") or "")
            scheme, _, rest = address.partition(":")
            head, _, path = rest.strip("/").partition("/")
            if scheme == "models" and path.isdecimal() and not head.startswith("m-"):
                name, number = head, int(path)
                continue
            if scheme == "models":
                found = next(self._rows("logged_models", model_id=head), None)
                return below(_required(found, "artifact_location", f"the logged model {head}"), path)
            if scheme == "runs":
                found = next(self._rows("runs", run_uuid=head), None)
                return below(_required(found, "artifact_uri", f"the run {head}"), path)
            return address
        raise NotFound("Its source names one version after the other.", hint="Look at its source.")

    def _below_root(self, address: str) -> str:
        if not self._roots:
            raise InvalidInput(
                "Its files are in the artifact store of that server.",
                hint="Name it, as `mlflow server --artifacts-destination` does: --artifacts ROOT",
            )
        marker = "/mlflow-artifacts/artifacts/"
        path = address.partition(marker)[2]
        if not path:
            _, _, rest = address.partition(":")
            path = rest.lstrip("/").partition("/")[2] if rest.startswith("//") and rest[2:3] != "/" else rest
        return below(self._roots[0], path)

    def _rows(self, table: str, **wanted: Any) -> Iterator[dict[str, Any]]:
        from sqlalchemy import select
        from sqlalchemy.exc import SQLAlchemyError

        source = self._tables.get(table)
        if source is None:
            return
        query = select(source)
        for column, value in wanted.items():
            query = query.where(source.c[column] == value)
        if "workspace" in source.c:
            query = query.where(source.c.workspace == "default")
        try:
            with self._engine.connect() as connection:
                yield from [dict(row) for row in connection.execute(query).mappings().all()]
        except SQLAlchemyError as error:
            raise _no_answer(self.address) from error

    def _reflect(self) -> dict[str, Table]:
        from sqlalchemy import MetaData, Table, inspect
        from sqlalchemy.exc import SQLAlchemyError

        metadata = MetaData()
        try:
            there = set(inspect(self._engine).get_table_names())
            tables = {
                name: Table(name, metadata, autoload_with=self._engine, resolve_fks=False)
                for name in _TABLES
                if name in there
            }
        except SQLAlchemyError as error:
            raise _no_answer(self.address) from error
        if not {"registered_models", "model_versions"} <= set(tables):
            raise InvalidInput(
                f"{self.address!r} holds no model registry of MLflow.", hint="Check the address, and its schema."
            )
        return tables


def _engine_url(uri: str) -> tuple[Any, Path | None]:
    """What SQLAlchemy is to open, and the file if it is one."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(uri)
    except (ArgumentError, ValueError):
        raise InvalidInput("The address of the database cannot be read.", hint="Write sqlite:///FILE.") from None
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg2"}:
        return parsed.set(drivername="postgresql+psycopg"), None
    if parsed.get_backend_name() != "sqlite":
        return parsed, None
    file = Path(parsed.database or "").expanduser().absolute()
    if not parsed.database or not file.is_file():
        raise InvalidInput(f"There is no file {str(file)!r}.", hint="Write sqlite:///FILE.")
    return parsed.set(database=f"file:{file}", query={"mode": "ro", "uri": "true"}), file


def _required(row: dict[str, Any] | None, column: str, what: str) -> str:
    found = None if row is None else row.get(column)
    if not found:
        raise NotFound(f"Its files are those of {what}, which is not there any more.", hint="Look at its source.")
    return str(found)


def _no_answer(address: str) -> Unavailable:
    return Unavailable(f"The database {address!r} does not answer.", hint="Check its address, and that it is up.")

"""What an import reads of MLflow: models and versions as another registry has them, and where their files are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from fairlead.core.errors import InvalidInput

PROMPT_TAG = "mlflow.prompt.is_prompt"
NO_STAGE = "None"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """A registered model, or a prompt, with the version that each alias names."""

    name: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    aliases: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def is_prompt(self) -> bool:
        """Whether it is a prompt, whose versions have no files."""
        return self.tags.get(PROMPT_TAG, "").lower() == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceVersion:
    """One version; `stage` is None where it has none."""

    name: str
    version: int
    created_at: datetime
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    stage: str | None = None
    status: str = "READY"
    source: str = ""
    run_id: str | None = None
    run_link: str | None = None


class SourceFiles(Protocol):
    """The files of one version, where they are now."""

    def sizes(self) -> dict[str, int]:
        """The size in bytes of each file by its path.

        Raises:
            NotFound, PermissionDenied, Unavailable: if they cannot be listed.
        """
        ...

    def here(self) -> AbstractContextManager[Path]:
        """A folder of this machine that holds them all, whole, while the block runs.

        Raises:
            NotFound, PermissionDenied, Unavailable, IntegrityError, StorageFull: if they cannot be brought here.
        """
        ...


class SourceRegistry(Protocol):
    """A registry to import from. `address` names it, without credentials."""

    @property
    def address(self) -> str: ...

    def models(self) -> Iterator[SourceModel]:
        """Every model and prompt, by name."""
        ...

    def versions(self, model: SourceModel) -> Sequence[SourceVersion]:
        """The versions of a model, in order of number."""
        ...

    def files(self, version: SourceVersion) -> SourceFiles:
        """Where a version's files are.

        Raises:
            NotFound, PermissionDenied, InvalidInput: if that cannot be found out, or they may not be read from there.
        """
        ...

    def run_state(self, run_id: str) -> str | None:
        """What became of a run, such as `deleted`; None where nobody knows."""
        ...

    def close(self) -> None: ...


def open_registry(uri: str, artifact_roots: Sequence[str] = ()) -> SourceRegistry:
    """Open an MLflow server (`http(s)://`), or the database of one (`sqlite:///FILE`, `postgresql://...`).

    `artifact_roots` are the folders and buckets that files may be read from beside the server itself; the first is
    where `mlflow-artifacts:/` leads to in a database's records. For a SQLite file without any, they are the folders
    `mlartifacts` and `mlruns` beside it, as MLflow makes them.

    Raises:
        InvalidInput: if it is neither, or there is no such file.
        MissingExtra: if what reads it is not installed.
        Unavailable: if it does not answer.
    """
    scheme = uri.partition(":")[0].lower().partition("+")[0]
    if scheme in {"http", "https"}:
        from fairlead.sdk.mlflow_rest import RestRegistry

        return RestRegistry(uri, artifact_roots)
    if scheme in {"sqlite", "postgresql", "postgres", "mysql", "mssql"}:
        from fairlead.sdk.mlflow_database import DatabaseRegistry

        return DatabaseRegistry(uri, artifact_roots)
    raise InvalidInput(
        f"{without_credentials(uri)[:120]!r} is no MLflow server and no database of one.",
        hint="Name an http(s):// address, or sqlite:///FILE or postgresql://... For a folder of files, serve it first: "
        "mlflow server --backend-store-uri FOLDER",
    )


def without_credentials(uri: str) -> str:
    """An address that may be shown: without user, password and query."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri.partition(":")[0] + ":..."
    begin = uri[: len(parts.scheme) + 3] if "://" in uri else uri[: uri.index(":") + 1] if parts.scheme else ""
    return f"{begin}{parts.netloc.rpartition('@')[2]}{parts.path}"


def from_millis(milliseconds: int | None) -> datetime:
    """The time of MLflow's milliseconds since 1970; without any, 1970."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=max(0, milliseconds or 0))

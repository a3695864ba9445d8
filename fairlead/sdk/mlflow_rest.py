"""An MLflow server as the source of an import, read with MLflow's own client."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fairlead.core.errors import FairleadError, MissingExtra, NotFound, PermissionDenied, Unavailable
from fairlead.sdk.mlflow_files import below, check_size, files_at, no_room, scratch
from fairlead.sdk.mlflow_registry import (
    NO_STAGE,
    PROMPT_TAG,
    SourceFiles,
    SourceModel,
    SourceVersion,
    from_millis,
    without_credentials,
)

_PAGE = 100
_Answer = TypeVar("_Answer")


class RestRegistry:
    """A registry that is asked over HTTP; MLflow's client takes credentials from its own environment variables."""

    def __init__(self, uri: str, artifact_roots: Sequence[str]) -> None:
        try:
            from mlflow import MlflowClient
        except ModuleNotFoundError as error:
            raise MissingExtra(
                "Reading an MLflow server needs MLflow's client.", hint="Run: pip install 'fairlead[mlflow]'"
            ) from error
        self._uri = uri
        self._roots = artifact_roots
        self._client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)

    @property
    def address(self) -> str:
        return without_credentials(self._uri)

    def models(self) -> Iterator[SourceModel]:
        seen: set[str] = set()
        # The client leaves out what marks a prompt, so that only the search that finds it tells.
        for filter_string, mark in ((f"tags.`{PROMPT_TAG}` = 'true'", {PROMPT_TAG: "true"}), (None, {})):
            for found in self._pages(self._client.search_registered_models, filter_string):
                # Servers from before prompts were hidden answer them twice.
                if found.name in seen:
                    continue
                seen.add(found.name)
                yield SourceModel(
                    name=found.name,
                    description=found.description or "",
                    tags={**found.tags, **mark},
                    aliases={alias: int(version) for alias, version in found.aliases.items()},
                )

    def versions(self, model: SourceModel) -> list[SourceVersion]:
        clauses = ["name = '{}'".format(model.name.replace("'", "''"))]
        if model.is_prompt:
            clauses.append(f"tags.`{PROMPT_TAG}` = 'true'")
        found = self._pages(self._client.search_model_versions, " AND ".join(clauses))
        versions = [
            SourceVersion(
                name=model.name,
                version=int(each.version),
                created_at=from_millis(each.creation_timestamp),
                description=each.description or "",
                tags=dict(each.tags),
                stage=None if each.current_stage in {None, "", NO_STAGE} else each.current_stage,
                status=str(each.status),
                source=each.source or "",
                run_id=each.run_id or None,
                run_link=each.run_link or None,
            )
            for each in found
        ]
        return sorted(versions, key=lambda each: each.version)

    def files(self, version: SourceVersion) -> SourceFiles:
        address = _asked(lambda: str(self._client.get_model_version_download_uri(version.name, str(version.version))))
        if address.startswith("models:/m-"):
            model_id, _, path = address.removeprefix("models:/").partition("/")
            address = below(_asked(lambda: str(self._client.get_logged_model(model_id).artifact_location)), path)
        elif address.startswith("runs:/"):
            run_id, _, path = address.removeprefix("runs:/").strip("/").partition("/")
            address = below(_asked(lambda: str(self._client.get_run(run_id).info.artifact_uri)), path)
        return files_at(address, self._roots) or _ServedFiles(address, self._uri)

    def run_state(self, run_id: str) -> str | None:
        try:
            return str(_asked(lambda: self._client.get_run(run_id).info.lifecycle_stage))
        except NotFound:
            return "deleted"
        except FairleadError:
            return None

    def close(self) -> None:
        """There is nothing to close."""

    def _pages(self, search: Callable[..., Any], filter_string: str | None) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = _asked(lambda: search(filter_string=filter_string, max_results=_PAGE, page_token=token))  # noqa: B023
            yield from page
            token = page.token
            if not token:
                return


class _ServedFiles:
    """Files that the MLflow server hands out itself, or that its client knows how to get."""

    def __init__(self, address: str, tracking_uri: str) -> None:
        self._address = address
        self._tracking_uri = tracking_uri

    def sizes(self) -> dict[str, int]:
        repository = self._repository()
        found: dict[str, int] = {}
        waiting: list[str | None] = [None]
        while waiting:
            folder = waiting.pop()
            for item in _asked(lambda: repository.list_artifacts(folder)):  # noqa: B023
                if item.is_dir:
                    waiting.append(str(item.path))
                else:
                    found[str(item.path)] = int(item.file_size or 0)
        if not found:
            raise NotFound(
                f"There is nothing at {without_credentials(self._address)[:200]!r}.",
                hint="Look whether its files were deleted.",
            )
        return found

    @contextlib.contextmanager
    def here(self) -> Generator[Path]:
        from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR

        sizes = self.sizes()
        with scratch() as folder:
            shown = MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.get_raw()
            MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
            try:
                _asked(lambda: self._repository().download_artifacts("", dst_path=str(folder)))
            except OSError as error:
                raise no_room(error) from error
            finally:
                if shown is None:
                    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.unset()
                else:
                    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(shown)
            for path, size in sizes.items():
                check_size(path, folder / path, size)
            yield folder

    def _repository(self) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return _asked(lambda: get_artifact_repository(self._address, tracking_uri=self._tracking_uri))


def _asked(ask: Callable[[], _Answer]) -> _Answer:
    """What MLflow's client answers, its errors as ours.

    Raises:
        NotFound, PermissionDenied, Unavailable: as the server said.
    """
    import requests
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        status = error.get_http_status_code()
        text = str(error.message)
    except requests.RequestException as error:
        status = 503 if error.response is None else error.response.status_code
        text = type(error).__name__ if error.response is None else f"HTTP {status}"
    detail = f"MLflow: {' '.join(text.split())[:300]}"
    if status in {401, 403}:
        raise PermissionDenied(detail, hint="Set MLflow's own variables, such as MLFLOW_TRACKING_USERNAME.")
    if 400 <= status < 500 and status not in {408, 429}:
        raise NotFound(detail, hint="Look at the version there.")
    raise Unavailable(detail, hint="Run the import again once it answers.")

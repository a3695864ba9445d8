# pyright: reportUnknownVariableType=false, reportIncompatibleMethodOverride=false
"""MLflow's registry store for `fairlead:` addresses: MLflow's REST for metadata, Fairlead's writer for files."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.store.model_registry.rest_store import RestStore
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.rest_utils import MlflowHostCreds
from mlflow.utils.uri import is_local_uri, is_models_uri

from fairlead.mlflow_plugin.connections import connect, is_fairlead, is_same_server, server_url
from fairlead.mlflow_plugin.errors import as_mlflow_errors
from fairlead.mlflow_plugin.progress import show_progress
from fairlead.mlflow_plugin.request_providers import AUTH_NAME, calling

if TYPE_CHECKING:
    from collections.abc import Generator

    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersionTag

    from fairlead.sdk.client import Fairlead


class FairleadRegistryStore(RestStore):
    """A registry whose versions are written by this process, straight into a location.

    So a version is READY without the server ever reaching the tracking server, and only blocks that the location does
    not hold yet are sent. Everything but files goes through the server's MLflow dialect, as a stock client's calls do.
    """

    def __init__(self, store_uri: str, tracking_uri: str | None = None) -> None:
        super().__init__(get_host_creds=self._host_creds)
        with as_mlflow_errors():
            server_url(store_uri)
        if urlsplit(store_uri).path.strip("/"):
            raise MlflowException(
                f"The address of the registry has a path: {store_uri}. Write it like fairlead://fairlead.example:8470.",
                error_code=INVALID_PARAMETER_VALUE,
            )
        self._store_uri = store_uri
        self._tracking_uri = tracking_uri

    def create_model_version(  # noqa: PLR0917  (MLflow's signature)
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: list[ModelVersionTag] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Register a version: its files are read here, from where MLflow has them, and written into a location.

        A version of this registry is copied by the server, and no byte moves. A prompt has no files.
        """
        noted = {str(tag.key): str(tag.value) for tag in tags or []}
        own = self._own_version(source)
        if own is not None or noted.get(IS_PROMPT_TAG_KEY, "").lower() == "true":
            return super().create_model_version(
                name, own or source, run_id, tags, run_link, description, local_model_path, model_id
            )
        self.get_registered_model(name)
        logged = self._logged_model(source)
        with (
            self._files(source if logged is None else logged.artifact_location, local_model_path) as path,
            as_mlflow_errors(),
            show_progress(f"register {name}") as progress,
        ):
            made = self._client.models.register(
                name,
                path,
                run_id=run_id or (None if logged is None else logged.source_run_id),
                source=source,
                run_link=run_link,
                tags=noted,
                description=description or "",
                wait=False,
                progress=progress,
            )
        return self.get_model_version(name, str(made.version))

    def get_model_version_download_uri(self, name: str, version: str) -> str:
        """Where a version's files are read with the plug-in, whatever their source was."""
        super().get_model_version_download_uri(name, version)
        place = urlsplit(self._store_uri)
        return f"{place.scheme}://{place.netloc}/models/{quote(name, safe='')}/{version}"

    @property
    def _client(self) -> Fairlead:
        return connect(self._store_uri)

    def _host_creds(self) -> MlflowHostCreds:
        # Not those of the environment, which are the tracking server's.
        return MlflowHostCreds(host=self._client.url, auth=AUTH_NAME)

    def _call_endpoint(self, api: Any, *args: Any, **kwargs: Any) -> Any:
        with as_mlflow_errors(), calling(self._client, is_creating=_is_creating(api)):
            return super()._call_endpoint(api, *args, **kwargs)

    def _call_webhook_endpoint(self, api: Any, *args: Any, **kwargs: Any) -> Any:
        with as_mlflow_errors(), calling(self._client, is_creating=_is_creating(api)):
            return super()._call_webhook_endpoint(api, *args, **kwargs)

    def _await_model_version_creation(self, mv: ModelVersion, await_creation_for: float) -> None:
        """Wait until a worker has read every byte back; MLflow's own way looks every three seconds."""
        if mv.status != "PENDING_REGISTRATION":
            super()._await_model_version_creation(mv, await_creation_for)
            return
        try:
            with as_mlflow_errors():
                self._client.models.wait_ready(f"{mv.name}/{mv.version}", timeout_seconds=await_creation_for)
        except TimeoutError as error:
            raise MlflowException(str(error), error_code=TEMPORARILY_UNAVAILABLE) from error

    def _own_version(self, source: str) -> str | None:
        """The `models:/NAME/VERSION` that a source means, if it is a version of this registry."""
        if is_models_uri(source):
            found = get_model_name_and_version(self, source)
            return None if len(found) == 1 else f"models:/{found[0]}/{found[1]}"
        parts = urlsplit(source).path.strip("/").split("/")
        if is_fairlead(source) and len(parts) == 3 and parts[0] == "models":
            with as_mlflow_errors():
                url = server_url(source)
            if url is None or is_same_server(url, self._client.url):
                return f"models:/{unquote(parts[1])}/{parts[2]}"
        return None

    def _logged_model(self, source: str) -> LoggedModel | None:
        """The tracking server's logged model that a source names, which says where its files and its run are."""
        from mlflow import MlflowClient

        if not is_models_uri(source):
            return None
        return MlflowClient(self._tracking_uri).get_logged_model(str(get_model_name_and_version(self, source)[0]))

    @contextmanager
    def _files(self, place: str, local_model_path: str | None) -> Generator[Path]:
        """The files at a place on this machine, brought here by MLflow's client where they are not."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if local_model_path is not None:
            yield Path(local_model_path)
        elif is_local_uri(place):
            yield Path(local_file_uri_to_path(place))
        else:
            repository = get_artifact_repository(place, tracking_uri=self._tracking_uri, registry_uri=self._store_uri)
            with tempfile.TemporaryDirectory(prefix="fairlead-") as folder:
                yield Path(repository.download_artifacts("", folder))


def _is_creating(api: Any) -> bool:
    return str(api.DESCRIPTOR.name).startswith("Create")

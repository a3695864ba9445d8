"""A cluster's API, by the official client: read an object, apply one, list those with labels, delete one.

Where a cluster is and how to log in is the operator's to say: a folder has a kubeconfig for each, `NAME.yaml`. The file
`in-cluster.yaml`, empty, permits the account of the pod that Fairlead runs in. Whoever writes a target's document names
a cluster and says no more. What is told of an error holds no header and nothing of a kubeconfig.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

from fairlead.core.errors import Conflict, FairleadError, InvalidInput, MissingExtra, PermissionDenied, Unavailable
from fairlead.serving.kinds.manifests import MANAGER, Manifest

CLUSTER_FOLDER_SETTING = "FAIRLEAD_CLUSTER_FOLDER"
IN_CLUSTER = "in-cluster"
CLUSTER_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_PLUGINS = ("exec", "auth-provider")
_REQUEST_SECONDS = (3.0, 6.0)
_TOLD = 400

PLURALS: Mapping[str, str] = {
    "v1/ConfigMap": "configmaps",
    "v1/Service": "services",
    "v1/ServiceAccount": "serviceaccounts",
    "apps/v1/Deployment": "deployments",
    "autoscaling/v2/HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "keda.sh/v1alpha1/ScaledObject": "scaledobjects",
    "policy/v1/PodDisruptionBudget": "poddisruptionbudgets",
    "networking.k8s.io/v1/NetworkPolicy": "networkpolicies",
    "networking.k8s.io/v1/Ingress": "ingresses",
    "gateway.networking.k8s.io/v1/HTTPRoute": "httproutes",
    "serving.kserve.io/v1beta1/InferenceService": "inferenceservices",
    "mlops.seldon.io/v1alpha1/Model": "models",
    "mlops.seldon.io/v1alpha1/Experiment": "experiments",
    "ray.io/v1/RayService": "rayservices",
    "serving.fairlead.dev/v1alpha1/ModelEndpoint": "modelendpoints",
}
"""What a path calls the objects of each API version and kind that deployments have."""


class ObjectKey(NamedTuple):
    """One object of a cluster; `api` is its version and kind, `apps/v1/Deployment`."""

    api: str
    namespace: str
    name: str

    @property
    def kind(self) -> str:
        """The kind alone."""
        return self.api.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @staticmethod
    def of(found: Mapping[str, Any]) -> ObjectKey:
        """The key of an object that says its version, kind and namespace."""
        metadata = found["metadata"]
        return ObjectKey(f"{found['apiVersion']}/{found['kind']}", metadata["namespace"], metadata["name"])


class ClusterApi:
    """One cluster. Safe to share between threads; every method may be repeated.

    All raise `Unavailable` if the cluster does not answer, `PermissionDenied` if it refuses the operator's account, and
    `InvalidInput` if it knows no such namespace or kind, or refuses an object.
    """

    def __init__(self, name: str, connect: Callable[[], Any]) -> None:
        self._name = name
        self._connect = connect
        self._client = connect()

    def get(self, key: ObjectKey) -> Manifest | None:
        """An object as it is now; None if there is none, or the cluster does not know its kind."""
        return self._ask("GET", key, missing_is_none=True)

    def apply(self, found: Manifest, *, force: bool = False, dry_run: bool = False) -> Manifest:
        """Make an object have these members, by server-side apply; it is returned as it is then.

        Raises:
            Conflict: naming each member that somebody else has set, and who, unless `force`; or if the object has
                another `resourceVersion` than the one it is given with.
        """
        query = [("fieldManager", MANAGER), ("force", str(force).lower()), ("fieldValidation", "Strict")]
        query += [("dryRun", "All")] if dry_run else []
        answer = self._ask("PATCH", ObjectKey.of(found), query, body=found, content_type="application/apply-patch+yaml")
        return cast("Manifest", answer)

    def list(self, api: str, namespace: str, labels: Mapping[str, str]) -> list[Manifest]:
        """The objects of a kind that have these labels; none where the cluster does not know the kind."""
        selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        query = [("labelSelector", selector)]
        answer = self._ask("GET", ObjectKey(api, namespace, ""), query, missing_is_none=True) or {}
        version, _, kind = api.rpartition("/")
        # Members of a list do not say what they are.
        return [{**each, "apiVersion": version, "kind": kind} for each in answer.get("items", [])]

    def delete(self, key: ObjectKey) -> None:
        """Delete an object once what it owns is gone; nothing happens where there is none."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
        self._ask("DELETE", key, body=body, missing_is_none=True)

    def _ask(
        self,
        method: str,
        key: ObjectKey,
        query: Sequence[tuple[str, str]] = (),
        *,
        missing_is_none: bool = False,
        **options: Any,
    ) -> Manifest | None:
        exceptions = import_module("kubernetes.client.exceptions")
        http = import_module("urllib3.exceptions")
        try:
            try:
                return self._request(method, key, query, options)
            except exceptions.ApiException as error:
                if error.status != 401:
                    raise
                # Tokens of files are renewed there, and read when a client is made.
                self._client = self._connect()
                return self._request(method, key, query, options)
        except exceptions.ApiException as error:
            if error.status == 404 and missing_is_none:
                return None
            raise self._refused(key, int(error.status or 0), _body_of(error.body)) from None
        except (http.HTTPError, OSError, ValueError) as error:
            raise Unavailable(
                f"The cluster {self._name!r} does not answer ({type(error).__name__}).",
                hint="It is tried again; see whether its kubeconfig is right.",
            ) from None

    def _request(
        self, method: str, key: ObjectKey, query: Sequence[tuple[str, str]], options: Mapping[str, Any]
    ) -> Manifest:
        return self._client.request(
            method.lower(),
            _path(key),
            query_params=[*query],
            header_params={},
            path_params={},
            serializer=_as_it_is,
            _request_timeout=_REQUEST_SECONDS,
            **options,
        )

    def _refused(self, key: ObjectKey, status: int, body: Mapping[str, Any]) -> FairleadError:
        message = str(body.get("message", ""))[:_TOLD]
        if status == 403 and message and " cannot " not in message:
            # A quota or an admission policy, which says why.
            return PermissionDenied(f"The cluster {self._name!r} refuses {key}: {message}")
        if status in {401, 403}:
            return PermissionDenied(
                f"The cluster {self._name!r} does not let the account of its kubeconfig do this with {key}.",
                hint="Whoever runs the cluster can give the account a role for the namespace.",
            )
        if status == 409:
            owned = _owned_by_others(body)
            if not owned:
                return Unavailable(f"{key} changed at the same time.", hint="It is tried again.")
            return Conflict(
                f"{key} in the cluster {self._name!r} has members that somebody else set: {'; '.join(owned)}.",
                hint="Have that manager leave them, or set `overwrite: true` in the target's delivery_settings.",
            )
        if status == 404:
            return InvalidInput(
                f"The cluster {self._name!r} has no namespace {key.namespace!r}, or does not know {key.api}.",
                hint="Create the namespace, and install what the target's kind needs.",
            )
        if status in {400, 415, 422}:
            return InvalidInput(f"The cluster {self._name!r} does not take {key}: {message}")
        return Unavailable(f"The cluster {self._name!r} answers {status}.", hint="It is tried again.")


def open_cluster(folder: Path | None, name: str) -> ClusterApi:
    """A cluster that the operator lists. Asks nothing of it.

    Raises:
        InvalidInput: if the operator lists none of that name, or its kubeconfig cannot be used.
        MissingExtra: if the client is not installed.
    """
    return ClusterApi(name, lambda: _connect(folder, name))


def _connect(folder: Path | None, name: str) -> Any:
    path = check_cluster(folder, name)
    try:
        config, client, dynamic = (
            import_module(f"kubernetes.{each}") for each in ("config", "client", "dynamic.client")
        )
    except ModuleNotFoundError:
        raise MissingExtra(
            "Deployments to clusters need Kubernetes's client.", hint="Run: pip install 'fairlead[kubernetes]'"
        ) from None
    settings = client.Configuration()
    try:
        if name == IN_CLUSTER:
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(str(path), client_configuration=settings, persist_config=False)
    except (config.ConfigException, OSError, ValueError, KeyError, TypeError):
        raise _unusable(name, "it has no current context that can be used") from None
    settings.retries = False
    # What there is to know of an API is known here, so nobody has to discover it.
    return dynamic.DynamicClient(client.ApiClient(settings), discoverer=_discover_nothing)


def check_cluster(folder: Path | None, name: str) -> Path:
    """The kubeconfig of a cluster.

    Raises:
        InvalidInput: if the operator lists none of that name, or it would have a command run.
    """
    path = None if folder is None else folder.expanduser() / f"{name}.yaml"
    if path is None or not re.fullmatch(CLUSTER_NAME, name) or not path.is_file():
        raise InvalidInput(
            f"This server knows no cluster {name[:80]!r}.",
            hint=f"Whoever runs the server can put its kubeconfig into {CLUSTER_FOLDER_SETTING}, as NAME.yaml.",
        )
    if name != IN_CLUSTER:
        _check_kubeconfig(path, name)
    return path


def _check_kubeconfig(path: Path, name: str) -> None:
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        listed: list[dict[str, Any]] = document.get("users") or []
        users: list[dict[str, Any]] = [each.get("user") or {} for each in listed]
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError):
        raise _unusable(name, "it is no kubeconfig") from None
    if any(plugin in user for user in users for plugin in _PLUGINS):
        raise _unusable(name, "it would have a command run to log in, which Fairlead does not")


def _unusable(name: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"The kubeconfig of the cluster {name!r} cannot be used: {why}.",
        hint="Give it a token, a token file or a client certificate of an account for Fairlead.",
    )


def _as_it_is(client: Any, answer: Any) -> Any:
    del client
    return answer


def _discover_nothing(client: Any, cache_file: Any) -> None:
    del client, cache_file


def _path(key: ObjectKey) -> str:
    version, _, _ = key.api.rpartition("/")
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    name = f"/{key.name}" if key.name else ""
    return f"{root}/namespaces/{key.namespace}/{PLURALS[key.api]}{name}"


def _body_of(text: Any) -> Mapping[str, Any]:
    try:
        body: Any = json.loads(text)
    except (ValueError, TypeError):
        return {}
    return cast("Mapping[str, Any]", body) if isinstance(body, dict) else {}


def _owned_by_others(body: Mapping[str, Any]) -> list[str]:
    details: dict[str, Any] = body.get("details") or {}
    causes: list[dict[str, Any]] = details.get("causes") or []
    return [
        f"{str(each.get('field', ''))[:200]} ({str(each.get('message', ''))[:200]})"
        for each in causes
        if each.get("reason") == "FieldManagerConflict"
    ]

"""A Kubernetes API on loopback: strict schemas, resource versions, server-side apply with owners of fields, deletion.

It keeps objects as the values at their paths, so that each has its owners. Lists of things with names are merged by
name; other lists are one value. Namespaces are there when they are named in `namespaces`. What was applied is ready at
the next request for it, unless its name begins with one in `stuck` (never) or `failing` (it has given up).
"""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import yaml
from jsonschema import ValidationError

from fairlead.serving.cluster_api import PLURALS
from tests.serving.manifest_schemas import check_manifest

TOKEN = "a token of the operator's"
_Path = tuple[str | tuple[str, str], ...]
_KINDS = {(api.rpartition("/")[0], plural): api.rpartition("/")[2] for api, plural in PLURALS.items()}
_NOT_OWNED = {"apiVersion", "kind", "status"}


class Refused(Exception):
    """An answer that is no object."""

    def __init__(self, status: int, message: str, causes: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "apiVersion": "v1",
            "kind": "Status",
            "status": "Failure",
            "message": message,
            "code": status,
            "details": {"causes": causes or []},
        }


@dataclass(slots=True)
class Stored:
    """One object; `owners` are the paths that each manager has set."""

    version: str
    kind: str
    namespace: str
    name: str
    values: dict[_Path, Any] = field(default_factory=dict[_Path, Any])
    owners: dict[str, set[_Path]] = field(default_factory=dict[str, set[_Path]])
    generation: int = 0
    resource_version: int = 0
    status: dict[str, Any] = field(default_factory=dict[str, Any])
    is_leaving: bool = False

    def to_object(self) -> dict[str, Any]:
        found = _unflatten(self.values)
        metadata = {
            **found.pop("metadata", {}),
            "name": self.name,
            "namespace": self.namespace,
            "generation": self.generation,
            "resourceVersion": str(self.resource_version),
            **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if self.is_leaving else {}),
        }
        head = {"apiVersion": self.version, "kind": self.kind, "metadata": metadata}
        return head | found | ({"status": self.status} if self.status else {})


@dataclass(slots=True)
class KubernetesApi:
    url: str = ""
    namespaces: set[str] = field(default_factory=lambda: {"fairlead"})
    stuck: set[str] = field(default_factory=set[str])
    failing: set[str] = field(default_factory=set[str])
    objects: dict[tuple[str, ...], Stored] = field(default_factory=dict[tuple[str, ...], Stored])
    requests: list[str] = field(default_factory=list[str])
    versions: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def names(self, kind: str) -> set[str]:
        """The names of what is there of a kind."""
        with self.lock:
            return {each.name for each in self.objects.values() if each.kind == kind}

    def find(self, kind: str, name: str) -> Stored:
        """One object."""
        with self.lock:
            return next(each for each in self.objects.values() if (each.kind, each.name) == (kind, name))

    def edit(self, kind: str, name: str, *path: str, value: Any, manager: str = "kubectl-edit") -> None:
        """What somebody else does: set one value and own it."""
        with self.lock:
            stored = self.find(kind, name)
            for owned in stored.owners.values():
                owned.discard(path)
            stored.values[path] = value
            stored.owners.setdefault(manager, set()).add(path)
            self.touch(stored)

    def touch(self, stored: Stored) -> None:
        self.versions += 1
        stored.resource_version = self.versions
        stored.generation += 1

    def answer(self, method: str, target: str, body: Any) -> dict[str, Any]:
        """The object or list that a request is answered with."""
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        version, namespace, kind, name = self.address(parts.path)
        key = (version, kind, namespace, name)
        with self.lock:
            self.progress()
            if method == "PATCH":
                return self.apply(key, body, query)
            if not name:
                return self.list(version, kind, namespace, query.get("labelSelector", ""))
            if key not in self.objects:
                raise Refused(404, f"{kind} {name!r} not found")
            stored = self.objects[key]
            if method == "DELETE":
                if body.get("propagationPolicy") not in {"Foreground", "Background", "Orphan"}:
                    raise Refused(400, "propagationPolicy is not known")
                stored.is_leaving = True
            return stored.to_object()

    def address(self, path: str) -> tuple[str, str, str, str]:
        """Version, namespace, kind and name."""
        match path.strip("/").split("/"):
            case ["api", version, "namespaces", namespace, plural, *rest]:
                pass
            case ["apis", group, number, "namespaces", namespace, plural, *rest]:
                version = f"{group}/{number}"
            case _:
                raise Refused(404, "404 page not found")
        kind = _KINDS.get((version, plural))
        if kind is None:
            raise Refused(404, "the server could not find the requested resource")
        return version, namespace, kind, rest[0] if rest else ""

    def list(self, version: str, kind: str, namespace: str, selector: str) -> dict[str, Any]:
        wanted = dict(pair.split("=", 1) for pair in selector.split(",") if pair)
        found = [each.to_object() for key, each in self.objects.items() if key[:3] == (version, kind, namespace)]
        items = [each for each in found if wanted.items() <= each["metadata"].get("labels", {}).items()]
        for each in items:
            del each["apiVersion"], each["kind"]
        return {"apiVersion": version, "kind": f"{kind}List", "metadata": {}, "items": items}

    def apply(self, key: tuple[str, str, str, str], body: dict[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
        version, kind, namespace, name = key
        manager = query.get("fieldManager")
        if namespace not in self.namespaces:
            raise Refused(404, f"namespaces {namespace!r} not found")
        if manager is None or (body["apiVersion"], body["kind"], body["metadata"]["name"]) != (version, kind, name):
            raise Refused(400, "who applies it, or what it is, does not fit")
        given_version = body["metadata"].pop("resourceVersion", None)
        try:
            check_manifest(body)
        except (ValidationError, AssertionError) as error:
            raise Refused(400, f"strict decoding error: {str(error).splitlines()[0]}") from None
        stored = copy.deepcopy(self.objects.get(key)) or Stored(version, kind, namespace, name)
        if given_version not in {None, str(stored.resource_version)}:
            raise Refused(409, "the object has been modified; apply your changes to the latest version")
        if self.merge(stored, manager, _own_values(body), force=query.get("force") == "true"):
            self.touch(stored)
        if query.get("dryRun") == "All":
            return stored.to_object()
        self.objects[key] = stored
        return stored.to_object()

    def merge(self, stored: Stored, manager: str, given: dict[_Path, Any], *, force: bool) -> bool:
        """Take over what a manager gives; whether that changed anything."""
        causes: list[dict[str, str]] = []
        for other, owned in stored.owners.items():
            for path in owned & given.keys() if other != manager else ():
                if stored.values.get(path) != given[path]:
                    said = f'conflict with "{other}" using {stored.version}'
                    causes.append({"reason": "FieldManagerConflict", "message": said, "field": _to_text(path)})
        if causes and not force:
            raise Refused(409, f"Apply failed with {len(causes)} conflict(s)", causes)
        before = dict(stored.values)
        for other, owned in stored.owners.items():
            if other != manager:
                owned -= {path for path in owned & given.keys() if stored.values.get(path) != given[path]}
        others = set[_Path]().union(*(owned for other, owned in stored.owners.items() if other != manager))
        for path in stored.owners.get(manager, set[_Path]()) - given.keys() - others:
            stored.values.pop(path, None)
        stored.values.update(given)
        stored.owners[manager] = set(given)
        return stored.values != before

    def progress(self) -> None:
        """What a cluster does meanwhile."""
        for key, stored in list(self.objects.items()):
            if stored.is_leaving:
                del self.objects[key]
            elif stored.kind == "Deployment":
                stored.status = self.deployment_status(stored)
            elif stored.kind in {"InferenceService", "Model", "RayService", "ModelEndpoint"}:
                is_ready = not stored.name.startswith((*self.stuck, "\0"))
                ready = {"type": "Ready", "status": str(is_ready), "reason": "" if is_ready else "NoCapacity"}
                stored.status = {"observedGeneration": stored.generation, "conditions": [ready]}

    def deployment_status(self, stored: Stored) -> dict[str, Any]:
        has_failed = stored.name.startswith((*self.failing, "\0"))
        is_ready = not has_failed and not stored.name.startswith((*self.stuck, "\0"))
        replicas = stored.values.get(("spec", "replicas"), 1)
        progressing = {
            "type": "Progressing",
            "status": str(not has_failed),
            "reason": "ProgressDeadlineExceeded" if has_failed else "ReplicaSetUpdated",
            "message": "its pods do not get ready in time" if has_failed else "",
        }
        return {
            "observedGeneration": stored.generation,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "conditions": [{"type": "Available", "status": str(is_ready)}, progressing],
        }


def check_headers(method: str, headers: Message) -> None:
    """Refuse who is not known, and changes that are no apply."""
    if headers.get("authorization") != f"Bearer {TOKEN}":
        raise Refused(401, "Unauthorized")
    if method == "PATCH" and headers["content-type"] != "application/apply-patch+yaml":
        raise Refused(415, "only apply is known here")


@contextlib.contextmanager
def kubernetes_api() -> Generator[KubernetesApi]:
    """Serve an empty cluster while the block runs."""
    api = KubernetesApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            api.requests.append(f"{self.command} {self.path}")
            status, body = 200, cast("dict[str, Any]", {})
            try:
                check_headers(self.command, self.headers)
                body = api.answer(self.command, self.path, json.loads(data) if data else {})
            except Refused as refused:
                status, body = refused.status, refused.body
            payload = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_PATCH = do_DELETE = answer  # noqa: N815  (http.server's names)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name)
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_kubeconfig(path: Path, url: str, user: Mapping[str, Any] | None = None) -> None:
    """What an operator puts into the folder of clusters."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "fairlead"}}],
        "clusters": [{"name": "it", "cluster": {"server": url}}],
        "users": [{"name": "fairlead", "user": {"token": TOKEN} if user is None else dict(user)}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")


def _own_values(body: Mapping[str, Any]) -> dict[_Path, Any]:
    own = {name: value for name, value in body.items() if name not in _NOT_OWNED}
    named = {("metadata", "name"), ("metadata", "namespace")}
    return {path: value for path, value in _flatten(own, ()) if path not in named}


def _flatten(value: Any, path: _Path) -> Iterator[tuple[_Path, Any]]:
    if isinstance(value, dict) and value:
        for name, member in cast("dict[str, Any]", value).items():
            yield from _flatten(member, (*path, name))
        return
    items = cast("list[Any]", value) if isinstance(value, list) else []
    if items and all(isinstance(each, dict) and "name" in each for each in items):
        for each in items:
            yield from _flatten(each, (*path, ("name", each["name"])))
        return
    yield path, value


def _unflatten(values: Mapping[_Path, Any]) -> dict[str, Any]:
    tree: dict[Any, Any] = {}
    for path, value in values.items():
        place = tree
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = copy.deepcopy(value)
    return _to_lists(tree)


def _to_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    members = cast("dict[Any, Any]", value)
    if members and all(isinstance(name, tuple) for name in members):
        return [_to_lists(each) for each in members.values()]
    return {name: _to_lists(each) for name, each in members.items()}


def _to_text(path: _Path) -> str:
    return "".join(f".{part}" if isinstance(part, str) else f'[{part[0]}="{part[1]}"]' for part in path)

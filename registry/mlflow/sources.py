"""Where MLflow says that a version's files are, and who can give them to us.

A source is a text that a caller wrote. No file of this machine and no address is read because of it: files come from
what was uploaded to us, from another version of ours, or from a tracking server that an admin has named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from fairlead.core.errors import InvalidInput
from fairlead.core.ids import VERSION_MAX
from fairlead.registry.mlflow.paths import parse_path

ARTIFACTS_PATH = "/api/2.0/mlflow-artifacts/artifacts"
SOURCE_MAX_LENGTH = 2_000
_LOGGED_MODEL = re.compile(r"m-[0-9a-zA-Z]{1,60}")
_RUN = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z_\-]{0,255}")
_BUCKETS = frozenset({"s3", "gs", "wasbs", "abfss", "dbfs", "hdfs", "r2", "b2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a source names.

    `version` another version of ours (`name`, `version`); `path` a path below an artifact root (`authority` is its
    server, None where the source names none); `logged-model` and `run` things of a tracking server (`id`, and `path`
    below it); `bucket` an address that only the tracking server of its run reaches.
    """

    kind: Literal["version", "path", "logged-model", "run", "bucket"]
    text: str
    id: str = ""
    path: str = ""
    name: str = ""
    version: int = 0
    authority: str | None = None


def parse_source(text: str) -> Source:
    """Read a source.

    Raises:
        InvalidInput: if it is no source that anything could be brought from: a local path, an unknown scheme, or a
            path that leads elsewhere than down.
    """
    if len(text) > SOURCE_MAX_LENGTH or any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise _refusal(text, "it is too long or holds a control character")
    try:
        parts = urlsplit(text, allow_fragments=False)
    except ValueError:
        raise _refusal(text, "it cannot be read") from None
    scheme = parts.scheme.lower()
    if parts.query or "#" in text:
        raise _refusal(text, "it holds '?' or '#'")
    if scheme == "models" and not parts.netloc:
        return _parse_models(text, parts.path.strip("/"))
    if scheme == "runs" and not parts.netloc:
        run_id, _, path = parts.path.strip("/").partition("/")
        if not _RUN.fullmatch(run_id):
            raise _refusal(text, "it names no run")
        return Source(kind="run", text=text, id=run_id, path=parse_path(path, may_be_empty=True))
    if scheme == "mlflow-artifacts":
        return Source(kind="path", text=text, path=parse_path(parts.path.strip("/")), authority=parts.netloc or None)
    if scheme in {"http", "https"} and ARTIFACTS_PATH + "/" in parts.path:
        path = parts.path.partition(ARTIFACTS_PATH + "/")[2].strip("/")
        return Source(kind="path", text=text, path=parse_path(path), authority=parts.netloc)
    if scheme in _BUCKETS and parts.netloc:
        parse_path(parts.path.strip("/"), may_be_empty=True)
        return Source(kind="bucket", text=text)
    raise _refusal(text, "files of this kind are not read by the server")


def no_tracking_server(text: str) -> InvalidInput:
    """That nothing is configured that could give us the files of a source."""
    return InvalidInput(
        f"Invalid model version source: '{text[:200]}'. No tracking server is configured that its files could be "
        "brought from.",
        hint="An admin names one with: fairlead tracking-server add NAME URL. Or let the client send the files itself, "
        "with the plug-in: pip install 'fairlead[mlflow]' and mlflow.set_registry_uri('fairlead://...').",
        source=text[:200],
    )


def _parse_models(text: str, path: str) -> Source:
    if _LOGGED_MODEL.fullmatch(path):
        return Source(kind="logged-model", text=text, id=path)
    name, slash, version = path.rpartition("/")
    if slash and "/" not in name and version.isascii() and version.isdigit() and len(version) <= 10:
        number = int(version)
        if 0 < number <= VERSION_MAX:
            return Source(kind="version", text=text, name=name, version=number)
    raise _refusal(text, "it names neither a logged model nor a version")


def _refusal(text: str, reason: str) -> InvalidInput:
    return InvalidInput(
        f"Invalid model version source: '{text[:200]}': {reason}.",
        hint="Register from runs:/, models:/ or mlflow-artifacts:/. Files of your own machine are sent by the plug-in: "
        "pip install 'fairlead[mlflow]' and mlflow.set_registry_uri('fairlead://...').",
    )

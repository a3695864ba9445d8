"""Feast's objects as the JSON that the service takes. What code a repository holds runs here, on the client, only."""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import FeatureDefinitionInvalid, InvalidInput, MissingExtra
from fairlead.sdk.feast_checks import deferring_checks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fairlead.core.errors import JsonValue

# Parsed from a repository by Feast, and neither definitions nor anything that has values.
_LEFT_OUT = frozenset({"Project", "Permission", "RequestSource"})
_KEY_MADE_BY_FEAST = "__dummy_id"
_LATEST_LABEL = "LAST_WRITE_WINS"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRepository:
    """What a Feast repository defines, and the name of its project."""

    project: str
    objects: list[object]


def to_wire(objects: Iterable[object]) -> list[dict[str, JsonValue]]:
    """Each object as `{"kind": ..., "spec": ...}`, `spec` being its protobuf in JSON.

    What a view or service stands on need not be listed: a view brings nothing along but its source, so entities are.

    Raises:
        FeatureDefinitionInvalid: if something is no Feast object.
        MissingExtra: if Feast is not installed.
    """
    to_dict: Any = _import("google.protobuf.json_format").MessageToDict
    wire: list[dict[str, JsonValue]] = []
    for each in objects:
        to_proto: Any = getattr(each, "to_proto", None)
        kind = type(each).__name__
        if to_proto is None:
            raise FeatureDefinitionInvalid(
                f"A {kind} is no Feast object.", hint="Give entities, feature views and feature services."
            )
        if kind in _LEFT_OUT or getattr(each, "join_key", None) == _KEY_MADE_BY_FEAST:
            continue
        spec: Any = to_dict(to_proto())
        if kind == "BatchFeatureView":
            kind = "FeatureView"  # with a transformation it is refused, like any view with one
        wire.append(_label_view_as_view(spec) if kind == "LabelView" else {"kind": kind, "spec": spec})
    return wire


def _label_view_as_view(spec: Any) -> dict[str, JsonValue]:
    """A view of labels as a view: where the latest label counts, it is a view that labels are pushed to."""
    members: dict[str, Any] = spec["spec"]
    name, policy = members.get("name", ""), members.get("conflictPolicy", _LATEST_LABEL)
    source: dict[str, Any] = members.get("source") or {}
    if policy != _LATEST_LABEL or not source:
        raise FeatureDefinitionInvalid(
            f"Label view {name!r} " + ("has no source." if not source else f"settles conflicts by {policy}."),
            hint="Give it a source, and ConflictPolicy.LAST_WRITE_WINS: others are not kept.",
        )
    kept = {key: members[key] for key in ("name", "entities", "features", "entityColumns", "tags", "ttl", "online",
                                          "description", "owner") if key in members}  # fmt: skip
    streams = {"streamSource": source, "batchSource": source.get("batchSource")} if "batchSource" in source else {}
    return {"kind": "FeatureView", "spec": {"spec": {**kept, **(streams or {"batchSource": source})}}}


def load_repository(path: Path) -> LoadedRepository:
    """Everything that a Feast repository (a folder with `feature_store.yaml` and Python files) defines.

    Relative paths of sources are taken from the repository's folder. What the definitions leave to be found out (types
    of keys, columns) is read from their sources, as `feast apply` does.

    Raises:
        InvalidInput: if there is no such repository.
        FeatureDefinitionInvalid: if its code fails, with what it said, or something cannot be found out.
        MissingExtra: if Feast is not installed.
    """
    folder = path.expanduser().absolute()
    if not (folder / "feature_store.yaml").is_file():
        raise InvalidInput(
            f"{str(path)!r} is no Feast repository: it has no feature_store.yaml.",
            hint="Give the folder that `feast apply` is run in.",
        )
    parse_repo: Any = _import("feast.repo_operations").parse_repo
    try:
        with _standing_in(folder):
            contents: Any = parse_repo(folder)
    except Exception as error:  # (somebody else's code ran, and may raise anything)
        raise FeatureDefinitionInvalid(
            f"The repository {str(path)!r} cannot be loaded: {type(error).__name__}: {error}",
            hint="Run `feast plan` there; what it reports is wrong here too.",
        ) from error
    from fairlead.sdk.feast_inference import fill_in, project_of

    objects: list[object] = []
    for members in contents:
        objects.extend(members)
    for each in objects:
        _anchor_paths(each, folder)
    fill_in(contents, folder)
    return LoadedRepository(project=project_of(contents, folder), objects=objects)


@contextmanager
def _standing_in(folder: Path) -> Generator[None]:
    """As Feast loads a repository: from its folder, with its modules importable.

    Feast imports them by their bare names, so modules of another repository, or of this one before it was edited, are
    put aside for the while.
    """
    before, path = Path.cwd(), list(sys.path)
    own = {".".join(file.relative_to(folder).with_suffix("").parts) for file in folder.rglob("*.py")}
    own |= {name.rpartition(".")[0] for name in own} - {""}
    others = {name: sys.modules.pop(name) for name in own if name in sys.modules}
    # A compiled file counts as current by its second and size, which an edit may leave as they were.
    writes_compiled, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    invalidate_caches()
    linecache.clearcache()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_compiled
        for name in own:
            sys.modules.pop(name, None)
        sys.modules.update(others)
        os.chdir(before)
        sys.path[:] = path


def _anchor_paths(each: object, folder: Path) -> None:
    source: Any
    for source in (each, getattr(each, "batch_source", None)):
        for owner, member in ((getattr(source, "file_options", None), "uri"), (source, "database")):
            path = getattr(owner, member, None)
            if isinstance(path, str) and path and "://" not in path:
                setattr(owner, member, str(folder / path))


def _import(module: str) -> Any:
    try:
        with deferring_checks():
            return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "Feature definitions need Feast, which is not installed.", hint="Run: pip install 'fairlead[features]'"
        ) from error

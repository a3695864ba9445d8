"""Imports: everything that another registry has, brought here version by version, as often as one likes.

Each version is done for itself: read, stored, registered under the number it had, and read back by the server. So an
import that was interrupted goes on, and one that is repeated brings what is new or changed there. What cannot come is
said in the report and stops nothing else. Nothing is unpickled or run.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from fairlead.core.clock import format_time
from fairlead.core.errors import (
    AlreadyExists,
    Conflict,
    FairleadError,
    InvalidInput,
    ModelNotFound,
    NotFound,
    PermissionDenied,
    ServerUnavailable,
    Unauthenticated,
)
from fairlead.core.ids import parse_alias, parse_name
from fairlead.sdk.mlflow_model import read_mlflow_model
from fairlead.sdk.mlflow_registry import open_registry
from fairlead.sdk.records import JsonObject, Record

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from fairlead.sdk.artifacts import Artifacts
    from fairlead.sdk.mlflow_registry import SourceModel, SourceRegistry, SourceVersion
    from fairlead.sdk.models import Models
    from fairlead.sdk.records import RegisteredModel
    from fairlead.sdk.transport import Transport

Bars = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Shows a bar with a title while its block runs, which is told bytes: how many are done, and how many there are."""

LEFT_OUT = frozenset({"refused", "missing", "unreachable", "failed"})
"""Outcomes of what did not come."""

_PLURALS = {"model": "models", "prompt": "prompts", "version": "versions", "alias": "aliases"}
LABEL_DEFAULT = "unassigned"
_FATAL = (ServerUnavailable, Unauthenticated)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedItem(Record):
    """What became of one model, version or alias of the other registry.

    `outcome` is `created`, `changed`, `unchanged`, `deleted` (it came before, and was deleted here since), or what kept
    it from coming: `refused` (as Fairlead refuses it), `missing` (its files are not there), `unreachable` (where they
    are does not answer, or not to us) or `failed`. `reference` is what it is called here.
    """

    kind: str
    source: str
    reference: str | None = None
    outcome: str
    bytes: int = 0
    code: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport(Record):
    """What an import did, or, of a dry run, would do."""

    source: str
    is_dry_run: bool
    counts: JsonObject = field(default_factory=dict[str, Any])
    bytes: int = 0
    items: tuple[ImportedItem, ...] = ()

    @property
    def left_out(self) -> list[ImportedItem]:
        """What did not come."""
        return [item for item in self.items if item.outcome in LEFT_OUT]

    @property
    def notes(self) -> list[ImportedItem]:
        """What came otherwise than it was there."""
        return [item for item in self.items if item.detail and item.outcome not in LEFT_OUT]


class Imports:
    """Brings in what other registries have."""

    def __init__(self, transport: Transport, models: Models, artifacts: Artifacts) -> None:
        self._transport = transport
        self._models = models
        self._artifacts = artifacts

    def mlflow(
        self,
        uri: str,
        *,
        artifact_roots: Sequence[str] = (),
        names: Sequence[str] = (),
        renames: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        residency: str | None = None,
        dry_run: bool = False,
        bars: Bars | None = None,
    ) -> ImportReport:
        """Import the models, prompts, versions, aliases and tags of an MLflow server, or of its database.

        `names` are patterns (`churn-*`) of what to import; without any, everything is. `renames` says what a model is
        to be called here. `labels` (owner, team, cost_centre) and `residency` are those of models that are new here,
        unless their tags `fairlead.team` and so on say otherwise. `artifact_roots`: see `open_registry` in
        `fairlead.sdk.mlflow_registry`. `bars` shows a bar of each version's bytes. Needs the scope `admin`.

        Raises:
            InvalidInput: if the address is none, or no registry.
            Unavailable: if it, or the Fairlead server, does not answer.
            PermissionDenied: if either refuses the credentials.
        """
        source = open_registry(uri, artifact_roots)
        try:
            run = _Run(
                source,
                self._transport,
                self._models,
                self._artifacts,
                renames=renames or {},
                labels=labels or {},
                residency=residency,
                is_dry=dry_run,
                bars=bars or _no_bar,
            )
            wanted = [
                model
                for model in source.models()
                if not names or any(fnmatch.fnmatchcase(model.name, pattern) for pattern in names)
            ]
            versions = {model.name: source.versions(model) for model in wanted}
            run.total = sum(map(len, versions.values()))
            items = [item for model in wanted for item in run.model(model, versions[model.name])]
        except _NotAllowed as refusal:
            raise refusal.error from None
        finally:
            source.close()
        counts = Counter(f"{_PLURALS[item.kind]} {item.outcome}" for item in items)
        return ImportReport(
            source=source.address,
            is_dry_run=dry_run,
            counts=dict(sorted(counts.items())),
            bytes=sum(item.bytes for item in items),
            items=tuple(items),
        )


class _NotAllowed(Exception):
    """Fairlead, not the source, refuses the caller: then nothing else can be imported either."""

    def __init__(self, error: PermissionDenied) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True, kw_only=True)
class _Pending:
    """A version that is here, and what is to be said of it once every byte of it was read back."""

    item: ImportedItem
    number: int | None
    is_ready: bool = True


class _Run:
    """One import: each model with its versions and aliases, one after the other."""

    def __init__(
        self,
        source: SourceRegistry,
        transport: Transport,
        models: Models,
        artifacts: Artifacts,
        *,
        renames: Mapping[str, str],
        labels: Mapping[str, str],
        residency: str | None,
        is_dry: bool,
        bars: Bars,
    ) -> None:
        self._source = source
        self._transport = transport
        self._models = models
        self._artifacts = artifacts
        self._renames = renames
        self._labels = labels
        self._residency = residency
        self._is_dry = is_dry
        self._bars = bars
        self._environments = {str(item["name"]) for item in transport.items("/api/v1/environments")}
        self.total = 0
        self._begun = 0

    def model(self, model: SourceModel, versions: Sequence[SourceVersion]) -> Iterator[ImportedItem]:
        """Import one model; what becomes of it, of each version and of each alias."""
        kind = "prompt" if model.is_prompt else "model"
        try:
            name = parse_name(self._renames.get(model.name, model.name))
            registered, outcome = self._ensure(model, name)
        except FairleadError as error:
            yield _left_out(kind, model.name, error)
            for version in versions:
                yield _left_out("version", _reference(version), error)
            return
        yield ImportedItem(
            kind=kind, source=model.name, reference=name, outcome=outcome, detail=_moved(model.name, name)
        )
        if outcome == "deleted":
            return
        known = {} if registered is None else self._known(name)
        brought: list[tuple[SourceVersion, _Pending]] = []
        for version in versions:
            self._begun += 1
            try:
                brought.append((version, self._version(model, version, name, registered, known.get(_origin(version)))))
            except FairleadError as error:
                brought.append((version, _Pending(item=self._explained(version, error), number=None)))
        numbers: dict[int, int] = {}
        for version, pending in brought:
            try:
                # The server reads one version back while the next one is sent.
                if not pending.is_ready and not self._is_dry:
                    self._models.wait_ready(str(pending.item.reference))
            except FairleadError as error:
                yield self._explained(version, error)
                continue
            if pending.number is not None:
                numbers[version.version] = pending.number
            yield pending.item
        yield from self._aliases(model, name, registered, numbers)

    def _ensure(self, model: SourceModel, name: str) -> tuple[RegisteredModel | None, str]:
        try:
            found = self._models.get(name)
        except ModelNotFound:
            return self._create(model, name)
        tags = {key: value for key, value in model.tags.items() if found.tags.get(key) != value}
        description = model.description if model.description != found.description and model.description else None
        if not tags and description is None:
            return found, "unchanged"
        if not self._is_dry:
            body: JsonObject = {"tags": tags, "description": description}
            with _allowed():
                self._transport.request("PATCH", _path(name), body=body)
        return found, "changed"

    def _create(self, model: SourceModel, name: str) -> tuple[RegisteredModel | None, str]:
        if self._is_dry:
            return None, "created"
        whoami = str(self._transport.get("/api/v1/whoami")["principal"])
        labels = {
            label: model.tags.get(f"fairlead.{label}") or self._labels.get(label) or default
            for label, default in (("owner", whoami), ("team", LABEL_DEFAULT), ("cost_centre", LABEL_DEFAULT))
        }
        residency = model.tags.get("fairlead.residency") or self._residency or "unrestricted"
        try:
            with _allowed():
                made = self._models.create(
                    name, labels=labels, residency=residency, description=model.description, tags=model.tags
                )
        except AlreadyExists:
            # It is not shown, so it was deleted, and that is somebody's will.
            return None, "deleted"
        return made, "created"

    def _known(self, name: str) -> dict[str, JsonObject]:
        """What came before, by origin; what failed is tried again."""
        found = self._transport.items(f"{_path(name)}/imports")
        return {str(item["origin"]): item for item in found if item["state"] != "FAILED" or item["is_deleted"]}

    def _version(
        self,
        model: SourceModel,
        version: SourceVersion,
        name: str,
        registered: RegisteredModel | None,
        known: JsonObject | None,
    ) -> _Pending:
        if known is not None:
            return self._known_version(model, version, name, known)
        if version.status != "READY":
            raise NotFound(f"It is {version.status} there, and has no whole files.", hint="Register it again there.")
        source, size = _reference(version), 0
        if self._is_dry:
            size = 0 if model.is_prompt else sum(self._source.files(version).sizes().values())
            reference = f"{name}/{version.version}"
            item = ImportedItem(kind="version", source=source, reference=reference, outcome="created", bytes=size)
            return _Pending(item=item, number=version.version)
        if model.is_prompt or registered is None:
            answer = self._post(name, _body(model, version), None)
        else:
            title = f"{source} ({self._begun} of {self.total})"
            with self._bars(title) as advance, self._source.files(version).here() as folder:
                body, size = {**_body(model, version), **_of_files(folder)}, _size(folder)
                upload = self._artifacts.upload(
                    folder,
                    kind="model",
                    residency=registered.residency,
                    regions=registered.regions,
                    labels=registered.labels | {"model": name},
                    model=name,
                    progress=advance,
                )
            answer = self._post(name, body, upload.id)
        made = cast("JsonObject", answer["version"])
        number = int(made["version"])
        item = ImportedItem(
            kind="version",
            source=source,
            reference=str(made["reference"]),
            outcome=str(answer["outcome"]),
            bytes=size,
            detail="" if number == version.version else f"The number {version.version} was taken here.",
        )
        return _Pending(item=item, number=number, is_ready=made["state"] == "READY")

    def _known_version(self, model: SourceModel, version: SourceVersion, name: str, known: JsonObject) -> _Pending:
        number = int(known["version"])
        tags = cast("dict[str, str]", known["tags"])
        is_same = (known["description"], known["stage"]) == (version.description, _stage(version)) and all(
            tags.get(key) == value for key, value in version.tags.items()
        )
        outcome = "deleted" if known["is_deleted"] else "unchanged" if is_same else "changed"
        if outcome == "changed" and not self._is_dry:
            self._post(name, _body(model, version), None)
        item = ImportedItem(kind="version", source=_reference(version), reference=f"{name}/{number}", outcome=outcome)
        if known["is_deleted"]:
            return _Pending(item=item, number=None)
        return _Pending(item=item, number=number, is_ready=known["state"] == "READY")

    def _aliases(
        self, model: SourceModel, name: str, registered: RegisteredModel | None, numbers: Mapping[int, int]
    ) -> Iterator[ImportedItem]:
        here = {} if registered is None else registered.aliases
        for alias, there in sorted(model.aliases.items()):
            source, reference = f"{model.name}@{alias}", f"{name}@{alias}"
            number = numbers.get(there)
            try:
                if parse_alias(alias) in self._environments:
                    raise Conflict(
                        f"{alias!r} is an environment here, which only promotions move.",
                        hint=f"Run: fairlead model promote {name}/{number or 'VERSION'} --to {alias}",
                    )
                if number is None:
                    raise NotFound(f"Version {there}, which it names, is not here.")
                outcome = "created" if alias not in here else "unchanged" if here[alias] == number else "changed"
                if outcome != "unchanged" and not self._is_dry:
                    self._models.set_alias(name, alias, number)
            except _FATAL:
                raise
            except FairleadError as error:
                yield _left_out("alias", source, error)
                continue
            yield ImportedItem(kind="alias", source=source, reference=reference, outcome=outcome)

    def _post(self, name: str, body: JsonObject, upload_id: str | None) -> JsonObject:
        with _allowed():
            return self._transport.post(f"{_path(name)}/imports", {**body, "upload_id": upload_id})

    def _explained(self, version: SourceVersion, error: FairleadError) -> ImportedItem:
        """What kept a version from coming, and whether its run was deleted, which often is why."""
        if isinstance(error, _FATAL):
            raise error
        item = _left_out("version", _reference(version), error)
        if item.outcome == "missing" and version.run_id is not None:
            state = None
            with contextlib.suppress(FairleadError):
                state = self._source.run_state(version.run_id)
            if state == "deleted":
                detail = f"{item.detail} Its run {version.run_id} was deleted there."
                return ImportedItem.from_json({**item.to_json(), "detail": detail})
        return item


@contextlib.contextmanager
def _no_bar(_title: str) -> Generator[Callable[[int, int], None]]:
    yield lambda _done, _total: None


@contextlib.contextmanager
def _allowed() -> Generator[None]:
    try:
        yield
    except PermissionDenied as error:
        raise _NotAllowed(error) from error


def _body(model: SourceModel, version: SourceVersion) -> JsonObject:
    return {
        "origin": {
            "key": _origin(version),
            "version": version.version,
            "created_at": format_time(version.created_at),
            "stage": _stage(version),
        },
        "has_files": not model.is_prompt,
        "flavor": "prompt" if model.is_prompt else None,
        "source": version.source or None,
        "run_id": version.run_id,
        "run_link": version.run_link,
        "description": version.description,
        "tags": dict(version.tags),
    }


def _of_files(folder: Path) -> JsonObject:
    """What an MLflow model's own file says of it; nothing where it cannot be read."""
    with contextlib.suppress(InvalidInput):
        found = read_mlflow_model(folder)
        if found is not None:
            return {"flavor": found.flavor, "signature": found.signature}
    return {}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _origin(version: SourceVersion) -> str:
    """What a version is called among all that comes into a model: also the same by another address of its registry."""
    return f"{version.name}/{version.version} of {format_time(version.created_at)}"


def _stage(version: SourceVersion) -> str | None:
    return version.stage if version.stage in {"Staging", "Production", "Archived"} else None


def _reference(version: SourceVersion) -> str:
    return f"{version.name}/{version.version}"


def _moved(there: str, here: str) -> str:
    return "" if there == here else f"It is called {here} here."


def _left_out(kind: str, source: str, error: FairleadError) -> ImportedItem:
    if isinstance(error, _FATAL):
        raise error
    outcome = {400: "refused", 409: "refused", 422: "refused", 404: "missing", 403: "unreachable", 503: "unreachable"}
    return ImportedItem(
        kind=kind,
        source=source,
        outcome=outcome.get(error.status, "failed"),
        code=error.code,
        detail=" ".join(filter(None, (error.detail, error.hint))),
    )


def _path(name: str) -> str:
    return f"/api/v1/models/{quote(name, safe='')}"

"""Models: register, find, load, promote, roll back."""

from __future__ import annotations

import contextlib
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from fairlead.core.clock import format_time
from fairlead.core.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    JsonValue,
    MissingExtra,
    ModelNotFound,
    ServerUnavailable,
)
from fairlead.core.ids import ModelReference, parse_alias, parse_model_reference, parse_name
from fairlead.sdk.artifacts import READY_TIMEOUT_SECONDS, recorded_error, wait_until
from fairlead.sdk.features import TrainingSet
from fairlead.sdk.mlflow_model import read_mlflow_model
from fairlead.sdk.promotion_policies import Evaluation
from fairlead.sdk.records import AliasMove, Holding, ModelVersion, Promotion, RegisteredModel, Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from datetime import datetime

    from fairlead.sdk.artifacts import Artifacts, Upload
    from fairlead.sdk.features import PinnedData
    from fairlead.sdk.record_copies import RecordCopies
    from fairlead.sdk.signatures import Signatures, Verify
    from fairlead.sdk.transport import JsonObject, Transport

REQUIRED_LABELS = ("owner", "team", "cost_centre")


class Models:
    """Registered models and their versions."""

    def __init__(
        self, transport: Transport, artifacts: Artifacts, record: RecordCopies, signatures: Signatures
    ) -> None:
        self._transport = transport
        self._artifacts = artifacts
        self._record = record
        self._signatures = signatures

    def create(
        self,
        name: str,
        *,
        labels: Mapping[str, str],
        residency: str = "unrestricted",
        regions: Sequence[str] | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> RegisteredModel:
        """Create a registered model, before its first version.

        `labels` name who answers and pays for it: owner, team, cost_centre. `residency` binds every version for good.
        `regions` are where versions are to be; None means every location that the residency class permits.

        Raises:
            AlreadyExists, InvalidName, UnknownResidency, UnknownRegion, ResidencyViolation.
        """
        body: dict[str, JsonValue] = {
            "name": parse_name(name),
            "labels": dict(labels),
            "residency": residency,
            "regions": None if regions is None else list(regions),
            "description": description,
            "tags": dict(tags or {}),
        }
        return RegisteredModel.from_json(self._transport.post("/api/v1/models", body))

    def get(self, name: str) -> RegisteredModel:
        """One registered model.

        Raises:
            ModelNotFound
        """
        return RegisteredModel.from_json(self._transport.get(_model_path(name)))

    def list(self, *, name_prefix: str | None = None, state: str = "active") -> Iterator[RegisteredModel]:
        """Registered models by name that are `active`, `archived` or `deleted`."""
        found = self._transport.items("/api/v1/models", name_prefix=name_prefix, state=state)
        return map(RegisteredModel.from_json, found)

    def versions(self, name: str, *, state: str = "active") -> Iterator[ModelVersion]:
        """Versions of a model, newest first, that are `active`, `archived` or `deleted`."""
        return map(ModelVersion.from_json, self._transport.items(f"{_model_path(name)}/versions", state=state))

    def resolve(self, reference: str) -> ModelVersion:
        """The version that `churn/3` or `churn@production` means now.

        While the server is away, the nearest copy of its record answers: `resolved_from` and `as_of` say which.

        Raises:
            ModelNotFound, ModelVersionNotFound, AliasNotFound, InvalidReference.
            ServerUnavailable: if neither the server nor a copy answers.
        """
        parsed = parse_model_reference(reference)
        try:
            version = self._ask(parsed)
        except ServerUnavailable as away:
            return self._record.resolve(parsed, away)
        self._record.remember()
        return version

    def register(
        self,
        name: str,
        model: object,
        *,
        trained_on: TrainingSet | PinnedData | None = None,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, JsonValue] | None = None,
        labels: Mapping[str, str] | None = None,
        residency: str | None = None,
        tags: Mapping[str, str] | None = None,
        description: str = "",
        run_id: str | None = None,
        source: str | None = None,
        run_link: str | None = None,
        code_commit: str | None = None,
        parent_version: int | None = None,
        wait: bool = True,
        progress: Callable[[int, int], None] | None = None,
        uploaded: Callable[[Upload], object] | None = None,
    ) -> ModelVersion:
        """Register a new version: a path to its files (an MLflow model folder, or any file or folder), or an estimator.

        The first version of a name creates the registered model, with `labels` (owner, team, cost_centre) and
        `residency`. `trained_on` pins the feature service version and the snapshot digest. Only blocks that the
        location does not hold yet are sent, and those that differ little from `parent_version` (or else from the
        version before) as differences; `uploaded` is told what that came to. Returns when every byte was read back,
        unless `wait` is False. `source` and `run_link` are notes of where MLflow has the files and the run; `run_id`
        and `code_commit` say by which run, and of which code, it was made, for lineage.

        Raises:
            InvalidInput: if there is nothing at the path, or the object is none that can be saved safely.
            IntegrityError: if the bytes did not arrive as they were sent; register again.
        """
        registered = self._ensure(name, labels=labels, residency=residency)
        with _as_path(model) as path:
            mlflow_model = read_mlflow_model(path)
            upload = self._artifacts.upload(
                path,
                kind="model",
                residency=registered.residency,
                regions=registered.regions,
                labels=registered.labels | {"model": registered.name},
                model=registered.name,
                parent_version=parent_version,
                progress=progress,
            )
            if uploaded is not None:
                uploaded(upload)
        body: dict[str, JsonValue] = {
            "upload_id": upload.id,
            "flavor": mlflow_model.flavor if mlflow_model else None,
            "signature": mlflow_model.signature if mlflow_model else None,
            "metrics": {key: float(value) for key, value in (metrics or {}).items()},
            "params": dict(params or {}),
            "tags": dict(tags or {}),
            "description": description,
            "run_id": run_id,
            "source": source,
            "run_link": run_link,
            "code_commit": code_commit,
            "parent_version": parent_version,
        }
        if trained_on is not None:
            pinned = trained_on.pinned if isinstance(trained_on, TrainingSet) else trained_on
            body |= {
                "feature_service": pinned.service,
                "feature_service_digest": pinned.service_digest,
                "snapshot_digest": pinned.snapshot_digest,
            }
        version = ModelVersion.from_json(self._transport.post(f"{_model_path(name)}/versions", body))
        return self.wait_ready(version.reference) if wait else version

    def wait_ready(self, reference: str, *, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> ModelVersion:
        """Wait until a version's bytes were read back.

        Raises:
            IntegrityError: if they are not what was sent.
            TimeoutError: if no worker finished in time.
        """
        seen: list[ModelVersion] = []

        def check() -> bool:
            seen[:] = [self._ask(parse_model_reference(reference))]
            if seen[0].state == "FAILED":
                raise recorded_error(seen[0].error, f"Registering {reference} failed.")
            return seen[0].state == "READY"

        wait_until(check, f"{reference} to be READY", timeout_seconds)
        return seen[0]

    def download(
        self,
        reference: str,
        destination: Path | str | None = None,
        *,
        verify: Verify | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """Bring a version's files here, each byte verified; without a destination, into the cache.

        With `verify`, nothing is fetched unless those signed the version whom it asks for (`signed`: anyone whom the
        workspace trusts).

        Raises:
            NotSigned, SignatureReplayed, SignerNotTrusted: as `Signatures.check` says.
        """
        target = None if destination is None else Path(destination)
        digest = self._digest(reference) if verify is None else self._signed_digest(reference, verify)
        return self._artifacts.download(digest, target, progress=progress)

    def load(self, reference: str, *, verify: Verify | None = None) -> object:
        """Download a version and load it as an MLflow `PyFuncModel` (`predict(frame)`).

        Loading runs the model's own code in this process, as loading a model does: `verify` says who must have signed
        it before that, as with `download`.

        Raises:
            NotSigned, SignatureReplayed, SignerNotTrusted: as `Signatures.check` says.
            MissingExtra: without `fairlead[serving]`.
            InvalidInput: if the version is not an MLflow model; use `download`.
        """
        path = self.download(reference, verify=verify)
        if not (path / "MLmodel").is_file():
            raise InvalidInput(
                f"{reference} is not an MLflow model, so it cannot be loaded by itself.",
                hint=f"Get its files with: fairlead model download {reference}",
            )
        try:
            from mlflow import pyfunc
        except ModuleNotFoundError as error:
            raise MissingExtra("Loading a model needs MLflow.", hint="Run: pip install 'fairlead[serving]'") from error
        return pyfunc.load_model(str(path))

    def where(self, reference: str) -> tuple[Replica, ...]:
        """Where a version's bytes are, or should be."""
        return self._artifacts.get(self._digest(reference)).replicas

    def wait_replicated(self, reference: str, *, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> tuple[Replica, ...]:
        """Wait until every wanted replica of a version is VERIFIED.

        Raises:
            TimeoutError: if one is not, in time.
        """

        def check() -> bool:
            replicas = self.where(reference)
            return bool(replicas) and all(replica.state == "VERIFIED" for replica in replicas)

        wait_until(check, f"{reference} to be everywhere", timeout_seconds)
        return self.where(reference)

    def verify(self, reference: str) -> list[JsonObject]:
        """Read every byte of every replica of a version; see `Artifacts.verify`."""
        return self._artifacts.verify(self._digest(reference))

    def set_alias(self, name: str, alias: str, version: int, *, revision: int | None = None) -> AliasMove:
        """Point an alias at a version. `revision` is the one it must still have (None: whatever it has now).

        Raises:
            StaleRevision: if someone moved it first.
        """
        path = f"{_model_path(name)}/aliases/{quote(parse_alias(alias), safe='')}"
        base = self.alias_revision(name, alias) if revision is None else revision
        return AliasMove.from_json(self._transport.request("PUT", path, body={"version": version}, if_match=base))

    def alias_revision(self, name: str, alias: str) -> int:
        """The revision that an alias or environment pointer has now; 0 if it was never set."""
        for move in self.history(f"{name}@{alias}"):
            return move.revision
        return 0

    def history(self, reference: str) -> list[AliasMove]:
        """Every move of `name@alias`, newest first."""
        parsed = parse_model_reference(reference)
        if parsed.alias is None:
            raise InvalidInput(f"{reference} is a version; only an alias has a history.", hint="Write name@ALIAS.")
        path = f"{_model_path(parsed.name)}/history/{quote(parsed.alias, safe='')}"
        return [AliasMove.from_json(move) for move in self._transport.items(path)]

    def promote(
        self,
        reference: str,
        environment: str,
        *,
        reason: str = "",
        revision: int | None = None,
        dry_run: bool = False,
        is_emergency: bool = False,
        basis: Mapping[str, str] | None = None,
    ) -> Promotion:
        """Ask for an environment to point at a version; applied at once when every gate passes.

        The answer's `state` is APPLIED, or AWAITING_APPROVAL when a policy wants another principal's word. An emergency
        sets freezes aside for those who hold a role that the policy names for it. `basis` is that of a plan
        (`plan["basis"]`): if anything of it has changed, the request is refused.

        Raises:
            GateRefused: with the plan in `attributes["plan"]`.
            PlanOutdated: with what changed in `attributes["changes"]`.
            StaleRevision: if someone moved the environment first.
        """
        version = self._ask(parse_model_reference(reference))
        base = self.alias_revision(version.name, environment) if revision is None else revision
        body: dict[str, JsonValue] = {
            "version": version.version,
            "environment": environment,
            "reason": reason,
            "dry_run": dry_run,
            "emergency": is_emergency,
            "basis": None if basis is None else dict(basis),
        }
        answer = self._transport.post(f"{_model_path(version.name)}/promotions", body, if_match=base)
        return Promotion.from_json(answer)

    def promotion(self, promotion_id: str) -> Promotion:
        """One promotion, as it stands.

        Raises:
            PromotionNotFound
        """
        return Promotion.from_json(self._transport.get(f"/api/v1/promotions/{quote(promotion_id, safe='')}"))

    def wait_decided(self, promotion_id: str, *, timeout_seconds: float) -> Promotion:
        """Wait until a promotion awaits approval no longer, and answer it; as it stands when the time is over."""
        seen: list[Promotion] = []

        def check() -> bool:
            seen[:] = [self.promotion(promotion_id)]
            return seen[0].state != "AWAITING_APPROVAL"

        with contextlib.suppress(TimeoutError):
            wait_until(check, f"{promotion_id} to be decided", timeout_seconds)
        return seen[0] if seen else self.promotion(promotion_id)

    def promotions(self, *, model: str | None = None, state: str | None = None) -> Iterator[Promotion]:
        """Promotions, newest first."""
        return map(Promotion.from_json, self._transport.items("/api/v1/promotions", model=model, state=state))

    def approve(self, promotion_id: str, *, comment: str = "") -> Promotion:
        """Give this principal's approval; the last one needed applies the promotion.

        Raises:
            SelfApproval: the requester cannot approve.
            StaleRevision: if the environment was moved meanwhile.
        """
        return self._decide(promotion_id, "approve", comment)

    def reject(self, promotion_id: str, *, comment: str = "") -> Promotion:
        """Refuse a promotion that awaits approval."""
        return self._decide(promotion_id, "reject", comment)

    def withdraw(self, promotion_id: str, *, comment: str = "") -> Promotion:
        """Take back a promotion that this principal asked for.

        Raises:
            PermissionDenied: if somebody else asked for it.
        """
        return self._decide(promotion_id, "withdraw", comment)

    def evaluate(
        self, reference: str, name: str, metrics: Mapping[str, float], *, dataset: str | None = None
    ) -> Evaluation:
        """Record what was measured of a version, for gates to ask."""
        version = self._ask(parse_model_reference(reference))
        body: dict[str, JsonValue] = {"name": name, "metrics": dict(metrics), "dataset": dataset}
        path = f"{_model_path(version.name)}/versions/{version.version}/evaluations"
        return Evaluation.from_json(self._transport.post(path, body))

    def evaluations(self, reference: str) -> Iterator[Evaluation]:
        """What was measured of a version, newest first."""
        version = self._ask(parse_model_reference(reference))
        path = f"{_model_path(version.name)}/versions/{version.version}/evaluations"
        return map(Evaluation.from_json, self._transport.items(path))

    def held_at(self, reference: str, at: datetime | None = None) -> Holding:
        """Which version held `name@alias` at a time (None: now), by whose word, through which gates, and what it was.

        Raises:
            AliasNotFound: if nothing held it then.
        """
        parsed = parse_model_reference(reference)
        if parsed.alias is None:
            raise InvalidInput(f"{reference} is a version; only an alias has a history.", hint="Write name@ALIAS.")
        path = f"{_model_path(parsed.name)}/history/{quote(parsed.alias, safe='')}/at"
        return Holding.from_json(self._transport.get(path, time=None if at is None else format_time(at)))

    def rollback(
        self,
        name: str,
        environment: str,
        *,
        reason: str,
        to_version: int | None = None,
        revision: int | None = None,
    ) -> AliasMove:
        """Move an environment back to its previous holder (or a recent one), at once; for whoever is on call.

        Raises:
            PermissionDenied: without the role `on-call` there, and no admin.
            Conflict: if the environment had no such holder.
            StaleRevision: if someone moved it first.
        """
        base = self.alias_revision(name, environment) if revision is None else revision
        if base == 0:
            raise Conflict(
                f"{name}@{environment} was never set, so there is nothing to roll back.",
                hint=f"See what was promoted where with: fairlead model show {name}",
            )
        path = f"{_model_path(name)}/environments/{quote(environment, safe='')}/rollback"
        return AliasMove.from_json(
            self._transport.post(path, {"to_version": to_version, "reason": reason}, if_match=base)
        )

    def _decide(self, promotion_id: str, decision: str, comment: str) -> Promotion:
        path = f"/api/v1/promotions/{quote(promotion_id, safe='')}/{decision}"
        return Promotion.from_json(self._transport.post(path, {"comment": comment}, is_repeatable=False))

    def _ask(self, reference: ModelReference) -> ModelVersion:
        """The version that a reference means by the server's own word, for what is about to change something."""
        return ModelVersion.from_json(self._transport.get("/api/v1/resolve", reference=str(reference)))

    def _digest(self, reference: str) -> str:
        version = self.resolve(reference)
        if version.artifact_digest is None:
            version = self.wait_ready(version.reference)
        return cast("str", version.artifact_digest)

    def _signed_digest(self, reference: str, verify: Verify) -> str:
        version = self.resolve(reference)
        self._signatures.check(reference, version, verify)
        return cast("str", version.artifact_digest)

    def _ensure(self, name: str, *, labels: Mapping[str, str] | None, residency: str | None) -> RegisteredModel:
        try:
            registered = self.get(name)
        except ModelNotFound:
            missing = [label for label in REQUIRED_LABELS if label not in (labels or {})]
            if missing:
                raise InvalidInput(
                    f"{name} is new, and its labels {', '.join(missing)} are missing.",
                    hint="Give labels owner, team and cost_centre with the first version.",
                ) from None
            try:
                return self.create(name, labels=labels or {}, residency=residency or "unrestricted")
            except AlreadyExists:  # by someone who was first
                registered = self.get(name)
        if residency is not None and residency != registered.residency:
            raise InvalidInput(f"{name} has residency {registered.residency}, which cannot change to {residency}.")
        return registered


@contextmanager
def _as_path(model: object) -> Generator[Path]:
    if isinstance(model, str | Path):
        path = Path(model).expanduser()
        if not path.exists():
            raise InvalidInput(f"There is nothing at {path}.", hint="Give the path of a model's file or folder.")
        yield path
        return
    if type(model).__module__.partition(".")[0] != "sklearn":
        raise InvalidInput(
            f"A {type(model).__name__} cannot be saved by itself.",
            hint="Save it with MLflow or safetensors, and register the folder.",
        )
    try:
        from mlflow import sklearn as mlflow_sklearn
    except ModuleNotFoundError as error:
        raise MissingExtra("Saving an estimator needs MLflow.", hint="Run: pip install 'fairlead[serving]'") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        # skops holds no code that runs on loading, which a pickle does.
        mlflow_sklearn.save_model(model, str(path), serialization_format="skops")
        yield path


def _model_path(name: str) -> str:
    return f"/api/v1/models/{quote(parse_name(name), safe='')}"

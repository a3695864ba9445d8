"""Every error that Fairlead raises on purpose, as one tree.

FairleadError
├── InvalidInput                 400, exit 2   the request itself is wrong
│   ├── InvalidName              a name with a slash, a NUL, a reserved word ...
│   ├── InvalidReference         neither `name/3` nor `name@alias`
│   ├── InvalidDigest
│   ├── InvalidPageToken
│   ├── InvalidManifest          a path that climbs out, a duplicate, a size that lies
│   ├── UnknownRegion            no such region in the catalog
│   ├── UnknownArea              no such demand area in the catalog
│   ├── UnknownResidency         no such residency class
│   ├── FeatureDefinitionInvalid
│   ├── BodyTooLarge             413
│   ├── AnswerTooLarge           413
│   ├── MethodNotAllowed         405
│   ├── RangeNotSatisfiable      416: a range beyond the end, or several at once
│   ├── FeatureRowsInvalid       422: pushed rows that do not fit a feature view
│   ├── FeatureSourceInvalid     a file or column of a feature view's source is missing or unreadable
│   └── IdempotencyKeyReused     422: same key, other request
├── NotFound                     404, exit 3
│   ├── ModelNotFound, ModelVersionNotFound, AliasNotFound, EnvironmentNotFound
│   ├── ArtifactNotFound, LocationNotFound, UploadNotFound, PromotionNotFound, UpkeepNotFound
│   ├── FeatureServiceNotFound, FeatureViewNotFound, FeatureAgentNotFound, SnapshotNotFound, EntityNotFound
│   ├── ExpectationsNotFound, ErasureNotFound
│   ├── BundleNotFound, DeploymentNotFound, TokenNotFound, ReplicaPolicyNotFound, PromotionPolicyNotFound
│   ├── BudgetNotFound, RoleBindingNotFound, IssuerNotFound, WorkspaceNotFound
│   ├── SignerNotFound, RetentionPolicyNotFound, DeployTargetNotFound, FeedNotFound, RegionNotFound
│   ├── WebhookNotFound, WebhookDeliveryNotFound
│   ├── FeatureServerNotFound, FeatureCheckNotFound, PushSourceNotFound
│   ├── ContainerRegistryNotFound, ImageVariantNotFound, ProfileNotFound
│   ├── EncryptionKeyNotFound    a workspace has no encryption key of that id
│   └── ObjectNotFound           a key that a location does not hold
├── Unauthenticated              401, exit 4
│   └── TicketInvalid            a feature agent was shown a ticket that is forged, has expired or is another's
├── PermissionDenied             403, exit 4
│   ├── SelfApproval             the requester cannot approve
│   └── NotCacheable             data under a residency rule is in no cache
├── Conflict                     409, exit 5
│   ├── AlreadyExists
│   ├── StaleRevision            412: someone moved it first
│   ├── PlanOutdated             412: what a plan rests on has changed
│   ├── RevisionRequired         428: a move without If-Match
│   ├── NotReady                 a version or replica whose bytes are not yet verified
│   │   ├── SnapshotNotOnline    no region keeps that snapshot online
│   │   └── FeaturesStale        no region's features are as fresh as was asked for
│   ├── LeaseLost                another worker holds a newer fencing token
│   ├── LocationInUse            what only this location holds may be nowhere else
│   ├── VersionInUse             a model or version that an environment or deployment holds
│   ├── FeaturesInUse            features that a model in an environment takes
│   ├── Archived                 an archived model or version cannot be promoted
│   ├── BytesReleased            a deleted version whose bytes were given up cannot be restored
│   └── HomeInUse                another server owns this FAIRLEAD_HOME
├── GateRefused                  422, exit 6   a promotion that a gate refuses
├── ExpectationFailed            422, exit 6   a snapshot that is not as expected is not served
├── PickleRefused                422, exit 6   a bundle of a model that runs code when it is opened
├── CodeRefused                  422, exit 6   features that code of others makes, which nobody said may run
├── NotSigned                    422, exit 6   a version lacks a signature that counts
│   ├── SignatureInvalid         no envelope of ours, or it does not verify
│   ├── SignatureReplayed        made for another version, other bytes, or older than one before
│   └── SignerNotTrusted         whoever made it is not trusted for this model at that time
├── ResidencyViolation           422, exit 6   data would leave where it must stay
├── PlacementInfeasible          422, exit 6   no placement satisfies every limit
├── DistributionInfeasible       422, exit 6   no way to bring an artifact to its destinations in time
├── PartialFailure               207, exit 7   some of it worked
├── IntegrityError               502, exit 1   bytes are not what their name says
│   ├── CorruptBlock, CorruptPack, CorruptLayout, CorruptManifest, BadSignature
│   ├── CorruptArchive           a file of an exported artifact
│   ├── CorruptObject            an encrypted object that does not decrypt to what was written
│   ├── CorruptSnapshot          a snapshot's artifact whose deltas do not give the rows it says it holds
│   ├── AgentNotTrusted          who answers at a feature agent's address is not that agent
│   └── AnswerCorrupt            a feature agent answered other rows than it was asked for
├── Unavailable                  503, exit 1   try again
│   ├── ServerUnavailable, LocationUnavailable, EndpointUnavailable, ReplicaUnavailable, FeedUnavailable
│   ├── KeyUnavailable           an encryption key cannot be unwrapped here
│   ├── BeingCollected           an object is just being deleted as garbage
│   ├── BudgetExhausted          a copy waits until its budget's period ends, or its limit is raised
│   ├── FeatureServerUnavailable no feature server that may be asked answers
│   ├── AgentUnavailable         no feature agent of a view's home region answers, or not to the end
│   ├── AgentBusy                a feature agent joins as much as it may at once
│   └── JoinTimedOut             a join took longer than a feature agent may take for one
├── StorageFull                  507, exit 1
├── DatabaseRevisionMismatch     500, exit 1   the schema is older or newer than the code
└── MissingExtra                 501, exit 1   an optional dependency is not installed

The code is a contract: it appears in `type` of a problem document, scripts match on it, and it is never renamed or
reused. Exit codes are listed in `ExitCode`; both registries only grow.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

PROBLEM_TYPE_PREFIX = "urn:fairlead:error:"

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


class ExitCode(IntEnum):
    """What the command line answers to the shell."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    AUTH = 4
    CONFLICT = 5
    GATE_REFUSED = 6
    PARTIAL = 7
    AWAITING_APPROVAL = 8


class FairleadError(Exception):
    """What went wrong, to what, and what to type next.

    `detail` is one sentence that names the thing and the value. `hint` is the next command or step. `attributes` are
    machine-readable facts that travel in the problem document; they hold no secret, SQL or server path.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong"
    status: ClassVar[int] = 500
    exit_code: ClassVar[ExitCode] = ExitCode.FAILURE

    def __init__(self, detail: str, /, *, hint: str | None = None, **attributes: JsonValue) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.attributes: dict[str, JsonValue] = dict(attributes)

    def __str__(self) -> str:
        return f"{self.detail} {self.hint}" if self.hint else self.detail


class InvalidInput(FairleadError):
    code = "invalid-input"
    title = "The request is not valid"
    status = 400
    exit_code = ExitCode.USAGE


class InvalidName(InvalidInput):
    code = "invalid-name"
    title = "The name is not valid"


class InvalidReference(InvalidInput):
    code = "invalid-reference"
    title = "The reference is not valid"


class InvalidDigest(InvalidInput):
    code = "invalid-digest"
    title = "The digest is not valid"


class InvalidPageToken(InvalidInput):
    code = "invalid-page-token"
    title = "The page token is not valid here"


class InvalidManifest(InvalidInput):
    code = "invalid-manifest"
    title = "The manifest is not valid"


class UnknownRegion(InvalidInput):
    code = "unknown-region"
    title = "The catalog has no such region"


class UnknownArea(InvalidInput):
    code = "unknown-area"
    title = "The catalog has no such demand area"


class UnknownResidency(InvalidInput):
    code = "unknown-residency"
    title = "There is no such residency class"


class FeatureDefinitionInvalid(InvalidInput):
    code = "feature-definition-invalid"
    title = "The feature definition is not valid"


class FeatureSourceInvalid(InvalidInput):
    code = "feature-source-invalid"
    title = "The source of a feature view cannot be read"


class FeatureRowsInvalid(InvalidInput):
    code = "feature-rows-invalid"
    title = "Some of the rows do not fit the feature view"
    status = 422


class RangeNotSatisfiable(InvalidInput):
    code = "range-not-satisfiable"
    title = "The range cannot be served"
    status = 416


class MethodNotAllowed(InvalidInput):
    code = "method-not-allowed"
    title = "The path does not answer this method"
    status = 405


class BodyTooLarge(InvalidInput):
    code = "body-too-large"
    title = "The request's body is too large"
    status = 413


class AnswerTooLarge(InvalidInput):
    code = "answer-too-large"
    title = "The answer would be too large"
    status = 413


class IdempotencyKeyReused(InvalidInput):
    code = "idempotency-key-reused"
    title = "The idempotency key was used for another request"
    status = 422


class NotFound(FairleadError):
    code = "not-found"
    title = "There is no such thing"
    status = 404
    exit_code = ExitCode.NOT_FOUND


class ModelNotFound(NotFound):
    code = "model-not-found"
    title = "There is no such registered model"


class ModelVersionNotFound(NotFound):
    code = "model-version-not-found"
    title = "There is no such model version"


class AliasNotFound(NotFound):
    code = "alias-not-found"
    title = "There is no such alias"


class EnvironmentNotFound(NotFound):
    code = "environment-not-found"
    title = "There is no such environment"


class ArtifactNotFound(NotFound):
    code = "artifact-not-found"
    title = "There is no such artifact"


class LocationNotFound(NotFound):
    code = "location-not-found"
    title = "There is no such location"


class UpkeepNotFound(NotFound):
    code = "upkeep-not-found"
    title = "There is no such pass over a location"


class UploadNotFound(NotFound):
    code = "upload-not-found"
    title = "There is no such upload"


class PromotionNotFound(NotFound):
    code = "promotion-not-found"
    title = "There is no such promotion"


class FeatureServiceNotFound(NotFound):
    code = "feature-service-not-found"
    title = "There is no such feature service"


class FeatureViewNotFound(NotFound):
    code = "feature-view-not-found"
    title = "There is no such feature view"


class FeatureAgentNotFound(NotFound):
    code = "feature-agent-not-found"
    title = "There is no such feature agent"


class FeatureServerNotFound(NotFound):
    code = "feature-server-not-found"
    title = "No such feature server"


class FeatureCheckNotFound(NotFound):
    code = "feature-check-not-found"
    title = "No such check of features"


class SnapshotNotFound(NotFound):
    code = "snapshot-not-found"
    title = "There is no such snapshot"


class PushSourceNotFound(NotFound):
    code = "push-source-not-found"
    title = "No feature view takes rows from such a source"


class ExpectationsNotFound(NotFound):
    code = "expectations-not-found"
    title = "There is no such set of expectations"


class ErasureNotFound(NotFound):
    code = "erasure-not-found"
    title = "There is no such erasure"


class EntityNotFound(NotFound):
    code = "entity-not-found"
    title = "There is no such entity"


class BundleNotFound(NotFound):
    code = "bundle-not-found"
    title = "There is no such bundle"


class DeploymentNotFound(NotFound):
    code = "deployment-not-found"
    title = "There is no such deployment"


class DeployTargetNotFound(NotFound):
    code = "deploy-target-not-found"
    title = "There is no such deploy target"


class ContainerRegistryNotFound(NotFound):
    code = "container-registry-not-found"
    title = "There is no such container registry"


class ImageVariantNotFound(NotFound):
    code = "image-variant-not-found"
    title = "There is no such variant of images"


class ProfileNotFound(NotFound):
    code = "profile-not-found"
    title = "There is no such profile"


class TokenNotFound(NotFound):
    code = "token-not-found"
    title = "There is no such token"


class ReplicaPolicyNotFound(NotFound):
    code = "replica-policy-not-found"
    title = "There is no such replica policy"


class FeedNotFound(NotFound):
    code = "feed-not-found"
    title = "There is no such feed of the catalog"


class RegionNotFound(NotFound):
    code = "region-not-found"
    title = "The workspace's catalog has no such region"


class PromotionPolicyNotFound(NotFound):
    code = "promotion-policy-not-found"
    title = "There is no such promotion policy"


class RoleBindingNotFound(NotFound):
    code = "role-binding-not-found"
    title = "There is no such role binding"


class IssuerNotFound(NotFound):
    code = "issuer-not-found"
    title = "There is no such issuer"


class WorkspaceNotFound(NotFound):
    code = "workspace-not-found"
    title = "There is no such workspace"


class SignerNotFound(NotFound):
    code = "signer-not-found"
    title = "There is no such signer"


class RetentionPolicyNotFound(NotFound):
    code = "retention-policy-not-found"
    title = "There is no such retention policy"


class BudgetNotFound(NotFound):
    code = "budget-not-found"
    title = "There is no such budget"


class WebhookNotFound(NotFound):
    code = "webhook-not-found"
    title = "There is no such webhook"


class WebhookDeliveryNotFound(NotFound):
    code = "webhook-delivery-not-found"
    title = "There is no such delivery"


class EncryptionKeyNotFound(NotFound):
    code = "encryption-key-not-found"
    title = "There is no such encryption key"


class ObjectNotFound(NotFound):
    code = "object-not-found"
    title = "The location holds no such object"


class Unauthenticated(FairleadError):
    code = "unauthenticated"
    title = "The caller is not known"
    status = 401
    exit_code = ExitCode.AUTH


class TicketInvalid(Unauthenticated):
    code = "ticket-invalid"
    title = "The ticket is not valid here"


class PermissionDenied(FairleadError):
    code = "permission-denied"
    title = "The caller may not do this"
    status = 403
    exit_code = ExitCode.AUTH


class NotCacheable(PermissionDenied):
    code = "not-cacheable"
    title = "The data may not be cached"


class SelfApproval(PermissionDenied):
    code = "self-approval"
    title = "The requester cannot approve"


class Conflict(FairleadError):
    code = "conflict"
    title = "The state does not allow this"
    status = 409
    exit_code = ExitCode.CONFLICT


class AlreadyExists(Conflict):
    code = "already-exists"
    title = "The name is taken"


class StaleRevision(Conflict):
    code = "stale-revision"
    title = "Someone changed it first"
    status = 412


class PlanOutdated(Conflict):
    code = "plan-outdated"
    title = "The world changed since it was planned"
    status = 412


class VersionInUse(Conflict):
    code = "version-in-use"
    title = "An environment or deployment holds it"


class FeaturesInUse(Conflict):
    code = "features-in-use"
    title = "A model in an environment takes them"


class Archived(Conflict):
    code = "archived"
    title = "It is archived"


class BytesReleased(Conflict):
    code = "bytes-released"
    title = "Its bytes were given up"


class RevisionRequired(Conflict):
    code = "revision-required"
    title = "A move needs the revision it starts from"
    status = 428


class NotReady(Conflict):
    code = "not-ready"
    title = "The bytes are not verified yet"


class SnapshotNotOnline(NotReady):
    code = "snapshot-not-online"
    title = "No region keeps that snapshot online"


class FeaturesStale(NotReady):
    code = "features-stale"
    title = "No region's features are as fresh as was asked for"


class LeaseLost(Conflict):
    code = "lease-lost"
    title = "Another worker took over"


class LocationInUse(Conflict):
    code = "location-in-use"
    title = "The location cannot be given up"


class HomeInUse(Conflict):
    code = "home-in-use"
    title = "Another server owns this home"


class GateRefused(FairleadError):
    code = "gate-refused"
    title = "A gate refused the promotion"
    status = 422
    exit_code = ExitCode.GATE_REFUSED


class ExpectationFailed(FairleadError):
    code = "expectation-failed"
    title = "The snapshot is not as expected"
    status = 422
    exit_code = ExitCode.GATE_REFUSED


class PickleRefused(FairleadError):
    code = "pickle-refused"
    title = "The model is a pickle, and no policy allows it"
    status = 422
    exit_code = ExitCode.GATE_REFUSED


class CodeRefused(FairleadError):
    code = "code-refused"
    title = "It takes running code, and nobody said that it may"
    status = 422
    exit_code = ExitCode.GATE_REFUSED


class NotSigned(FairleadError):
    code = "not-signed"
    title = "The version lacks a signature that counts"
    status = 422
    exit_code = ExitCode.GATE_REFUSED


class SignatureInvalid(NotSigned):
    code = "signature-invalid"
    title = "The signature is not valid"


class SignatureReplayed(NotSigned):
    code = "signature-replayed"
    title = "The signature was made for something else"


class SignerNotTrusted(NotSigned):
    code = "signer-not-trusted"
    title = "The signer is not trusted here"


class ResidencyViolation(FairleadError):
    code = "residency-violation"
    title = "The data may not go there"
    status = 422
    exit_code = ExitCode.GATE_REFUSED


class PlacementInfeasible(FairleadError):
    code = "placement-infeasible"
    title = "No placement satisfies every limit"
    status = 422
    exit_code = ExitCode.GATE_REFUSED


class DistributionInfeasible(FairleadError):
    code = "distribution-infeasible"
    title = "Nothing brings the artifact there in time"
    status = 422
    exit_code = ExitCode.GATE_REFUSED


class PartialFailure(FairleadError):
    code = "partial-failure"
    title = "Only some of it worked"
    status = 207
    exit_code = ExitCode.PARTIAL


class IntegrityError(FairleadError):
    code = "integrity"
    title = "The bytes are not what their name says"
    status = 502


class CorruptBlock(IntegrityError):
    code = "corrupt-block"
    title = "A block does not match its digest"


class CorruptPack(IntegrityError):
    code = "corrupt-pack"
    title = "A pack is damaged"


class CorruptLayout(IntegrityError):
    code = "corrupt-layout"
    title = "A layout is damaged"


class CorruptManifest(IntegrityError):
    code = "corrupt-manifest"
    title = "A manifest does not match its digest"


class CorruptArchive(IntegrityError):
    code = "corrupt-archive"
    title = "A file of an exported artifact is damaged"


class CorruptSnapshot(IntegrityError):
    code = "corrupt-snapshot"
    title = "A snapshot's artifact does not hold the rows it says it holds"


class CorruptObject(IntegrityError):
    code = "corrupt-object"
    title = "An encrypted object does not decrypt"


class AgentNotTrusted(IntegrityError):
    code = "agent-not-trusted"
    title = "Who answers is not the feature agent"


class AnswerCorrupt(IntegrityError):
    code = "answer-corrupt"
    title = "A feature agent's answer is not of the rows it was asked for"


class BadSignature(IntegrityError):
    code = "bad-signature"
    title = "The signature does not verify"


class Unavailable(FairleadError):
    code = "unavailable"
    title = "Not reachable now"
    status = 503


class ServerUnavailable(Unavailable):
    code = "server-unavailable"
    title = "The server does not answer"


class LocationUnavailable(Unavailable):
    code = "location-unavailable"
    title = "The storage location does not answer"


class EndpointUnavailable(Unavailable):
    code = "endpoint-unavailable"
    title = "No healthy endpoint may answer"


class FeedUnavailable(Unavailable):
    code = "feed-unavailable"
    title = "A feed of the catalog does not answer as it should"


class ReplicaUnavailable(Unavailable):
    code = "replica-unavailable"
    title = "No verified replica can be read"


class FeatureServerUnavailable(Unavailable):
    code = "feature-server-unavailable"
    title = "No feature server that may be asked answers"


class AgentUnavailable(Unavailable):
    code = "agent-unavailable"
    title = "No feature agent answers"


class AgentBusy(Unavailable):
    code = "agent-busy"
    title = "The feature agent is busy"


class JoinTimedOut(Unavailable):
    code = "join-timed-out"
    title = "The join took too long"


class BeingCollected(Unavailable):
    code = "being-collected"
    title = "An object that this needs is just being deleted as garbage"


class BudgetExhausted(Unavailable):
    code = "budget-exhausted"
    title = "The budget does not cover the transfer"


class KeyUnavailable(Unavailable):
    code = "key-unavailable"
    title = "The encryption key cannot be had here"


class StorageFull(FairleadError):
    code = "storage-full"
    title = "The storage is full"
    status = 507


class DatabaseRevisionMismatch(FairleadError):
    code = "database-revision-mismatch"
    title = "The database is at another schema revision"


class MissingExtra(FairleadError):
    code = "missing-extra"
    title = "An optional dependency is not installed"
    status = 501


def error_classes() -> dict[str, type[FairleadError]]:
    """Every error class by its code."""
    found: dict[str, type[FairleadError]] = {}
    pending: list[type[FairleadError]] = [FairleadError]
    while pending:
        cls = pending.pop()
        if "code" in vars(cls):  # one without travels as the class above it
            found[cls.code] = cls
        pending.extend(cls.__subclasses__())
    return found

"""Where a bundle is from: an in-toto statement with SLSA's provenance, signed by the key of the server that built it.

The statement names the bundle's digest, so it cannot lie in the bundle: it is kept beside it, in the record. Who built
it and when is in here and nowhere else, and so two builds of one recipe stay equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fairlead.core.canonical import canonical_json
from fairlead.core.clock import format_time
from fairlead.core.errors import JsonValue
from fairlead.core.ids import Digest, digest_hex
from fairlead.core.signatures import STATEMENT_TYPE, sign_payload
from fairlead.serving.recipe import Recipe
from fairlead.serving.requirements import Lock

if TYPE_CHECKING:
    from fairlead.core.signatures import PrivateKey

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:fairlead:bundle:v2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One run of a builder: its bundle, and when."""

    bundle_id: str
    digest: Digest
    region: str
    started_at: datetime
    finished_at: datetime


def provenance(recipe: Recipe, lock: Lock, build: Build) -> bytes:
    """The statement, as canonical JSON."""
    materials: list[JsonValue] = [
        {"name": recipe.reference, "digest": {"sha256": digest_hex(recipe.artifact_digest)}},
        {"name": "requirements.lock.txt", "digest": {"sha256": digest_hex(lock.digest)}},
    ]
    if recipe.base_image is not None:
        name, _, digest = recipe.base_image.partition("@sha256:")
        materials.append({"name": name, "digest": {"sha256": digest}})
    statement: dict[str, JsonValue] = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": recipe.reference, "digest": {"sha256": digest_hex(build.digest)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {**recipe.facts(), "lock": None if recipe.lock is None else lock.digest},
                "internalParameters": {"recipe": recipe.digest, "region": build.region},
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {"id": "urn:fairlead:bundle-builder", "version": {"fairlead": version("fairlead")}},
                "metadata": {
                    "invocationId": build.bundle_id,
                    "startedOn": format_time(build.started_at),
                    "finishedOn": format_time(build.finished_at),
                },
            },
        },
    }
    return canonical_json(statement)


def sign_provenance(payload: bytes, signing_key: bytes) -> Mapping[str, Any]:
    """The statement in a DSSE envelope. `signing_key` are the 32 bytes of the server's Ed25519 key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key: PrivateKey = Ed25519PrivateKey.from_private_bytes(signing_key)
    return sign_payload(payload, key)

"""What is in a bundle, as CycloneDX 1.6: the model, the base image, and every package with the wheels it may be from.

It lies in the bundle, so it holds nothing of the moment or the machine: no time, and a serial number that follows from
what it lists.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version as version_of
from typing import Any

from fairlead.core.canonical import canonical_json
from fairlead.core.ids import digest_hex
from fairlead.serving.recipe import Recipe
from fairlead.serving.requirements import Lock, LockedPackage

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:fairlead:bundle:sbom")


def bill_of_materials(recipe: Recipe, lock: Lock, files: Mapping[str, bytes]) -> bytes:
    """The document, as canonical JSON. `files` are the bundle's own modules by name."""
    name, _, version = recipe.reference.rpartition("/")
    components = [
        {
            "type": "machine-learning-model",
            "bom-ref": "model",
            "name": name,
            "version": version,
            "hashes": [{"alg": "SHA-256", "content": digest_hex(recipe.artifact_digest)}],
            "description": "The files of the model version; the hash is that of their manifest.",
        },
        *(_of_file(path, data) for path, data in sorted(files.items())),
        *_of_image(recipe.base_image),
        *map(_of_package, lock.packages),
    ]
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": "bundle", "name": recipe.service_name, "version": version},
            "tools": {"components": [{"type": "application", "name": "fairlead", "version": version_of("fairlead")}]},
            "properties": [
                {"name": "fairlead:reference", "value": recipe.reference},
                {"name": "fairlead:lock", "value": lock.digest},
            ],
        },
        "components": components,
        "dependencies": [{"ref": "bundle", "dependsOn": sorted(str(each["bom-ref"]) for each in components)}],
    }
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, canonical_json(document).decode())}"
    return canonical_json(document) + b"\n"


def _of_file(path: str, data: bytes) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"file:{path}",
        "name": path,
        "hashes": [{"alg": "SHA-256", "content": sha256(data).hexdigest()}],
    }


def _of_image(image: str | None) -> Sequence[dict[str, Any]]:
    if image is None:
        return []
    name, _, digest = image.partition("@")
    return [
        {
            "type": "container",
            "bom-ref": "base-image",
            "name": name,
            "version": digest,
            "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
        }
    ]


def _of_package(package: LockedPackage) -> dict[str, Any]:
    purl = f"pkg:pypi/{package.name}@{package.version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        # One package has a wheel for each platform, and the one that is installed has one of these hashes.
        "externalReferences": [
            {
                "type": "distribution",
                "url": f"https://pypi.org/project/{package.name}/{package.version}/",
                "hashes": [{"alg": "SHA-256", "content": each.removeprefix("sha256:")} for each in package.hashes],
            }
        ],
    }

"""What Kubernetes APIs take: the schemas of its own kinds, and of others the fields that Fairlead writes.

The latter are written after the public API references of the projects named beside them; what is not listed is refused.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import kubernetes_validate.utils as kube
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.serving.kserve_types import check_kserve

VERSION = "v1.37.0"
_FOLDER = f"kubernetes-json-schema/{VERSION}-local-strict"


def _object(required: tuple[str, ...] = (), /, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*required],
        "additionalProperties": False,
    }


_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
_OPEN: dict[str, Any] = {"type": "object"}

SPECS: dict[tuple[str, str], dict[str, Any]] = {
    # KEDA 2 (Apache-2.0), ScaledObject specification
    ("keda.sh/v1alpha1", "ScaledObject"): _object(
        ("scaleTargetRef", "triggers"),
        scaleTargetRef=_object(("name",), name=_TEXT),
        minReplicaCount=_COUNT,
        maxReplicaCount=_COUNT,
        triggers={"type": "array", "items": _object(("type", "metadata"), type=_TEXT, metadata=_TEXTS)},
    ),
    # Gateway API v1 (Apache-2.0), HTTPRoute
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): _object(
        parentRefs={"type": "array", "items": _object(("name",), name=_TEXT, namespace=_TEXT)},
        hostnames={"type": "array", "items": _TEXT},
        rules={
            "type": "array",
            "items": _object(
                backendRefs={
                    "type": "array",
                    "items": _object(
                        ("name",),
                        name=_TEXT,
                        port={"type": "integer", "minimum": 1, "maximum": 65535},
                        weight={"type": "integer", "minimum": 0, "maximum": 1_000_000},
                    ),
                }
            ),
        },
    ),
    # KServe, serving.kserve.io/v1beta1: by its own types, and a predictor is a pod with members of its own
    ("serving.kserve.io/v1beta1", "InferenceService"): _object(("predictor",), predictor=_OPEN),
    # KubeRay 1.4 (Apache-2.0), ray.io/v1
    ("ray.io/v1", "RayService"): _object(
        ("rayClusterConfig",),
        serveConfigV2=_TEXT,
        upgradeStrategy=_object(type={"enum": ["NewCluster", "None"]}),
        rayClusterConfig=_object(
            ("headGroupSpec",),
            rayVersion=_TEXT,
            enableInTreeAutoscaling={"type": "boolean"},
            headGroupSpec=_object(("template", "rayStartParams"), template=_OPEN, rayStartParams=_TEXTS),
            workerGroupSpecs={
                "type": "array",
                "items": _object(
                    ("groupName", "template", "rayStartParams"),
                    groupName=_TEXT,
                    replicas=_COUNT,
                    minReplicas=_COUNT,
                    maxReplicas=_COUNT,
                    template=_OPEN,
                    rayStartParams=_TEXTS,
                ),
            },
        ),
    ),
    # Crossplane 1 (Apache-2.0), apiextensions.crossplane.io/v1
    ("apiextensions.crossplane.io/v1", "CompositeResourceDefinition"): _object(
        ("group", "names", "versions"),
        group=_TEXT,
        names=_object(("kind", "plural"), kind=_TEXT, plural=_TEXT),
        claimNames=_object(("kind", "plural"), kind=_TEXT, plural=_TEXT),
        versions={
            "type": "array",
            "items": _object(
                ("name", "served", "referenceable"),
                name=_TEXT,
                served={"type": "boolean"},
                referenceable={"type": "boolean"},
                schema=_object(openAPIV3Schema=_OPEN),
            ),
        },
    ),
    ("apiextensions.crossplane.io/v1", "Composition"): _object(
        ("compositeTypeRef", "mode"),
        compositeTypeRef=_object(("apiVersion", "kind"), apiVersion=_TEXT, kind=_TEXT),
        mode={"const": "Pipeline"},
        pipeline={
            "type": "array",
            "items": _object(
                ("step", "functionRef"), step=_TEXT, functionRef=_object(("name",), name=_TEXT), input=_OPEN
            ),
        },
    ),
    # Seldon Core 2, public documentation of Model and Experiment
    ("mlops.seldon.io/v1alpha1", "Model"): _object(
        ("storageUri", "requirements"),
        storageUri=_TEXT,
        requirements={"type": "array", "items": _TEXT},
        memory=_TEXT,
        server=_TEXT,
        replicas=_COUNT,
        minReplicas=_COUNT,
        maxReplicas=_COUNT,
    ),
    ("mlops.seldon.io/v1alpha1", "Experiment"): _object(
        ("candidates",),
        default=_TEXT,
        candidates={"type": "array", "items": _object(("name", "weight"), name=_TEXT, weight=_COUNT)},
    ),
}

# Ray 2.60 (Apache-2.0), the Serve configuration file
SERVE = _object(
    ("applications",),
    http_options=_object(host=_TEXT, port=_COUNT),
    applications={
        "type": "array",
        "items": _object(
            ("name", "import_path"),
            name=_TEXT,
            route_prefix={"type": "string", "pattern": "^/"},
            import_path=_TEXT,
            runtime_env=_object(env_vars=_TEXTS),
            deployments={
                "type": "array",
                "items": _object(
                    ("name",),
                    name=_TEXT,
                    num_replicas={"type": "integer", "minimum": 1},
                    autoscaling_config=_object(min_replicas=_COUNT, max_replicas={"type": "integer", "minimum": 1}),
                    ray_actor_options=_object(num_cpus={"type": "number"}, num_gpus={"type": "number"}, memory=_COUNT),
                ),
            },
        ),
    },
)

PREDICTOR = frozenset({"minReplicas", "maxReplicas", "canaryTrafficPercent", "scaleMetric", "scaleTarget", "timeout"})
"""Members that KServe adds to those of a pod."""


def check_manifest(found: dict[str, Any]) -> None:
    """Refuse an object with a field that its API does not know, or without one that it needs."""
    spec = SPECS.get((found["apiVersion"], found["kind"]))
    if spec is None:
        group = found["apiVersion"].split("/")
        name = "-".join([found["kind"].lower(), *([group[0].split(".")[0], group[1]] if len(group) > 1 else group)])
        _validator(name).validate(found)
        return
    _validator("objectmeta-meta-v1").validate(found["metadata"])
    assert set(found) == {"apiVersion", "kind", "metadata", "spec"}
    Draft202012Validator(spec).validate(found["spec"])
    if found["kind"] == "InferenceService":
        check_kserve("V1beta1InferenceServiceSpec", found["spec"])
        pod = {name: value for name, value in found["spec"]["predictor"].items() if name not in PREDICTOR}
        _validator("podspec-v1").validate(pod)
    if found["kind"] == "RayService":
        cluster = found["spec"]["rayClusterConfig"]
        for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])):
            _validator("podtemplatespec-v1").validate(group["template"])


@cache
def _registry() -> Registry[Any]:
    registry: Registry[Any] = Registry()
    return Resource.from_contents(kube.schema_contents(f"{_FOLDER}/_definitions.json", VERSION)) @ registry


@cache
def _validator(name: str) -> Any:
    schema = kube.schema_contents(f"{_FOLDER}/{name}.json", VERSION)
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _registry())

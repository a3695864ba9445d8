"""Crossplane: a claim for each deployment and region, and the definition and composition that make it real.

A claim says what should run in a region, as the list of its Kubernetes objects; the composition wraps each of them in
an `Object` of provider-kubernetes, for the cluster that a ProviderConfig stands for. So one control plane, which holds
those ProviderConfigs, serves many clusters. Definition and composition are the same for all claims: apply them once.
They need provider-kubernetes, function-go-templating and function-auto-ready. Claims are those of Crossplane 1, which
Crossplane 2 still takes.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from fairlead.serving.kinds.kubernetes import KubernetesSettings, render_manifests
from fairlead.serving.kinds.manifests import (
    DOMAIN,
    NAMESPACE_PATTERN,
    Manifest,
    annotations_of,
    manifest,
    object_name,
    to_documents,
)
from fairlead.serving.workload import CLUSTER_DELIVERIES, Document, TargetKind, Workload

_VERSION = "v1alpha1"
_GROUP = f"serving.{DOMAIN}"

# Each object is wrapped under a name of its own, so that what a claim no longer lists is removed.
_TEMPLATE = """{{- $claim := .observed.composite.resource }}
{{- range $object := $claim.spec.objects }}
{{- $name := printf "%s-%s" (lower $object.kind) $object.metadata.name }}
---
apiVersion: kubernetes.crossplane.io/v1alpha2
kind: Object
metadata:
  annotations:
    gotemplating.fn.crossplane.io/composition-resource-name: {{ $name }}
spec:
  providerConfigRef:
    name: {{ $claim.spec.cluster }}
  forProvider:
    manifest: {{ $object | toJson }}
{{- end }}
"""


class CrossplaneSettings(KubernetesSettings):
    """How a deployment is written for Crossplane: as for Kubernetes, and where the claim goes."""

    claim_namespace: str = Field(
        default="fairlead", pattern=NAMESPACE_PATTERN, description="The namespace of the claims in the control plane."
    )
    cluster: str = Field(
        pattern=NAMESPACE_PATTERN, description="The ProviderConfig of provider-kubernetes that stands for the cluster."
    )


def render(workload: Workload, settings: CrossplaneSettings) -> tuple[Document, ...]:
    """The definition and composition of endpoints, and the claim of one.

    Raises:
        InvalidInput: if the target's settings do not say how to run what was placed.
    """
    claim = manifest(
        f"{_GROUP}/{_VERSION}/ModelEndpoint",
        workload,
        object_name(workload),
        settings.claim_namespace,
        is_revision=False,
        spec={"cluster": settings.cluster, "objects": render_manifests(workload, settings)},
    )
    claim["metadata"]["annotations"] = annotations_of(workload)
    return to_documents([_definition(), _composition(), claim])


def _definition() -> Manifest:
    spec: dict[str, Any] = {
        "type": "object",
        "required": ["cluster", "objects"],
        "properties": {
            "cluster": {"type": "string", "description": "The ProviderConfig that stands for the cluster."},
            "objects": {
                "type": "array",
                "description": "The Kubernetes objects that run the endpoint.",
                "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
    }
    return {
        "apiVersion": "apiextensions.crossplane.io/v1",
        "kind": "CompositeResourceDefinition",
        "metadata": {"name": f"xmodelendpoints.{_GROUP}"},
        "spec": {
            "group": _GROUP,
            "names": {"kind": "XModelEndpoint", "plural": "xmodelendpoints"},
            "claimNames": {"kind": "ModelEndpoint", "plural": "modelendpoints"},
            "versions": [
                {
                    "name": _VERSION,
                    "served": True,
                    "referenceable": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
                }
            ],
        },
    }


def _composition() -> Manifest:
    return {
        "apiVersion": "apiextensions.crossplane.io/v1",
        "kind": "Composition",
        "metadata": {"name": f"xmodelendpoints.{_GROUP}"},
        "spec": {
            "compositeTypeRef": {"apiVersion": f"{_GROUP}/{_VERSION}", "kind": "XModelEndpoint"},
            "mode": "Pipeline",
            "pipeline": [
                {
                    "step": "objects",
                    "functionRef": {"name": "function-go-templating"},
                    "input": {
                        "apiVersion": "gotemplating.fn.crossplane.io/v1beta1",
                        "kind": "GoTemplate",
                        "source": "Inline",
                        "inline": {"template": _TEMPLATE},
                    },
                },
                {"step": "ready", "functionRef": {"name": "function-auto-ready"}},
            ],
        },
    }


KIND = TargetKind(name="crossplane", settings=CrossplaneSettings, render=render, deliveries=CLUSTER_DELIVERIES)

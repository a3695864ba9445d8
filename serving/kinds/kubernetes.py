"""Plain Kubernetes: a Deployment for each revision, and what leads requests to it, scales it and guards it.

A new revision is a Deployment of its own beside the former one, so nothing is replaced while it still answers. With a
Gateway, an HTTPRoute shares the requests out between the two by weight. Without one, each revision has a Service of its
own, and the Service that bears the deployment's name leads to the one that is fully in.

    ServiceAccount, ConfigMap, NetworkPolicy, PodDisruptionBudget     of the deployment
    Deployment, HorizontalPodAutoscaler or ScaledObject, Service      of each revision
    Service, Ingress or HTTPRoute                                     of the deployment
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.distributions import overlay_of
from fairlead.serving.kinds.manifests import (
    NAMESPACE_PATTERN,
    Manifest,
    annotations_of,
    labels_of,
    manifest,
    object_name,
    revision_object_name,
    revisions_of,
    selector_of,
    to_documents,
    without_none,
)
from fairlead.serving.kinds.pods import (
    METRICS_ANNOTATIONS,
    PodSettings,
    account_manifests,
    pod_labels,
    pod_spec,
)
from fairlead.serving.kinds.scaling import Autoscaling, autoscaler, fixed_replicas
from fairlead.serving.workload import CLUSTER_DELIVERIES, PORT, Document, TargetKind, TargetSettings, Workload

_HOST = r"^(\*\.)?[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?$"
_SERVICE_PORT = 80
_ANYWHERE = {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}
# "Understanding the GKE metadata server": where pods with a workload identity ask for tokens.
_GKE_METADATA = (("169.254.169.252/32", 988), ("169.254.169.254/32", 80))


class Gateway(TargetSettings):
    """A Gateway of the Gateway API that exists, and takes routes from the deployment's namespace."""

    name: str = Field(pattern=NAMESPACE_PATTERN, description="The Gateway's name.")
    namespace: str | None = Field(
        default=None, pattern=NAMESPACE_PATTERN, description="Its namespace, where it is another one."
    )


class NetworkRules(TargetSettings):
    """Who may reach the pods, and whom they may reach beside names and the online store."""

    from_namespaces: tuple[str, ...] = Field(
        default=(), description="Namespaces that may send requests; without any, whoever reaches the cluster's network."
    )
    to_ports: tuple[int, ...] = Field(
        default=(), description="TCP ports that the pods may reach anywhere but link-local addresses."
    )


class KubernetesSettings(PodSettings):
    """How a deployment is written for a cluster."""

    exposure: Literal["service", "load-balancer", "ingress", "gateway"] = Field(
        default="service", description="How requests get in: from the cluster alone, or by what leads in from outside."
    )
    host: str | None = Field(default=None, pattern=_HOST, description="The host name, for `ingress` and `gateway`.")
    gateway: Gateway | None = Field(default=None, description="The Gateway, for `gateway`.")
    ingress_class: str | None = Field(
        default=None, max_length=253, description="The class for `ingress`; without one, the distribution's own."
    )
    autoscaling: Autoscaling = Field(default=Autoscaling(), description="How the number of replicas follows requests.")
    network: NetworkRules | None = Field(
        default=NetworkRules(), description="The network policy's rules; `null` for no policy."
    )
    start_seconds: int = Field(
        default=600, ge=10, le=7200, description="Seconds that a revision may take to get ready before it has failed."
    )

    @model_validator(mode="after")
    def _says_where(self) -> KubernetesSettings:
        if self.exposure in {"ingress", "gateway"} and self.host is None:
            raise ValueError(f"{self.exposure} needs a host")
        if (self.exposure == "gateway") != (self.gateway is not None):
            raise ValueError("exposure gateway and the member gateway go together")
        return self


def render(workload: Workload, settings: KubernetesSettings) -> tuple[Document, ...]:
    """The objects of a deployment in its region, each after those that it needs.

    Raises:
        InvalidInput: if the target's settings do not say how to run what was placed.
    """
    return to_documents(render_manifests(workload, settings))


def render_manifests(workload: Workload, settings: KubernetesSettings) -> list[Manifest]:
    """The same as objects."""
    revisions = revisions_of(workload)
    found = account_manifests(workload, settings)
    if settings.network is not None:
        found.append(_network_policy(workload, settings, settings.network))
    if workload.scaling.max_replicas > 1:
        found.append(_disruption_budget(workload, settings))
    for revision, _ in revisions:
        found.append(_deployment(revision, settings))
        scaler = autoscaler(revision, settings.autoscaling, settings.namespace)
        found += [] if scaler is None else [scaler]
    if settings.exposure == "gateway":
        found += [_revision_service(revision, settings) for revision, _ in revisions]
        found.append(_route(workload, settings))
        return found
    if workload.former is not None:
        if settings.exposure != "service" and 0 < workload.traffic_percent < 100:
            raise InvalidInput(
                f"{settings.exposure} leads all requests to one revision, not {workload.traffic_percent} % of them.",
                hint="Use exposure gateway for this target, or a strategy of blue_green.",
            )
        found += [_revision_service(revision, settings) for revision, _ in revisions]
    found.append(_service(workload, settings))
    if settings.exposure == "ingress":
        found.append(_ingress(workload, settings))
    return found


def _deployment(workload: Workload, settings: KubernetesSettings) -> Manifest:
    selector = selector_of(workload, is_revision=True)
    template = {
        "metadata": {
            "labels": dict(sorted({**labels_of(workload, is_revision=True), **pod_labels(settings)}.items())),
            "annotations": dict(sorted({**annotations_of(workload), **METRICS_ANNOTATIONS}.items())),
        },
        "spec": pod_spec(workload, settings),
    }
    spec = {
        "replicas": fixed_replicas(workload),
        "progressDeadlineSeconds": settings.start_seconds,
        "revisionHistoryLimit": 1,
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
        "template": template,
    }
    name = revision_object_name(workload)
    return manifest("apps/v1/Deployment", workload, name, settings.namespace, is_revision=True, spec=without_none(spec))


def _disruption_budget(workload: Workload, settings: KubernetesSettings) -> Manifest:
    return manifest(
        "policy/v1/PodDisruptionBudget",
        workload,
        object_name(workload),
        settings.namespace,
        is_revision=False,
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector_of(workload, is_revision=False)},
        },
    )


def _network_policy(workload: Workload, settings: KubernetesSettings, rules: NetworkRules) -> Manifest:
    senders = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in rules.from_namespaces
    ]
    ingress = {**({"from": senders} if senders else {}), "ports": [_port(PORT)]}
    names = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    egress: list[Mapping[str, Any]] = [names]
    ports = sorted({*rules.to_ports, *_called_ports(workload, settings)})
    if ports:
        egress.append({"to": [{"ipBlock": _ANYWHERE}], "ports": [_port(port) for port in ports]})
    if (
        settings.identity is not None
        and settings.identity.cloud == overlay_of(settings.distribution).native_identity == "gcp"
    ):
        egress += [{"to": [{"ipBlock": {"cidr": cidr}}], "ports": [_port(port)]} for cidr, port in _GKE_METADATA]
    return manifest(
        "networking.k8s.io/v1/NetworkPolicy",
        workload,
        object_name(workload),
        settings.namespace,
        is_revision=False,
        spec={
            "podSelector": {"matchLabels": selector_of(workload, is_revision=False)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [ingress],
            "egress": egress,
        },
    )


def _called_ports(workload: Workload, settings: KubernetesSettings) -> set[int]:
    """The ports of what the endpoint calls: its online store, where its traces go, the cloud that knows it."""
    ports = set[int]()
    for revision, _ in revisions_of(workload):
        for url in (revision.online_store, revision.variables.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
            parts = urlsplit(url or "")
            if parts.hostname is not None:
                known = {"https": 443, "http": 80, "redis": 6379, "rediss": 6379, "postgresql": 5432}
                ports.add(parts.port or known.get(parts.scheme, 443))
    return ports | ({443} if settings.identity is not None else set())


def _revision_service(workload: Workload, settings: KubernetesSettings) -> Manifest:
    spec = {"selector": selector_of(workload, is_revision=True), "ports": [_service_port()]}
    name = revision_object_name(workload)
    return manifest("v1/Service", workload, name, settings.namespace, is_revision=True, spec=spec)


def _service(workload: Workload, settings: KubernetesSettings) -> Manifest:
    former = workload.former
    served = workload if former is None or workload.traffic_percent == 100 else former
    spec = {
        "type": "LoadBalancer" if settings.exposure == "load-balancer" else None,
        "selector": selector_of(served, is_revision=True),
        "ports": [_service_port()],
    }
    return manifest(
        "v1/Service", workload, object_name(workload), settings.namespace, is_revision=False, spec=without_none(spec)
    )


def _ingress(workload: Workload, settings: KubernetesSettings) -> Manifest:
    overlay = overlay_of(settings.distribution)
    name = object_name(workload)
    backend = {"service": {"name": name, "port": {"name": "http"}}}
    spec = {
        "ingressClassName": settings.ingress_class or overlay.ingress_class,
        "rules": [
            {"host": settings.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
        ],
    }
    found = manifest(
        "networking.k8s.io/v1/Ingress",
        workload,
        name,
        settings.namespace,
        is_revision=False,
        spec=without_none(spec),
    )
    if overlay.ingress_annotations and settings.ingress_class in {None, overlay.ingress_class}:
        found["metadata"]["annotations"] = dict(overlay.ingress_annotations)
    return found


def _route(workload: Workload, settings: KubernetesSettings) -> Manifest:
    assert settings.gateway is not None  # noqa: S101  (its validator says so)
    backends = [
        {"name": revision_object_name(revision), "port": _SERVICE_PORT, "weight": percent}
        for revision, percent in revisions_of(workload)
    ]
    return manifest(
        "gateway.networking.k8s.io/v1/HTTPRoute",
        workload,
        object_name(workload),
        settings.namespace,
        is_revision=False,
        spec={
            "parentRefs": [without_none({"name": settings.gateway.name, "namespace": settings.gateway.namespace})],
            "hostnames": [settings.host],
            "rules": [{"backendRefs": backends}],
        },
    )


def _service_port() -> dict[str, Any]:
    return {"name": "http", "port": _SERVICE_PORT, "targetPort": "http"}


def _port(port: int) -> dict[str, Any]:
    return {"port": port, "protocol": "TCP"}


KIND = TargetKind(name="kubernetes", settings=KubernetesSettings, render=render, deliveries=CLUSTER_DELIVERIES)

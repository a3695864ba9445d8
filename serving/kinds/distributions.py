"""What differs between the Kubernetes that clouds and owners of machines run: node labels, spot, storage, identity.

Each distribution is one value of `Distribution`; a cluster that is none of them is `plain`, and says in its target's
settings what the others have by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, model_validator

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.accelerators import NodeLabels
from fairlead.serving.workload import TargetSettings, Workload

_TOKENS = "/var/run/secrets/fairlead.dev/identity"
"""Where pods find the token by which a cloud knows them."""


class Distribution(StrEnum):
    """Whose Kubernetes it is."""

    PLAIN = "plain"
    K3S = "k3s"
    EKS = "eks"
    EKS_ANYWHERE = "eks-anywhere"
    GKE = "gke"
    GKE_BARE_METAL = "gke-bare-metal"
    GKE_VMWARE = "gke-vmware"
    AKS = "aks"


class CloudIdentity(TargetSettings):
    """Which identity of a cloud the pods have, without a key: the cloud trusts the cluster's own tokens.

    On EKS, GKE and AKS the platform exchanges them; elsewhere each pod mounts a token for `audience`, and the cloud's
    libraries exchange it.
    """

    cloud: Literal["aws", "gcp", "azure"] = Field(description="The cloud that the identity is of.")
    principal: str = Field(
        min_length=3,
        max_length=200,
        pattern=r"^[A-Za-z0-9:/@._+=,-]+$",
        description="A role's ARN, a Google service account's address, or an Azure client id.",
    )
    tenant: str | None = Field(
        default=None, pattern=r"^[0-9a-f-]{36}$", description="The Azure tenant, where it is not the cluster's own."
    )
    audience: str | None = Field(
        default=None,
        max_length=300,
        pattern=r"^[A-Za-z0-9:/@._-]+$",
        description="For whom tokens are made outside EKS, GKE and AKS: the Google workload identity provider or fleet "
        "membership; `sts.amazonaws.com` and `api://AzureADTokenExchange` for the other clouds.",
    )
    token_audience: str | None = Field(
        default=None,
        max_length=300,
        pattern=r"^[A-Za-z0-9:/@._-]+$",
        description="The `aud` of the token where it is not `audience`: a fleet's pool, `PROJECT.svc.id.goog`.",
    )

    @model_validator(mode="after")
    def _fits_its_cloud(self) -> CloudIdentity:
        marks = {"aws": "arn:", "gcp": "@", "azure": "-"}
        if marks[self.cloud] not in self.principal:
            raise ValueError(f"{self.principal} is no identity of {self.cloud}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """What a distribution says in its own words. None: it has no such thing.

    `spot` are the labels of nodes that may be taken away, each with whether they are tainted by it too.
    """

    title: str
    accelerators: NodeLabels
    native_identity: str | None = None
    spot: Mapping[str, str] | None = None
    is_spot_tainted: bool = False
    ingress_class: str | None = None
    ingress_annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    storage_class: str | None = None


_OVERLAYS: Mapping[Distribution, Overlay] = MappingProxyType(
    {
        Distribution.PLAIN: Overlay(title="Kubernetes", accelerators=NodeLabels.FEATURE_DISCOVERY),
        Distribution.K3S: Overlay(
            title="K3s",
            accelerators=NodeLabels.FEATURE_DISCOVERY,
            ingress_class="traefik",
            storage_class="local-path",
        ),
        Distribution.EKS: Overlay(
            title="EKS",
            accelerators=NodeLabels.INSTANCE_TYPE,
            native_identity="aws",
            spot={"eks.amazonaws.com/capacityType": "SPOT"},
            ingress_class="alb",
            ingress_annotations={
                "alb.ingress.kubernetes.io/healthcheck-path": "/readyz",
                "alb.ingress.kubernetes.io/target-type": "ip",
            },
            storage_class="gp3",
        ),
        Distribution.EKS_ANYWHERE: Overlay(
            title="EKS Anywhere", accelerators=NodeLabels.FEATURE_DISCOVERY, native_identity="aws"
        ),
        Distribution.GKE: Overlay(
            title="GKE",
            accelerators=NodeLabels.GKE,
            native_identity="gcp",
            spot={"cloud.google.com/gke-spot": "true"},
            is_spot_tainted=True,
            ingress_class="gce",
            storage_class="premium-rwo",
        ),
        Distribution.GKE_BARE_METAL: Overlay(
            title="GKE on bare metal",
            accelerators=NodeLabels.FEATURE_DISCOVERY,
            ingress_class="istio",
            storage_class="local-shared",
        ),
        Distribution.GKE_VMWARE: Overlay(
            title="GKE on VMware",
            accelerators=NodeLabels.FEATURE_DISCOVERY,
            ingress_class="istio",
            storage_class="standard-rwo",
        ),
        Distribution.AKS: Overlay(
            title="AKS",
            accelerators=NodeLabels.INSTANCE_TYPE,
            native_identity="azure",
            spot={"kubernetes.azure.com/scalesetpriority": "spot"},
            is_spot_tainted=True,
            ingress_class="webapprouting.kubernetes.azure.com",
            storage_class="managed-csi-premium",
        ),
    }
)


def overlay_of(distribution: Distribution) -> Overlay:
    """What a distribution says in its own words."""
    return _OVERLAYS[distribution]


def spot_nodes(workload: Workload, distribution: Distribution) -> tuple[dict[str, str], list[Mapping[str, Any]]]:
    """The labels of the nodes that a workload on spot runs on, and the taints that it bears; nothing without spot.

    Raises:
        InvalidInput: if the distribution has no such nodes.
    """
    if not workload.is_spot:
        return {}, []
    overlay = overlay_of(distribution)
    if overlay.spot is None:
        raise InvalidInput(
            f"{overlay.title} has no spot nodes, and {workload.deployment} was placed on them in {workload.region}.",
            hint="Place it without spot there, or set the target's distribution.",
        )
    taints: list[Mapping[str, Any]] = [
        {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"} for key, value in overlay.spot.items()
    ]
    return dict(overlay.spot), taints if overlay.is_spot_tainted else []


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityParts:
    """What makes pods known to a cloud: on their service account, in their metadata and in their container.

    `configuration` is a file beside the token, None where there is none; `audience` None: the platform mounts a token.
    """

    account_annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    pod_labels: Mapping[str, str] = field(default_factory=dict[str, str])
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    audience: str | None = None
    configuration: Mapping[str, str] | None = None

    def volume(self, configuration_name: str) -> Mapping[str, Any] | None:
        """The token and its configuration as one read-only volume; None where the platform brings them."""
        if self.audience is None:
            return None
        token = {"audience": self.audience, "expirationSeconds": 3600, "path": "token"}
        sources: list[Mapping[str, Any]] = [{"serviceAccountToken": token}]
        if self.configuration is not None:
            sources.append({"configMap": {"name": configuration_name}})
        return {"name": "identity", "projected": {"defaultMode": 0o440, "sources": sources}}

    def mounts(self) -> Sequence[Mapping[str, Any]]:
        """Where the container finds the volume."""
        return () if self.audience is None else ({"name": "identity", "mountPath": _TOKENS, "readOnly": True},)


def identity_parts(identity: CloudIdentity | None, distribution: Distribution) -> IdentityParts:
    """How pods of a distribution get an identity of a cloud.

    Raises:
        InvalidInput: if it needs an audience and none is set.
    """
    if identity is None:
        return IdentityParts()
    if overlay_of(distribution).native_identity == identity.cloud:
        return _native(identity)
    if identity.cloud == "aws":
        return IdentityParts(
            audience=identity.audience or "sts.amazonaws.com",
            variables={"AWS_ROLE_ARN": identity.principal, "AWS_WEB_IDENTITY_TOKEN_FILE": f"{_TOKENS}/token"},
        )
    if identity.cloud == "azure":
        if identity.tenant is None:
            raise InvalidInput("An Azure identity outside AKS needs its tenant.", hint="Set identity.tenant.")
        return IdentityParts(
            audience=identity.audience or "api://AzureADTokenExchange",
            variables={
                "AZURE_CLIENT_ID": identity.principal,
                "AZURE_FEDERATED_TOKEN_FILE": f"{_TOKENS}/token",
                "AZURE_TENANT_ID": identity.tenant,
            },
        )
    return _google(identity)


def _native(identity: CloudIdentity) -> IdentityParts:
    if identity.cloud == "aws":
        return IdentityParts(account_annotations={"eks.amazonaws.com/role-arn": identity.principal})
    if identity.cloud == "gcp":
        return IdentityParts(account_annotations={"iam.gke.io/gcp-service-account": identity.principal})
    tenant = {} if identity.tenant is None else {"azure.workload.identity/tenant-id": identity.tenant}
    return IdentityParts(
        account_annotations={"azure.workload.identity/client-id": identity.principal, **tenant},
        pod_labels={"azure.workload.identity/use": "true"},
    )


def _google(identity: CloudIdentity) -> IdentityParts:
    if identity.audience is None:
        raise InvalidInput(
            "A Google identity outside GKE needs the provider that trusts the cluster.",
            hint="Set identity.audience to //iam.googleapis.com/projects/.../providers/... or to the fleet's "
            "identitynamespace:POOL:MEMBERSHIP.",
        )
    credentials = {
        "type": "external_account",
        "audience": identity.audience,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
        f"{identity.principal}:generateAccessToken",
        "credential_source": {"file": f"{_TOKENS}/token"},
    }
    is_pool = identity.audience.startswith("//")
    return IdentityParts(
        audience=identity.token_audience or (f"https:{identity.audience}" if is_pool else identity.audience),
        variables={"GOOGLE_APPLICATION_CREDENTIALS": f"{_TOKENS}/google.json"},
        configuration={"google.json": json.dumps(credentials, indent=2) + "\n"},
    )

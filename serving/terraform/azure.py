"""A deployment on Azure Container Apps: one app, whose revisions share its requests."""

from __future__ import annotations

import math

from fairlead.serving.kinds.names import deployment_name, regional_name, revision_name, tags_of
from fairlead.serving.kinds.needs import cannot, image_of, whole_boards
from fairlead.serving.terraform.hcl import (
    Block,
    Body,
    Expression,
    Named,
    Value,
    output,
    resource,
    to_text,
    variable,
)
from fairlead.serving.terraform.module import Module, TerraformSettings, label_value, share_of, smallest, too_large
from fairlead.serving.workload import PORT, Workload, environment_of

# https://learn.microsoft.com/azure/container-apps/containers#allocations
_CONSUMPTION_SIZES = tuple((step / 4, step / 2) for step in range(1, 17))
# https://learn.microsoft.com/azure/container-apps/workload-profiles-overview, the smallest first
_DEDICATED = {
    "D4": (4, 16),
    "E4": (4, 32),
    "D8": (8, 32),
    "E8": (8, 64),
    "D16": (16, 64),
    "E16": (16, 128),
    "D32": (32, 128),
    "E32": (32, 256),
}
_ACCELERATORS = {
    "T4": ("Consumption-GPU-NC8as-T4", (8, 56)),
    "A100-80": ("Consumption-GPU-NC24-A100", (24, 220)),
}
_PULL = "AcrPull"


def render(workload: Workload, settings: TerraformSettings) -> Module:
    """The module of one deployment in one region of Azure.

    Raises:
        InvalidInput: if there is no image, or Container Apps has no words for the workload.
    """
    if workload.is_spot:
        raise cannot(workload, "Container Apps has no spot capacity")
    if workload.resources.architecture != "x86_64":
        raise cannot(workload, f"Container Apps has no machines of {workload.resources.architecture}")
    name = deployment_name(workload, longest=32)
    tags = {label: label_value(value) for label, value in tags_of(workload).items()}
    pulls_from_azure = _registry(workload).endswith(".azurecr.io")
    variables = [
        variable("subscription_id", "string", "The subscription that the deployment runs in."),
        variable("resource_group_name", "string", "The resource group that holds all of it."),
        variable("subnet_id", "string", "A subnet of its own for the environment, of /27 or larger."),
        variable("log_analytics_workspace_id", "string", "Where the processes' logs go."),
    ]
    if pulls_from_azure:
        variables.append(variable("container_registry_id", "string", f"The registry {_registry(workload)}."))
    return Module(
        provider="azurerm",
        main=[
            (
                "provider",
                Block({"subscription_id": Expression("var.subscription_id"), "features": Block({})}, ("azurerm",)),
            ),
            ("locals", Block({"location": workload.region.partition(":")[2], "tags": tags})),
            _identity(workload),
            *(_pull_role() if pulls_from_azure else []),
            _environment(name, workload, settings),
            resource("azurerm_container_app", "this", _app(name, workload, is_pulled_by_identity=pulls_from_azure)),
        ],
        variables=variables,
        outputs=[
            output("url", "Where the deployment answers.", '"https://${azurerm_container_app.this.ingress[0].fqdn}"'),
            output(
                "principal_id",
                "The identity of the deployment's processes.",
                "azurerm_user_assigned_identity.this.principal_id",
            ),
        ],
    )


def _registry(workload: Workload) -> str:
    return image_of(workload).partition("/")[0]


def _identity(workload: Workload) -> tuple[str, Block]:
    name = regional_name(workload, longest=64)
    return resource("azurerm_user_assigned_identity", "this", {"name": name, **_PLACE})


def _pull_role() -> Named:
    return [
        resource(
            "azurerm_role_assignment",
            "pull",
            {
                "scope": Expression("var.container_registry_id"),
                "role_definition_name": _PULL,
                "principal_id": Expression("azurerm_user_assigned_identity.this.principal_id"),
            },
        )
    ]


def _environment(name: str, workload: Workload, settings: TerraformSettings) -> tuple[str, Block]:
    profiles = [Block({"name": "Consumption", "workload_profile_type": "Consumption"})]
    profile, _, _ = _size(workload)
    if profile.startswith("Consumption-"):
        profiles.append(Block({"name": profile, "workload_profile_type": profile}))
    elif profile != "Consumption":
        most = max(1, workload.scaling.max_replicas) * (1 if workload.former is None else 2)
        counts = {"minimum_count": max(1, workload.scaling.min_replicas), "maximum_count": most}
        profiles.append(Block({"name": profile, "workload_profile_type": profile, **counts}))
    return resource(
        "azurerm_container_app_environment",
        "this",
        {
            "name": name,
            **_PLACE,
            "logs_destination": "log-analytics",
            "log_analytics_workspace_id": Expression("var.log_analytics_workspace_id"),
            "infrastructure_subnet_id": Expression("var.subnet_id"),
            "internal_load_balancer_enabled": settings.exposure == "internal",
            "workload_profile": tuple(profiles),
        },
    )


_PLACE: dict[str, Value] = {
    "resource_group_name": Expression("var.resource_group_name"),
    "location": Expression("local.location"),
    "tags": Expression("local.tags"),
}


def _app(name: str, workload: Workload, *, is_pulled_by_identity: bool) -> dict[str, Value | Block | tuple[Block, ...]]:
    identity = Expression("azurerm_user_assigned_identity.this.id")
    template = _template(workload)
    revision = _revision(workload, template)
    former = None if workload.former is None else _revision(workload.former, _template(workload.former))
    traffic = [Block({"latest_revision": True, "percentage": 100})]
    if former is not None and former != revision:
        traffic = [
            Block({"latest_revision": True, "percentage": share_of(workload, is_former=False)}),
            Block({"revision_suffix": former, "percentage": share_of(workload, is_former=True)}),
        ]
    body: dict[str, Value | Block | tuple[Block, ...]] = {
        "name": name,
        "resource_group_name": Expression("var.resource_group_name"),
        "container_app_environment_id": Expression("azurerm_container_app_environment.this.id"),
        "revision_mode": "Multiple",
        "workload_profile_name": _size(workload)[0],
        "tags": Expression("local.tags"),
        "identity": Block({"type": "UserAssigned", "identity_ids": [identity]}),
    }
    if is_pulled_by_identity:
        body["registry"] = Block({"server": _registry(workload), "identity": identity})
    body["ingress"] = Block({"target_port": PORT, "external_enabled": True, "traffic_weight": tuple(traffic)})
    body["template"] = Block({"revision_suffix": revision, **template})
    if is_pulled_by_identity:
        body["depends_on"] = [Expression("azurerm_role_assignment.pull")]
    return body


def _revision(workload: Workload, template: Body) -> str:
    # A revision never changes: whatever its template says makes another one.
    return revision_name(workload, to_text([("template", Block(template))]))


def _template(workload: Workload) -> Body:
    scaling = workload.scaling
    most = scaling.min_replicas if scaling.requests_per_second_per_replica is None else scaling.max_replicas
    body: dict[str, Value | Block | tuple[Block, ...]] = {
        "min_replicas": scaling.min_replicas,
        "max_replicas": max(1, most),
        "container": _container(workload),
    }
    if scaling.requests_per_second_per_replica is not None:
        # What the platform calls concurrent requests is how many came in a second, over the last 15.
        rate = str(max(1, math.floor(scaling.requests_per_second_per_replica)))
        body["http_scale_rule"] = Block({"name": "requests", "concurrent_requests": rate})
    return body


def _container(workload: Workload) -> Block:
    _, vcpus, memory_gib = _size(workload)
    probe: dict[str, Value] = {"transport": "HTTP", "port": PORT}
    environment = [Block({"name": name, "value": value}) for name, value in environment_of(workload).items()]
    return Block(
        {
            "name": "model",
            "image": image_of(workload),
            "cpu": vcpus,
            "memory": f"{memory_gib:g}Gi",
            "env": tuple(environment),
            "startup_probe": Block({**probe, "path": "/readyz", "interval_seconds": 30, "failure_count_threshold": 10}),
            "readiness_probe": Block({**probe, "path": "/readyz", "interval_seconds": 5}),
            "liveness_probe": Block({**probe, "path": "/livez"}),
        }
    )


def _size(workload: Workload) -> tuple[str, float, float]:
    """Workload profile, vCPUs and GiB of a replica."""
    asked = workload.resources
    if asked.accelerator is not None:
        if asked.accelerator not in _ACCELERATORS or whole_boards(workload, "Container Apps") != 1:
            raise cannot(workload, f"Container Apps gives a replica one {' or '.join(_ACCELERATORS)} and no other")
        profile, (vcpus, memory_gib) = _ACCELERATORS[asked.accelerator]
        if vcpus < asked.vcpus or memory_gib < asked.memory_gib:
            raise too_large(workload, profile, f"{vcpus} vCPUs and {memory_gib} GiB")
        return profile, vcpus, memory_gib
    size = smallest(_CONSUMPTION_SIZES, asked.vcpus, asked.memory_gib)
    if size is not None:
        return "Consumption", *size
    for profile, (vcpus, memory_gib) in _DEDICATED.items():
        if vcpus >= asked.vcpus and memory_gib >= asked.memory_gib:
            return profile, asked.vcpus, asked.memory_gib
    raise too_large(workload, "Container Apps", "32 vCPUs and 256 GiB")

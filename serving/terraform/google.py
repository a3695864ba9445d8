"""A deployment on Cloud Run: one service, whose revisions share its requests."""

from __future__ import annotations

import math

from fairlead.serving.kinds.names import deployment_name, regional_name, revision_name, tags_of
from fairlead.serving.kinds.needs import cannot, image_of, whole_boards
from fairlead.serving.terraform.hcl import Block, Body, Expression, Value, output, resource, to_text, variable
from fairlead.serving.terraform.module import Module, TerraformSettings, share_of, smallest, too_large
from fairlead.serving.workload import PORT, Workload, environment_of

# https://cloud.google.com/run/docs/configuring/services/cpu and .../memory-limits: the most memory that each number of
# CPUs can have.
_SIZES = ((1, 4.0), (2, 8.0), (4, 16.0), (6, 24.0), (8, 32.0))
# https://cloud.google.com/run/docs/configuring/services/gpu: with an L4 at least 4 CPUs and 16 GiB.
_ACCELERATORS = {"L4": ("nvidia-l4", (4, 16.0))}
_MOST_REQUESTS_AT_ONCE = 1000
_NAME_LENGTH = 63 - len("-v2147483647-12345678")
"""A revision's name begins with the service's, and has 63 characters at most."""


def render(workload: Workload, settings: TerraformSettings) -> Module:
    """The module of one deployment in one region of Google's.

    Raises:
        InvalidInput: if there is no image, or Cloud Run has no words for the workload.
    """
    _refuse(workload)
    name = deployment_name(workload, longest=_NAME_LENGTH)
    return Module(
        provider="google",
        main=[
            ("provider", _provider(workload)),
            resource(
                "google_service_account",
                "this",
                {
                    "account_id": regional_name(workload, longest=30),
                    "display_name": f"{workload.deployment} in {workload.region}"[:100],
                },
            ),
            resource("google_cloud_run_v2_service", "this", _service(name, workload, settings)),
            resource(
                "google_cloud_run_v2_service_iam_member",
                "invoker",
                {
                    "for_each": Expression("toset(var.invokers)"),
                    "name": Expression("google_cloud_run_v2_service.this.name"),
                    "location": Expression("google_cloud_run_v2_service.this.location"),
                    "role": "roles/run.invoker",
                    "member": Expression("each.value"),
                },
            ),
        ],
        variables=[
            variable("project", "string", "The project that the deployment runs in."),
            variable(
                "invokers",
                "list(string)",
                "Who may send requests, such as serviceAccount:gateway@acme.iam.gserviceaccount.com.",
            ),
        ],
        outputs=[
            output("url", "Where the deployment answers.", "google_cloud_run_v2_service.this.uri"),
            output(
                "service_account", "The identity of the deployment's processes.", "google_service_account.this.email"
            ),
        ],
    )


def _refuse(workload: Workload) -> None:
    for each in (workload, workload.former):
        if each is None:
            continue
        if each.is_spot:
            raise cannot(each, "Cloud Run has no spot capacity")
        if each.resources.architecture != "x86_64":
            raise cannot(each, f"Cloud Run has no machines of {each.resources.architecture}")
        accelerator = each.resources.accelerator
        if accelerator is not None and (accelerator not in _ACCELERATORS or whole_boards(each, "Cloud Run") != 1):
            raise cannot(each, f"Cloud Run gives a replica one {' or '.join(_ACCELERATORS)} and no other accelerator")


def _provider(workload: Workload) -> Block:
    labels = {_label(name): _label(value) for name, value in tags_of(workload).items()}
    body: dict[str, Value] = {"project": Expression("var.project"), "region": workload.region.partition(":")[2]}
    return Block({**body, "default_labels": labels}, ("google",))


def _label(text: str) -> str:
    """As Google takes labels: lower-case letters, digits, hyphens and underscores."""
    return "".join(character if character.isalnum() or character in "-_" else "-" for character in text.lower())[:63]


def _service(name: str, workload: Workload, settings: TerraformSettings) -> Body:
    template = _template(workload, settings)
    revision = _revision(name, workload, template)
    former = None
    if workload.former is not None:
        former = _revision(name, workload.former, _template(workload.former, settings))
    latest = {"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"}
    traffic = [Block({**latest, "percent": 100})]
    if former is not None and former != revision:
        beside = {"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": former}
        traffic = [
            Block({**latest, "percent": share_of(workload, is_former=False)}),
            Block({**beside, "percent": share_of(workload, is_former=True)}),
        ]
    return {
        "name": name,
        "location": workload.region.partition(":")[2],
        "ingress": "INGRESS_TRAFFIC_ALL" if settings.exposure == "public" else "INGRESS_TRAFFIC_INTERNAL_ONLY",
        "deletion_protection": False,
        "template": Block({"revision": revision, **template}),
        "traffic": tuple(traffic),
    }


def _template(workload: Workload, settings: TerraformSettings) -> Body:
    scaling, accelerator = workload.scaling, workload.resources.accelerator
    body: dict[str, Value | Block | tuple[Block, ...]] = {
        "service_account": Expression("google_service_account.this.email"),
    }
    if scaling.requests_per_second_per_replica is not None:
        at_once = math.ceil(scaling.requests_per_second_per_replica * settings.request_seconds)
        body["max_instance_request_concurrency"] = min(max(1, at_once), _MOST_REQUESTS_AT_ONCE)
    if accelerator is not None:
        body["gpu_zonal_redundancy_disabled"] = True
        body["node_selector"] = Block({"accelerator": _ACCELERATORS[accelerator][0]})
    is_fixed = scaling.requests_per_second_per_replica is None
    most = scaling.min_replicas if is_fixed else scaling.max_replicas
    body["scaling"] = Block({"min_instance_count": scaling.min_replicas, "max_instance_count": max(1, most)})
    body["containers"] = _container(workload)
    return body


def _container(workload: Workload) -> Block:
    asked = workload.resources
    vcpus, memory_gib, limits = asked.vcpus, asked.memory_gib, {}
    if asked.accelerator is not None:
        limits = {"nvidia.com/gpu": "1"}
        least_vcpus, least_gib = _ACCELERATORS[asked.accelerator][1]
        vcpus, memory_gib = max(vcpus, least_vcpus), max(memory_gib, least_gib)
    size = smallest(_SIZES, vcpus, memory_gib)
    if size is None:
        raise too_large(workload, "Cloud Run", "8 vCPUs and 32 GiB")
    # An instance that starts with features from elsewhere, or a large model, needs minutes; four is the most.
    probe = {"path": "/readyz", "port": PORT}
    environment = [Block({"name": name, "value": value}) for name, value in environment_of(workload).items()]
    return Block(
        {
            "image": image_of(workload),
            "ports": Block({"container_port": PORT}),
            "resources": Block(
                {
                    "limits": {"cpu": str(size[0]), "memory": f"{math.ceil(memory_gib * 1024)}Mi", **limits},
                    "cpu_idle": asked.accelerator is None,
                    "startup_cpu_boost": True,
                }
            ),
            "env": tuple(environment),
            "startup_probe": Block({"period_seconds": 10, "failure_threshold": 24, "http_get": Block(probe)}),
            "liveness_probe": Block({"http_get": Block({"path": "/livez", "port": PORT})}),
        }
    )


def _revision(name: str, workload: Workload, template: Body) -> str:
    # A revision never changes: whatever its template says makes another one.
    return f"{name}-{revision_name(workload, to_text([('template', Block(template))]))}"

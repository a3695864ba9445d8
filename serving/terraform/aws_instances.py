"""The EC2 instances that a deployment's tasks run on, as many as the tasks need."""

from __future__ import annotations

from fairlead.core.errors import InvalidInput
from fairlead.serving.kinds.names import regional_name
from fairlead.serving.terraform.hcl import Block, Call, Expression, Named, Value, resource
from fairlead.serving.workload import Workload

INSTANCES_PROVIDER = "aws_ecs_capacity_provider.this"

_IMAGES = {"x86_64": "", "arm64": "arm64/"}
_IMAGE_OF_ACCELERATORS = "gpu/"
_PARAMETER = "/aws/service/ecs/optimized-ami/amazon-linux-2023/{variant}recommended/image_id"


def instances(workload: Workload, name: str) -> Named:
    """A group of instances of the placement's type, which the cluster makes larger and smaller.

    Raises:
        InvalidInput: if the placement names no instance type.
    """
    if workload.instance_type is None:
        raise InvalidInput(
            f"Nothing says which instances {workload.deployment!r} runs on in {workload.region}.",
            hint="Place it (`fairlead place`), or give a launch_type of fargate.",
        )
    has_accelerator = workload.resources.accelerator is not None
    variant = _IMAGE_OF_ACCELERATORS if has_accelerator else _IMAGES[workload.resources.architecture]
    role = regional_name(workload, longest=50)
    return [
        *_identity(f"{role}-instances"),
        resource(
            "aws_launch_template",
            "this",
            {
                "name": name,
                "image_id": f"resolve:ssm:{_PARAMETER.format(variant=variant)}",
                "instance_type": workload.instance_type,
                "vpc_security_group_ids": [Expression("aws_security_group.tasks.id")],
                "user_data": _join_cluster(name, has_accelerator=has_accelerator),
                "update_default_version": True,
                "iam_instance_profile": Block({"arn": Expression("aws_iam_instance_profile.instances.arn")}),
                "metadata_options": Block({"http_endpoint": "enabled", "http_tokens": "required"}),
            },
        ),
        _group(workload, name),
        resource(
            "aws_ecs_capacity_provider",
            "this",
            {
                # None may be called as Amazon's own are: fargate, ecs, aws.
                "name": f"fairlead-{name}",
                "auto_scaling_group_provider": Block(
                    {
                        "auto_scaling_group_arn": Expression("aws_autoscaling_group.this.arn"),
                        "managed_draining": "ENABLED",
                        "managed_termination_protection": "ENABLED",
                        "managed_scaling": Block({"status": "ENABLED", "target_capacity": 100}),
                    }
                ),
            },
        ),
        resource(
            "aws_ecs_cluster_capacity_providers",
            "this",
            {
                "cluster_name": Expression("aws_ecs_cluster.this.name"),
                "capacity_providers": [Expression(f"{INSTANCES_PROVIDER}.name")],
            },
        ),
    ]


def _identity(name: str) -> Named:
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    return [
        resource(
            "aws_iam_role",
            "instances",
            {
                "name": name,
                "assume_role_policy": Call("jsonencode", {"Version": "2012-10-17", "Statement": [trust]}),
            },
        ),
        resource(
            "aws_iam_role_policy_attachment",
            "instances",
            {
                "role": Expression("aws_iam_role.instances.name"),
                "policy_arn": "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role",
            },
        ),
        resource(
            "aws_iam_instance_profile", "instances", {"name": name, "role": Expression("aws_iam_role.instances.name")}
        ),
    ]


def _join_cluster(name: str, *, has_accelerator: bool) -> Value:
    settings = [f"ECS_CLUSTER={name}", *(["ECS_ENABLE_GPU_SUPPORT=true"] if has_accelerator else [])]
    lines = ["#!/bin/sh", *(f"echo {each} >> /etc/ecs/ecs.config" for each in settings)]
    return Call("base64encode", "".join(f"{line}\n" for line in lines))


def _group(workload: Workload, name: str) -> tuple[str, Block]:
    version = Expression("aws_launch_template.this.latest_version")
    body: dict[str, Value | Block | tuple[Block, ...]] = {
        "name": name,
        "min_size": 0,
        "max_size": max(1, workload.scaling.max_replicas) * (1 if workload.former is None else 2),
        "vpc_zone_identifier": Expression("var.subnet_ids"),
        # The cluster ends instances, once nothing runs on them.
        "protect_from_scale_in": True,
    }
    if workload.is_spot:
        specification = Block({"launch_template_id": Expression("aws_launch_template.this.id"), "version": version})
        body["capacity_rebalance"] = True
        body["mixed_instances_policy"] = Block(
            {
                "launch_template": Block({"launch_template_specification": specification}),
                "instances_distribution": Block(
                    {
                        "on_demand_percentage_above_base_capacity": 0,
                        "spot_allocation_strategy": "price-capacity-optimized",
                    }
                ),
            }
        )
    else:
        body["launch_template"] = Block({"id": Expression("aws_launch_template.this.id"), "version": version})
    body["tag"] = Block({"key": "AmazonECSManaged", "value": "true", "propagate_at_launch": True})
    body["lifecycle"] = Block({"ignore_changes": [Expression("desired_capacity")]})
    return resource("aws_autoscaling_group", "this", body)

"""A deployment on Amazon ECS: Fargate, or EC2 for what has an accelerator; its load balancer splits traffic."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

from fairlead.serving.kinds.names import deployment_name, regional_name, revision_name, tags_of
from fairlead.serving.kinds.needs import image_of, whole_boards
from fairlead.serving.terraform.aws_instances import INSTANCES_PROVIDER, instances
from fairlead.serving.terraform.hcl import Block, Body, Call, Expression, Named, Value, output, resource, variable
from fairlead.serving.terraform.module import Module, TerraformSettings, label_value, share_of, smallest, too_large
from fairlead.serving.workload import PORT, Workload, environment_of

# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size
_FARGATE_SIZES = tuple(
    (vcpus, float(gib))
    for vcpus, memory in (
        (0.25, (0.5, 1, 2)),
        (0.5, range(1, 5)),
        (1, range(2, 9)),
        (2, range(4, 17)),
        (4, range(8, 31)),
        (8, range(16, 61, 4)),
        (16, range(32, 121, 8)),
    )
    for gib in memory
)
_ARCHITECTURES = {"x86_64": "X86_64", "arm64": "ARM64"}
_TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"


def render(workload: Workload, settings: TerraformSettings) -> Module:
    """The module of one deployment in one region of AWS.

    Raises:
        InvalidInput: if there is no image, or ECS has no words for the workload.
    """
    has_accelerator = any(each.resources.accelerator is not None for each in _revisions(workload))
    launch_type = settings.launch_type or ("ec2" if has_accelerator else "fargate")
    name = deployment_name(workload, longest=24)
    main: list[tuple[str, Block]] = [
        ("provider", _provider(workload)),
        resource("aws_ecs_cluster", "this", {"name": name, "setting": _CONTAINER_INSIGHTS}),
        *(_fargate() if launch_type == "fargate" else instances(workload, name)),
        resource("aws_cloudwatch_log_group", "this", {"name": f"/fairlead/{name}", "retention_in_days": 30}),
        *_roles(workload),
        *_network(name),
        *_load_balancer(name, workload, settings),
    ]
    for revision in _revisions(workload):
        main += _revision(revision, launch_type)
    return Module(
        provider="aws",
        main=main,
        variables=_VARIABLES,
        outputs=[
            output("dns_name", "What the name that the certificate is for should point to.", "aws_lb.this.dns_name"),
            output("zone_id", "The zone of the load balancer, for an alias record.", "aws_lb.this.zone_id"),
            output("task_role_arn", "The role of the deployment's processes.", "aws_iam_role.task.arn"),
        ],
    )


_CONTAINER_INSIGHTS = Block({"name": "containerInsights", "value": "enabled"})
_VARIABLES: Named = [
    variable("vpc_id", "string", "The network that the deployment runs in."),
    variable("subnet_ids", "list(string)", "Subnets of the tasks, with a way to the registry of images."),
    variable("load_balancer_subnet_ids", "list(string)", "Subnets of the load balancer, in at least two zones."),
    variable("client_cidr_blocks", "list(string)", "Where requests come from."),
    variable("certificate_arn", "string", "The certificate that the load balancer answers with."),
]


def _provider(workload: Workload) -> Block:
    tags = {name: label_value(value) for name, value in tags_of(workload).items()}
    return Block({"region": workload.region.partition(":")[2], "default_tags": Block({"tags": tags})}, ("aws",))


def _fargate() -> Named:
    return [
        resource(
            "aws_ecs_cluster_capacity_providers",
            "this",
            {
                "cluster_name": Expression("aws_ecs_cluster.this.name"),
                "capacity_providers": ["FARGATE", "FARGATE_SPOT"],
            },
        )
    ]


def _roles(workload: Workload) -> Named:
    # Roles have no region, so their names do.
    name = regional_name(workload, longest=50)
    trust = Call(
        "jsonencode",
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "ecs-tasks.amazonaws.com"},
                    "Action": "sts:AssumeRole",
                }
            ],
        },
    )
    return [
        resource("aws_iam_role", "execution", {"name": f"{name}-execution", "assume_role_policy": trust}),
        resource(
            "aws_iam_role_policy_attachment",
            "execution",
            {
                "role": Expression("aws_iam_role.execution.name"),
                "policy_arn": "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy",
            },
        ),
        resource("aws_iam_role", "task", {"name": f"{name}-task", "assume_role_policy": trust}),
    ]


def _network(name: str) -> Named:
    def group(label: str, description: str) -> tuple[str, Block]:
        body: Body = {
            "name": f"{name}-{label}",
            "description": description,
            "vpc_id": Expression("var.vpc_id"),
        }
        return resource("aws_security_group", label, body)

    def rule(direction: str, label: str, body: Body) -> tuple[str, Block]:
        return resource(f"aws_vpc_security_group_{direction}_rule", label, body)

    balancer, tasks = Expression("aws_security_group.balancer.id"), Expression("aws_security_group.tasks.id")
    port: Body = {"ip_protocol": "tcp", "from_port": PORT, "to_port": PORT}
    return [
        group("balancer", "What answers requests of the deployment."),
        rule(
            "ingress",
            "clients",
            {
                "for_each": Expression("toset(var.client_cidr_blocks)"),
                "security_group_id": balancer,
                "cidr_ipv4": Expression("each.value"),
                "ip_protocol": "tcp",
                "from_port": 443,
                "to_port": 443,
            },
        ),
        rule("egress", "balancer", {"security_group_id": balancer, "referenced_security_group_id": tasks, **port}),
        group("tasks", "The deployment's tasks."),
        rule("ingress", "tasks", {"security_group_id": tasks, "referenced_security_group_id": balancer, **port}),
        rule("egress", "tasks", {"security_group_id": tasks, "cidr_ipv4": "0.0.0.0/0", "ip_protocol": "-1"}),
    ]


def _load_balancer(name: str, workload: Workload, settings: TerraformSettings) -> Named:
    revisions = _revisions(workload)
    groups = tuple(
        Block(
            {
                "arn": Expression(f"aws_lb_target_group.{_label(each)}.arn"),
                "weight": 100 if len(revisions) == 1 else share_of(workload, is_former=each is workload.former),
            }
        )
        for each in revisions
    )
    return [
        resource(
            "aws_lb",
            "this",
            {
                "name": name,
                "internal": settings.exposure == "internal",
                "load_balancer_type": "application",
                "security_groups": [Expression("aws_security_group.balancer.id")],
                "subnets": Expression("var.load_balancer_subnet_ids"),
                "drop_invalid_header_fields": True,
            },
        ),
        resource(
            "aws_lb_listener",
            "this",
            {
                "load_balancer_arn": Expression("aws_lb.this.arn"),
                "port": 443,
                "protocol": "HTTPS",
                "ssl_policy": _TLS_POLICY,
                "certificate_arn": Expression("var.certificate_arn"),
                "default_action": Block({"type": "forward", "forward": Block({"target_group": groups})}),
            },
        ),
    ]


def _revision(workload: Workload, launch_type: str) -> Named:
    label = _label(workload)
    return [
        resource(
            "aws_lb_target_group",
            label,
            {
                "name": deployment_name(workload, f"-{_name(workload)}", longest=32),
                "vpc_id": Expression("var.vpc_id"),
                "target_type": "ip",
                "protocol": "HTTP",
                "port": PORT,
                "deregistration_delay": 30,
                "health_check": Block({"path": "/readyz", "interval": 10, "timeout": 5, "healthy_threshold": 2}),
                # The listener turns to what is new before what is old goes.
                "lifecycle": Block({"create_before_destroy": True}),
            },
        ),
        _task(workload, launch_type),
        _service(workload, launch_type),
        *_autoscaling(workload),
    ]


def _task(workload: Workload, launch_type: str) -> tuple[str, Block]:
    label, asked = _label(workload), workload.resources
    size = smallest(_FARGATE_SIZES, asked.vcpus, asked.memory_gib)
    body: dict[str, Value | Block | tuple[Block, ...]] = {
        "family": deployment_name(workload, f"-{_name(workload)}", longest=255),
        "network_mode": "awsvpc",
        "execution_role_arn": Expression("aws_iam_role.execution.arn"),
        "task_role_arn": Expression("aws_iam_role.task.arn"),
    }
    if launch_type == "ec2":
        cpu, memory = math.ceil(asked.vcpus * 1024), math.ceil(asked.memory_gib * 1024)
        body["requires_compatibilities"] = ["EC2"]
    elif size is None:
        raise too_large(workload, "Fargate", "16 vCPUs and 120 GiB")
    else:
        cpu, memory = int(size[0] * 1024), int(size[1] * 1024)
        body["requires_compatibilities"] = ["FARGATE"]
    body |= {"cpu": cpu, "memory": memory, "container_definitions": Call("jsonencode", [_container(workload)])}
    body["runtime_platform"] = Block(
        {"operating_system_family": "LINUX", "cpu_architecture": _ARCHITECTURES[asked.architecture]}
    )
    return resource("aws_ecs_task_definition", label, body)


def _container(workload: Workload) -> Value:
    boards = whole_boards(workload, "ECS")
    return {
        "name": "model",
        "image": image_of(workload),
        "essential": True,
        "portMappings": [{"containerPort": PORT, "protocol": "tcp"}],
        "environment": [{"name": name, "value": value} for name, value in environment_of(workload).items()],
        **({"resourceRequirements": [{"type": "GPU", "value": str(boards)}]} if boards else {}),
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": Expression("aws_cloudwatch_log_group.this.name"),
                "awslogs-region": workload.region.partition(":")[2],
                "awslogs-stream-prefix": _name(workload),
            },
        },
    }


def _service(workload: Workload, launch_type: str) -> tuple[str, Block]:
    label = _label(workload)
    if launch_type == "ec2":
        provider: Value = Expression(f"{INSTANCES_PROVIDER}.name")
    else:
        provider = "FARGATE_SPOT" if workload.is_spot else "FARGATE"
    body: dict[str, Value | Block | tuple[Block, ...]] = {
        "name": _name(workload),
        "cluster": Expression("aws_ecs_cluster.this.id"),
        "task_definition": Expression(f"aws_ecs_task_definition.{label}.arn"),
        "desired_count": max(1, workload.scaling.min_replicas),
        "health_check_grace_period_seconds": 120,
        "propagate_tags": "SERVICE",
        "wait_for_steady_state": True,
        "capacity_provider_strategy": Block({"capacity_provider": provider, "weight": 1}),
        "network_configuration": Block(
            {"subnets": Expression("var.subnet_ids"), "security_groups": [Expression("aws_security_group.tasks.id")]}
        ),
        "load_balancer": Block(
            {
                "target_group_arn": Expression(f"aws_lb_target_group.{label}.arn"),
                "container_name": "model",
                "container_port": PORT,
            }
        ),
        "deployment_circuit_breaker": Block({"enable": True, "rollback": True}),
    }
    if workload.scaling.requests_per_second_per_replica is not None:
        # Autoscaling says how many there are.
        body["lifecycle"] = Block({"ignore_changes": [Expression("desired_count")]})
    return resource(
        "aws_ecs_service",
        label,
        {
            **body,
            "depends_on": [Expression("aws_lb_listener.this"), Expression("aws_ecs_cluster_capacity_providers.this")],
        },
    )


def _autoscaling(workload: Workload) -> Named:
    scaling, label = workload.scaling, _label(workload)
    if scaling.requests_per_second_per_replica is None:
        return []
    target = f"aws_appautoscaling_target.{label}"
    service = f"service/${{aws_ecs_cluster.this.name}}/${{aws_ecs_service.{label}.name}}"
    requests = f"${{aws_lb.this.arn_suffix}}/${{aws_lb_target_group.{label}.arn_suffix}}"
    return [
        resource(
            "aws_appautoscaling_target",
            label,
            {
                "service_namespace": "ecs",
                "scalable_dimension": "ecs:service:DesiredCount",
                "resource_id": Expression(f'"{service}"'),
                # Requests start nothing here, so one always runs.
                "min_capacity": max(1, scaling.min_replicas),
                "max_capacity": max(1, scaling.max_replicas),
            },
        ),
        resource(
            "aws_appautoscaling_policy",
            label,
            {
                "name": "requests",
                "policy_type": "TargetTrackingScaling",
                "service_namespace": Expression(f"{target}.service_namespace"),
                "scalable_dimension": Expression(f"{target}.scalable_dimension"),
                "resource_id": Expression(f"{target}.resource_id"),
                "target_tracking_scaling_policy_configuration": Block(
                    {
                        # Requests a minute.
                        "target_value": scaling.requests_per_second_per_replica * 60,
                        "predefined_metric_specification": Block(
                            {
                                "predefined_metric_type": "ALBRequestCountPerTarget",
                                "resource_label": Expression(f'"{requests}"'),
                            }
                        ),
                    }
                ),
            },
        ),
    ]


def _revisions(workload: Workload) -> tuple[Workload, ...]:
    """The revisions that run side by side, the newest last."""
    if workload.former is None or _name(workload.former) == _name(workload):
        return (workload,)
    return workload.former, workload


def _name(workload: Workload) -> str:
    """A revision's name. How many of it run, and on what terms, changes in place."""
    content = [workload.bundle_digest, workload.image, asdict(workload.resources), environment_of(workload)]
    return revision_name(workload, json.dumps(content, sort_keys=True))


def _label(workload: Workload) -> str:
    return _name(workload).replace("-", "_")

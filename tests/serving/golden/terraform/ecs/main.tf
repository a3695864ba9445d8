provider "aws" {
  region = "us-east-1"

  default_tags {
    tags = {
      fairlead-deployment  = "churn"
      fairlead-environment = "production"
      fairlead-model       = "churn"
      fairlead-workspace   = "default"
      managed-by           = "fairlead"
      owner                = "ana@example.com"
      team                 = "growth"
    }
  }
}

resource "aws_ecs_cluster" "this" {
  name = "churn"

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/fairlead/churn"
  retention_in_days = 30
}

resource "aws_iam_role" "execution" {
  name = "churn-aws-us-east-1-8c3229-execution"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect = "Allow"
      Principal = {
        Service = "ecs-tasks.amazonaws.com"
      }
      Action = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "execution" {
  role       = aws_iam_role.execution.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

resource "aws_iam_role" "task" {
  name = "churn-aws-us-east-1-8c3229-task"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect = "Allow"
      Principal = {
        Service = "ecs-tasks.amazonaws.com"
      }
      Action = "sts:AssumeRole"
    }]
  })
}

resource "aws_security_group" "balancer" {
  name        = "churn-balancer"
  description = "What answers requests of the deployment."
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = toset(var.client_cidr_blocks)

  security_group_id = aws_security_group.balancer.id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  security_group_id            = aws_security_group.balancer.id
  referenced_security_group_id = aws_security_group.tasks.id
  ip_protocol                  = "tcp"
  from_port                    = 3000
  to_port                      = 3000
}

resource "aws_security_group" "tasks" {
  name        = "churn-tasks"
  description = "The deployment's tasks."
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "tasks" {
  security_group_id            = aws_security_group.tasks.id
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = 3000
  to_port                      = 3000
}

resource "aws_vpc_security_group_egress_rule" "tasks" {
  security_group_id = aws_security_group.tasks.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_lb" "this" {
  name                       = "churn"
  internal                   = true
  load_balancer_type         = "application"
  security_groups            = [aws_security_group.balancer.id]
  subnets                    = var.load_balancer_subnet_ids
  drop_invalid_header_fields = true
}

resource "aws_lb_listener" "this" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn

  default_action {
    type = "forward"

    forward {
      target_group {
        arn    = aws_lb_target_group.v8_79548d76.arn
        weight = 100
      }
    }
  }
}

resource "aws_lb_target_group" "v8_79548d76" {
  name                 = "churn-v8-79548d76"
  vpc_id               = var.vpc_id
  target_type          = "ip"
  protocol             = "HTTP"
  port                 = 3000
  deregistration_delay = 30

  health_check {
    path              = "/readyz"
    interval          = 10
    timeout           = 5
    healthy_threshold = 2
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_ecs_task_definition" "v8_79548d76" {
  family                   = "churn-v8-79548d76"
  network_mode             = "awsvpc"
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  requires_compatibilities = ["FARGATE"]
  cpu                      = 2048
  memory                   = 4096
  container_definitions = jsonencode([{
    name      = "model"
    image     = "registry.example.com/churn@sha256:8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c"
    essential = true
    portMappings = [{
      containerPort = 3000
      protocol      = "tcp"
    }]
    environment = [
      {
        name  = "BENTOML_DO_NOT_TRACK"
        value = "true"
      },
      {
        name  = "FAIRLEAD_BUNDLE_DIGEST"
        value = "sha256:8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b"
      },
      {
        name  = "FAIRLEAD_DEPLOYMENT"
        value = "churn"
      },
      {
        name  = "FAIRLEAD_ONLINE_STORE"
        value = "redis://features.internal:6379"
      },
      {
        name  = "FAIRLEAD_REGION"
        value = "aws:us-east-1"
      },
      {
        name  = "GREETING"
        value = "say \"$${hello}\" at 100%%{}"
      },
    ]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = "us-east-1"
        awslogs-stream-prefix = "v8-79548d76"
      }
    }
  }])

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = "X86_64"
  }
}

resource "aws_ecs_service" "v8_79548d76" {
  name                              = "v8-79548d76"
  cluster                           = aws_ecs_cluster.this.id
  task_definition                   = aws_ecs_task_definition.v8_79548d76.arn
  desired_count                     = 2
  health_check_grace_period_seconds = 120
  propagate_tags                    = "SERVICE"
  wait_for_steady_state             = true

  capacity_provider_strategy {
    capacity_provider = "FARGATE"
    weight            = 1
  }

  network_configuration {
    subnets         = var.subnet_ids
    security_groups = [aws_security_group.tasks.id]
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.v8_79548d76.arn
    container_name   = "model"
    container_port   = 3000
  }

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_lb_listener.this, aws_ecs_cluster_capacity_providers.this]
}

resource "aws_appautoscaling_target" "v8_79548d76" {
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.v8_79548d76.name}"
  min_capacity       = 2
  max_capacity       = 6
}

resource "aws_appautoscaling_policy" "v8_79548d76" {
  name               = "requests"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.v8_79548d76.service_namespace
  scalable_dimension = aws_appautoscaling_target.v8_79548d76.scalable_dimension
  resource_id        = aws_appautoscaling_target.v8_79548d76.resource_id

  target_tracking_scaling_policy_configuration {
    target_value = 2400

    predefined_metric_specification {
      predefined_metric_type = "ALBRequestCountPerTarget"
      resource_label         = "${aws_lb.this.arn_suffix}/${aws_lb_target_group.v8_79548d76.arn_suffix}"
    }
  }
}

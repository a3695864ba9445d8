output "dns_name" {
  description = "What the name that the certificate is for should point to."
  value       = aws_lb.this.dns_name
}

output "zone_id" {
  description = "The zone of the load balancer, for an alias record."
  value       = aws_lb.this.zone_id
}

output "task_role_arn" {
  description = "The role of the deployment's processes."
  value       = aws_iam_role.task.arn
}

output "add_location" {
  description = "The command that adds the location."
  value       = "fairlead location add virginia --region aws:us-east-1 --url s3://acme-virginia/fairlead --encryption-key arn:aws:kms:us-east-1:123456789012:key/1234 --identity kind=workload --identity role_arn=${aws_iam_role.workers.arn}"
}

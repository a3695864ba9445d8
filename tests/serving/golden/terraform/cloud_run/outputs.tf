output "url" {
  description = "Where the deployment answers."
  value       = google_cloud_run_v2_service.this.uri
}

output "service_account" {
  description = "The identity of the deployment's processes."
  value       = google_service_account.this.email
}

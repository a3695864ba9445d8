output "add_location" {
  description = "The command that adds the location."
  value       = "fairlead location add eemshaven --region gcp:europe-west1 --url gs://acme-eemshaven/fairlead --storage-class NEARLINE --encryption-key projects/acme/locations/europe-west1/keyRings/models/cryptoKeys/models --identity kind=workload --identity audience=//iam.googleapis.com/${google_iam_workload_identity_pool_provider.workers.name} --identity service_account=${google_service_account.workers.email}"
}

provider "google" {
  project = var.project
  region  = "europe-west1"
}

locals {
  subjects = ["system:serviceaccount:fairlead:worker"]
}

resource "google_storage_bucket" "this" {
  name                        = "acme-eemshaven"
  location                    = "EUROPE-WEST1"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  storage_class               = "NEARLINE"

  encryption {
    default_kms_key_name = "projects/acme/locations/europe-west1/keyRings/models/cryptoKeys/models"
  }
}

resource "google_iam_workload_identity_pool" "workers" {
  workload_identity_pool_id = "fairlead-eemshaven"
}

resource "google_iam_workload_identity_pool_provider" "workers" {
  workload_identity_pool_id          = google_iam_workload_identity_pool.workers.workload_identity_pool_id
  workload_identity_pool_provider_id = "workers"
  attribute_mapping = {
    "google.subject" = "assertion.sub"
  }
  attribute_condition = "assertion.sub in ${jsonencode(local.subjects)}"

  oidc {
    issuer_uri = "https://oidc.eks.us-east-1.amazonaws.com/id/EXAMPLE"
  }
}

resource "google_service_account" "workers" {
  account_id = "fairlead-eemshaven"
}

resource "google_service_account_iam_member" "workers" {
  for_each = toset(local.subjects)

  service_account_id = google_service_account.workers.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principal://iam.googleapis.com/${google_iam_workload_identity_pool.workers.name}/subject/${each.value}"
}

resource "google_storage_bucket_iam_member" "workers" {
  bucket = google_storage_bucket.this.name
  role   = "roles/storage.objectUser"
  member = google_service_account.workers.member
}

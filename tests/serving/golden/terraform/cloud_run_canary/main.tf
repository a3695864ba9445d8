provider "google" {
  project = var.project
  region  = "europe-west4"
  default_labels = {
    fairlead-deployment  = "churn"
    fairlead-environment = "production"
    fairlead-model       = "churn"
    fairlead-workspace   = "default"
    managed-by           = "fairlead"
    owner                = "ana-example-com"
    team                 = "growth"
  }
}

resource "google_service_account" "this" {
  account_id   = "churn-gcp-europe-west4-36696c"
  display_name = "churn in gcp:europe-west4"
}

resource "google_cloud_run_v2_service" "this" {
  name                = "churn"
  location            = "europe-west4"
  ingress             = "INGRESS_TRAFFIC_INTERNAL_ONLY"
  deletion_protection = false

  template {
    revision                         = "churn-v8-c55dfad9"
    service_account                  = google_service_account.this.email
    max_instance_request_concurrency = 4
    gpu_zonal_redundancy_disabled    = true

    node_selector {
      accelerator = "nvidia-l4"
    }

    scaling {
      min_instance_count = 2
      max_instance_count = 6
    }

    containers {
      image = "registry.example.com/churn@sha256:8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c"

      ports {
        container_port = 3000
      }

      resources {
        limits = {
          cpu              = "4"
          memory           = "16384Mi"
          "nvidia.com/gpu" = "1"
        }
        cpu_idle          = false
        startup_cpu_boost = true
      }

      env {
        name  = "BENTOML_DO_NOT_TRACK"
        value = "true"
      }

      env {
        name  = "FAIRLEAD_BUNDLE_DIGEST"
        value = "sha256:8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b8b"
      }

      env {
        name  = "FAIRLEAD_DEPLOYMENT"
        value = "churn"
      }

      env {
        name  = "FAIRLEAD_ONLINE_STORE"
        value = "redis://features.internal:6379"
      }

      env {
        name  = "FAIRLEAD_REGION"
        value = "gcp:europe-west4"
      }

      env {
        name  = "GREETING"
        value = "say \"$${hello}\" at 100%%{}"
      }

      startup_probe {
        period_seconds    = 10
        failure_threshold = 24

        http_get {
          path = "/readyz"
          port = 3000
        }
      }

      liveness_probe {
        http_get {
          path = "/livez"
          port = 3000
        }
      }
    }
  }

  traffic {
    type    = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"
    percent = 10
  }

  traffic {
    type     = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
    revision = "churn-v7-fd8f04c5"
    percent  = 90
  }
}

resource "google_cloud_run_v2_service_iam_member" "invoker" {
  for_each = toset(var.invokers)

  name     = google_cloud_run_v2_service.this.name
  location = google_cloud_run_v2_service.this.location
  role     = "roles/run.invoker"
  member   = each.value
}

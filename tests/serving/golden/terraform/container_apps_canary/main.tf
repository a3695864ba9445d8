provider "azurerm" {
  subscription_id = var.subscription_id

  features {}
}

locals {
  location = "eastus"
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

resource "azurerm_user_assigned_identity" "this" {
  name                = "churn-azure-eastus-5449cd"
  resource_group_name = var.resource_group_name
  location            = local.location
  tags                = local.tags
}

resource "azurerm_container_app_environment" "this" {
  name                           = "churn"
  resource_group_name            = var.resource_group_name
  location                       = local.location
  tags                           = local.tags
  logs_destination               = "log-analytics"
  log_analytics_workspace_id     = var.log_analytics_workspace_id
  infrastructure_subnet_id       = var.subnet_id
  internal_load_balancer_enabled = true

  workload_profile {
    name                  = "Consumption"
    workload_profile_type = "Consumption"
  }

  workload_profile {
    name                  = "Consumption-GPU-NC8as-T4"
    workload_profile_type = "Consumption-GPU-NC8as-T4"
  }
}

resource "azurerm_container_app" "this" {
  name                         = "churn"
  resource_group_name          = var.resource_group_name
  container_app_environment_id = azurerm_container_app_environment.this.id
  revision_mode                = "Multiple"
  workload_profile_name        = "Consumption-GPU-NC8as-T4"
  tags                         = local.tags

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.this.id]
  }

  ingress {
    target_port      = 3000
    external_enabled = true

    traffic_weight {
      latest_revision = true
      percentage      = 10
    }

    traffic_weight {
      revision_suffix = "v7-9b7e40b6"
      percentage      = 90
    }
  }

  template {
    revision_suffix = "v8-2fe79716"
    min_replicas    = 2
    max_replicas    = 6

    container {
      name   = "model"
      image  = "registry.example.com/churn@sha256:8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c"
      cpu    = 8
      memory = "56Gi"

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
        value = "azure:eastus"
      }

      env {
        name  = "GREETING"
        value = "say \"$${hello}\" at 100%%{}"
      }

      startup_probe {
        transport               = "HTTP"
        port                    = 3000
        path                    = "/readyz"
        interval_seconds        = 30
        failure_count_threshold = 10
      }

      readiness_probe {
        transport        = "HTTP"
        port             = 3000
        path             = "/readyz"
        interval_seconds = 5
      }

      liveness_probe {
        transport = "HTTP"
        port      = 3000
        path      = "/livez"
      }
    }

    http_scale_rule {
      name                = "requests"
      concurrent_requests = "40"
    }
  }
}

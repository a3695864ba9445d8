provider "azurerm" {
  subscription_id = var.subscription_id

  features {}
}

locals {
  location = "northeurope"
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
  name                = "churn-azure-northeurope-464016"
  resource_group_name = var.resource_group_name
  location            = local.location
  tags                = local.tags
}

resource "azurerm_role_assignment" "pull" {
  scope                = var.container_registry_id
  role_definition_name = "AcrPull"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
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
}

resource "azurerm_container_app" "this" {
  name                         = "churn"
  resource_group_name          = var.resource_group_name
  container_app_environment_id = azurerm_container_app_environment.this.id
  revision_mode                = "Multiple"
  workload_profile_name        = "Consumption"
  tags                         = local.tags

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.this.id]
  }

  registry {
    server   = "acme.azurecr.io"
    identity = azurerm_user_assigned_identity.this.id
  }

  ingress {
    target_port      = 3000
    external_enabled = true

    traffic_weight {
      latest_revision = true
      percentage      = 100
    }
  }

  template {
    revision_suffix = "v8-850777a1"
    min_replicas    = 2
    max_replicas    = 6

    container {
      name   = "model"
      image  = "acme.azurecr.io/churn@sha256:8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c8c"
      cpu    = 1.5
      memory = "3Gi"

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
        value = "azure:northeurope"
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

  depends_on = [azurerm_role_assignment.pull]
}

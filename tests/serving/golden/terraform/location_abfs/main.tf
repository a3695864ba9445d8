provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true

  features {}
}

locals {
  subjects = ["system:serviceaccount:fairlead:worker"]
}

resource "azurerm_storage_account" "this" {
  name                            = "acmedublin"
  resource_group_name             = var.resource_group_name
  location                        = "northeurope"
  account_tier                    = "Standard"
  account_replication_type        = "LRS"
  min_tls_version                 = "TLS1_2"
  shared_access_key_enabled       = false
  allow_nested_items_to_be_public = false
}

resource "azurerm_storage_container" "this" {
  name               = "models"
  storage_account_id = azurerm_storage_account.this.id
}

resource "azurerm_user_assigned_identity" "workers" {
  name                = "fairlead-dublin"
  resource_group_name = var.resource_group_name
  location            = "northeurope"
}

resource "azurerm_federated_identity_credential" "workers" {
  for_each = toset(local.subjects)

  name                = "workers-${substr(sha256(each.value), 0, 8)}"
  resource_group_name = var.resource_group_name
  parent_id           = azurerm_user_assigned_identity.workers.id
  issuer              = "https://oidc.eks.us-east-1.amazonaws.com/id/EXAMPLE"
  subject             = each.value
  audience            = ["api://AzureADTokenExchange"]
}

resource "azurerm_role_assignment" "workers" {
  scope                = azurerm_storage_container.this.id
  role_definition_name = "Storage Blob Data Contributor"
  principal_id         = azurerm_user_assigned_identity.workers.principal_id
}

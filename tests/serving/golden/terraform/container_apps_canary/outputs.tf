output "url" {
  description = "Where the deployment answers."
  value       = "https://${azurerm_container_app.this.ingress[0].fqdn}"
}

output "principal_id" {
  description = "The identity of the deployment's processes."
  value       = azurerm_user_assigned_identity.this.principal_id
}

output "add_location" {
  description = "The command that adds the location."
  value       = "fairlead location add dublin --region azure:northeurope --url abfs://models/fairlead --option account_name=acmedublin --identity kind=workload --identity tenant_id=${azurerm_user_assigned_identity.workers.tenant_id} --identity client_id=${azurerm_user_assigned_identity.workers.client_id}"
}

variable "subscription_id" {
  type        = string
  description = "The subscription that the storage account is in."
  nullable    = false
}

variable "resource_group_name" {
  type        = string
  description = "The resource group that holds all of it."
  nullable    = false
}

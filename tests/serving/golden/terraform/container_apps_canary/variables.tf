variable "subscription_id" {
  type        = string
  description = "The subscription that the deployment runs in."
  nullable    = false
}

variable "resource_group_name" {
  type        = string
  description = "The resource group that holds all of it."
  nullable    = false
}

variable "subnet_id" {
  type        = string
  description = "A subnet of its own for the environment, of /27 or larger."
  nullable    = false
}

variable "log_analytics_workspace_id" {
  type        = string
  description = "Where the processes' logs go."
  nullable    = false
}

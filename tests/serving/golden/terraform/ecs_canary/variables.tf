variable "vpc_id" {
  type        = string
  description = "The network that the deployment runs in."
  nullable    = false
}

variable "subnet_ids" {
  type        = list(string)
  description = "Subnets of the tasks, with a way to the registry of images."
  nullable    = false
}

variable "load_balancer_subnet_ids" {
  type        = list(string)
  description = "Subnets of the load balancer, in at least two zones."
  nullable    = false
}

variable "client_cidr_blocks" {
  type        = list(string)
  description = "Where requests come from."
  nullable    = false
}

variable "certificate_arn" {
  type        = string
  description = "The certificate that the load balancer answers with."
  nullable    = false
}

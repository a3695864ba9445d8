variable "oidc_provider_arn" {
  type        = string
  description = "The account's provider of the issuer, where it has one already; null makes one."
  default     = null
}

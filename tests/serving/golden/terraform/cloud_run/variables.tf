variable "project" {
  type        = string
  description = "The project that the deployment runs in."
  nullable    = false
}

variable "invokers" {
  type        = list(string)
  description = "Who may send requests, such as serviceAccount:gateway@acme.iam.gserviceaccount.com."
  nullable    = false
}

variable "project" {
  type        = string
  description = "The project that the bucket is in."
  nullable    = false
}

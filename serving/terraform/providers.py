"""The providers of the clouds, and the versions of them and of Terraform that modules are written for."""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.serving.terraform.hcl import Block, Value, to_text

REQUIRED_VERSION = ">= 1.9, < 2.0"
PROVIDERS: Mapping[str, tuple[str, str]] = {
    "aws": ("hashicorp/aws", "~> 6.25"),
    "google": ("hashicorp/google", "~> 6.50"),
    "azurerm": ("hashicorp/azurerm", "~> 4.55"),
}
"""Where each provider is from, and the range of versions that has every argument of the modules."""


_STATE_PLACES = {"azurerm": ("key", ".tfstate"), "gcs": ("prefix", ""), "s3": ("key", ".tfstate")}


def versions_file(provider: str, *, backend: str | None = None, state: str = "") -> str:
    """The text of `versions.tf`.

    `state` is the module's own place in a backend that has places; the rest of its details come with `terraform init
    -backend-config`.
    """
    source, version = PROVIDERS[provider]
    body: dict[str, Value | Block | tuple[Block, ...]] = {
        "required_version": REQUIRED_VERSION,
        "required_providers": Block({provider: {"source": source, "version": version}}),
    }
    if backend is not None:
        name, ending = _STATE_PLACES.get(backend, ("", ""))
        body["backend"] = Block({name: f"{state}{ending}"} if name else {}, (backend,))
    return to_text([("terraform", Block(body))])

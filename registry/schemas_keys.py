"""What crosses the wire about encryption keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fairlead.registry.keys import KeyState
from fairlead.registry.wire import AnswerModel, RequestModel, Time

_WRAPPING_KEY = (
    "The wrapping key: an ARN for `aws-kms`, `projects/…/cryptoKeys/…` for `gcp-kms`, "
    "`https://….vault.azure.net/keys/…` for `azure-key-vault`. Empty for `file`: the server's first key file."
)


class KeyIn(RequestModel):
    """A data key to be made, and what is to wrap it."""

    provider: Annotated[str, Field(max_length=32, examples=["file", "aws-kms", "gcp-kms", "azure-key-vault"])]
    provider_key: Annotated[str, Field(max_length=1000, description=_WRAPPING_KEY)] = ""


class RotationIn(RequestModel):
    """What is to wrap the data key from now on; nothing: the newest version of what does now."""

    provider: Annotated[str | None, Field(max_length=32)] = None
    provider_key: Annotated[str, Field(max_length=1000, description=_WRAPPING_KEY)] = ""


class KeyOut(AnswerModel):
    """An encryption key: ACTIVE (artifacts are registered under it) or RETIRED (only read)."""

    id: str
    state: KeyState
    provider: str
    provider_key: str
    revision: int
    created_by: str
    created_at: Time
    wrapped_at: Time


class WrappedKeyOut(KeyOut):
    """An encryption key with the data key as its provider wrapped it, in base64."""

    wrapped_key: str

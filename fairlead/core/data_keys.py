"""Data keys: 32 random bytes that encrypt a workspace's objects, kept only as a key provider wrapped them.

A wrapped key is bound to its workspace and id, so that one cannot be passed off as another.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.core.errors import InvalidInput, KeyUnavailable
from fairlead.core.ports import KeyProvider

DATA_KEY_BYTES = 32

KeyProviders = Mapping[str, KeyProvider]
"""Providers by their kind: `file`, `aws-kms`, `gcp-kms`, `azure-key-vault`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A data key that only its provider can unwrap. `provider_key` is the provider's name of the wrapping key."""

    workspace: str
    key_id: str
    provider: str
    provider_key: str
    wrapped: bytes


def wrap_key(
    providers: KeyProviders, data_key: bytes, *, workspace: str, key_id: str, provider: str, provider_key: str
) -> WrappedKey:
    """Wrap a data key, and unwrap it again: one that came back differently would be lost with all it encrypts.

    An empty `provider_key` leaves the choice to the provider.

    Raises:
        KeyUnavailable, InvalidInput, MissingExtra: as the port says.
    """
    chosen = _find(providers, provider)
    name = chosen.name_of(provider_key)
    context = _context(workspace, key_id)
    wrapped = chosen.wrap(data_key, provider_key=name, context=context)
    if not hmac.compare_digest(chosen.unwrap(wrapped, provider_key=name, context=context), data_key):
        raise KeyUnavailable(f"The key provider {provider!r} gave back another key than it was given.")
    return WrappedKey(workspace=workspace, key_id=key_id, provider=provider, provider_key=name, wrapped=wrapped)


def unwrap_key(providers: KeyProviders, key: WrappedKey) -> bytes:
    """The 32 bytes of a data key.

    Raises:
        KeyUnavailable, InvalidInput, MissingExtra: as the port says.
    """
    provider = _find(providers, key.provider)
    context = _context(key.workspace, key.key_id)
    data_key = provider.unwrap(key.wrapped, provider_key=key.provider_key, context=context)
    if len(data_key) != DATA_KEY_BYTES:
        raise KeyUnavailable(f"The encryption key {key.key_id} unwraps to {len(data_key)} bytes, not {DATA_KEY_BYTES}.")
    return data_key


def _find(providers: KeyProviders, kind: str) -> KeyProvider:
    provider = providers.get(kind)
    if provider is None:
        raise InvalidInput(f"{kind[:40]!r} is no key provider.", hint=f"Use one of: {', '.join(providers)}.")
    return provider


def _context(workspace: str, key_id: str) -> dict[str, str]:
    return {"fairlead:workspace": workspace, "fairlead:key-id": key_id}

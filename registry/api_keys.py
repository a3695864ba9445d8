"""Routes of encryption keys."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from fairlead.registry.access import IsKnown, MayAdmin, MayRead
from fairlead.registry.keys import Keys
from fairlead.registry.schemas_keys import KeyIn, KeyOut, RotationIn, WrappedKeyOut
from fairlead.registry.wire import Listing, MayRepeat, WantedPage, listing


def keys_router(keys: Keys) -> APIRouter:
    """Encryption keys."""
    router = APIRouter(prefix="/keys", tags=["keys"])

    @router.post("", status_code=201, response_model=KeyOut)
    def create_key(body: KeyIn, caller: MayAdmin, key: MayRepeat) -> Any:
        """Make a data key and encrypt what is registered from now on under it."""
        return keys.create(caller, provider=body.provider, provider_key=body.provider_key, key=key)

    @router.get("", response_model=Listing[KeyOut])
    def list_keys(caller: MayRead, page: WantedPage) -> Any:
        """List the workspace's keys, oldest first."""
        return listing(KeyOut, keys.list(caller, page))

    @router.get("/{key_id}", response_model=WrappedKeyOut)
    def get_key(key_id: str, caller: IsKnown) -> Any:
        """One key in its wrapped form, for callers who may read or write; they unwrap it with access of their own."""
        return keys.get(caller, key_id)

    @router.post("/{key_id}/rotate", response_model=KeyOut)
    def rotate_key(key_id: str, caller: MayAdmin, body: Annotated[RotationIn | None, Body()] = None) -> Any:
        """Wrap the same data key anew; no object is rewritten."""
        wanted = body or RotationIn()
        return keys.rotate(caller, key_id, provider=wanted.provider, provider_key=wanted.provider_key)

    @router.post("/{key_id}/retire", response_model=KeyOut)
    def retire_key(key_id: str, caller: MayAdmin) -> Any:
        """Encrypt nothing more under a key; what it encrypted stays readable. Repeating it changes nothing."""
        return keys.retire(caller, key_id)

    return router

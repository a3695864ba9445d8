"""Locations whose cloud this client holds no key of: the server signs an address for each object it may touch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fairlead.core.ports import ObjectInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fairlead.sdk.transport import JsonObject, Transport
    from fairlead.sync.store.presigning import SignedRequest, Verb
    from fairlead.sync.store.signed import AskForAddresses, SignedStore


class SignedAccess:
    """Opens stores that reach their objects by addresses which the server signs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._opened: list[SignedStore] = []

    def close(self) -> None:
        """Close the connections of every store that was opened."""
        opened, self._opened = self._opened, []
        for store in opened:
            store.close()

    def of_replica(self, digest: str, location: str) -> SignedStore:
        """A store of what an artifact has at a location, to read."""

        def ask(_verb: Verb, _keys: Sequence[str]) -> list[SignedRequest]:
            # All of the artifact's at once.
            return self._addresses(f"/api/v1/artifacts/{digest}/addresses", {"location": location})

        def list_nothing(_prefix: str) -> list[ObjectInfo]:
            return []

        return self._open(location, ask, list_nothing, {})

    def of_upload(self, upload_id: str, location: Mapping[str, Any]) -> SignedStore:
        """A store of what an upload may read and create."""

        def ask(verb: Verb, keys: Sequence[str]) -> list[SignedRequest]:
            return self._addresses(f"/api/v1/uploads/{upload_id}/addresses", {"verb": verb, "keys": list(keys)})

        def list_objects(prefix: str) -> list[ObjectInfo]:
            answer = self._transport.get(f"/api/v1/uploads/{upload_id}/objects", prefix=prefix)
            return [ObjectInfo(**each) for each in cast("list[dict[str, Any]]", answer["objects"])]

        return self._open(str(location["name"]), ask, list_objects, location["client_options"])

    def _open(
        self,
        where: str,
        ask: AskForAddresses,
        list_objects: Callable[[str], list[ObjectInfo]],
        options: Mapping[str, Any],
    ) -> SignedStore:
        from fairlead.sync.store.signed import SignedStore

        store = SignedStore(where, ask, list_objects, has_create_only=options.get("has_create_only") is not False)
        self._opened.append(store)
        return store

    def _addresses(self, path: str, body: JsonObject) -> list[SignedRequest]:
        from fairlead.core.clock import parse_time
        from fairlead.sync.store.presigning import SignedRequest

        answer = self._transport.post(path, body)
        signed = cast("list[dict[str, Any]]", answer["addresses"])
        for each in signed:
            each["expires_at"] = parse_time(each["expires_at"])
        return [SignedRequest(**each) for each in signed]

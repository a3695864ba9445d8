"""`fairlead restore`: a server's database made again from what lies at locations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairlead.app.schema import upgrade
from fairlead.app.settings import ServerSettings
from fairlead.core.clock import SystemClock
from fairlead.core.db import Database
from fairlead.core.errors import BadSignature, InvalidInput
from fairlead.registry.locations import parse_url
from fairlead.sync.restoration import restore_record
from fairlead.sync.store.encryption import EncryptedStore
from fairlead.sync.store.keyring import UnwrappingKeyring, open_key_providers
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.record import RecordCopy, find_key
from fairlead.sync.store.refs import key_id_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fairlead.core.ports import ObjectStore
    from fairlead.sync.restoration import Restoration
    from fairlead.sync.store.record import RecordIndex


def restore(
    urls: Sequence[str],
    *,
    options: Mapping[str, str],
    workspace: str | None,
    database_url: str | None,
    trusted_key: str | None,
    is_first_use: bool,
    is_dry_run: bool,
) -> Restoration:
    """Restore a workspace from the copies at some locations; a dry run reads and checks them and writes nothing.

    Raises:
        BadSignature: if no key is trusted, telling which key signed it.
        AlreadyExists: if the database has the workspace.
        ObjectNotFound, CorruptObject, KeyUnavailable: if a copy cannot be read.
    """
    settings = ServerSettings.read()
    providers = open_key_providers(settings.key_file)
    trusted = None if is_first_use else _trusted(trusted_key)

    def decrypting(store: ObjectStore, index: RecordIndex) -> ObjectStore:
        keyring = UnwrappingKeyring(providers, lambda workspace, key_id: find_key(index, workspace, key_id))
        return EncryptedStore(store, keyring)

    copies: list[RecordCopy] = []
    for url in urls:
        store = open_store(parse_url(url), options)
        try:
            copies.append(RecordCopy.open(store, workspace or settings.workspace, trusted, decrypting=decrypting))
        except BadSignature as error:
            signed_by = error.attributes.get("signed_by")
            if signed_by is None:
                raise
            error.hint = (
                f"If you know that key, give it: --trusted-key {signed_by}. To believe it unseen: --trust-on-first-use."
            )
            raise
    if is_dry_run:
        return restore_record(None, SystemClock(), copies)
    database = Database(database_url) if database_url else settings.open_database()
    try:
        upgrade(database)
        return restore_record(database, SystemClock(), copies)
    finally:
        database.close()


def _trusted(text: str | None) -> dict[str, bytes]:
    if text is None:
        return {}
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise InvalidInput(
            "The trusted key is not 64 hexadecimal digits.", hint="Servers show theirs: fairlead record show"
        )
    return {key_id_of(key): key}

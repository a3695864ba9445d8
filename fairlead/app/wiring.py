"""Parts of the service that settings shape: the database, signing keys, webhooks, and what workers do for the bytes."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from fairlead.app.schema import check_revision, upgrade
from fairlead.core.errors import InvalidInput
from fairlead.core.ids import new_row_id
from fairlead.featurestore.recorded import feature_rows
from fairlead.registry.secret_box import SecretBox
from fairlead.registry.webhook_assembly import WebhookParts, assemble_webhooks
from fairlead.serving.recorded import bundle_rows
from fairlead.sync.duties import Duties, sync_duties
from fairlead.sync.ray_engine import RayEngine
from fairlead.sync.record_rows import registry_rows
from fairlead.sync.store.keyring import read_key_file
from fairlead.sync.transfer import BytesInFlight, Transfers
from fairlead.sync.upkeep_duties import UpkeepRules

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fairlead.app.settings import ServerSettings
    from fairlead.catalog import Catalog
    from fairlead.core.db import Database
    from fairlead.core.ports import Clock, RegionUse
    from fairlead.registry.locations import StoreOpener
    from fairlead.sync.plans import ReplicationPlans

_KEY_BYTES = 32


def open_database(settings: ServerSettings, *, is_embedded: bool) -> Database:
    """The database at this release's revision.

    The embedded service brings its own one up to date; a server refuses one at another revision, because other servers
    may be using it.

    Raises:
        DatabaseRevisionMismatch: with the command that mends it.
    """
    database = settings.open_database()
    try:
        if is_embedded:
            upgrade(database)
        else:
            check_revision(database)
    except BaseException:
        database.close()
        raise
    return database


def make_webhooks(
    settings: ServerSettings, database: Database, clock: Clock, *, signing_keys: Sequence[bytes]
) -> WebhookParts:
    """Webhooks, whose secrets any of the server's own keys opens."""
    return assemble_webhooks(
        database,
        clock,
        hosts=None if settings.webhook_hosts is None else tuple(settings.webhook_hosts),
        box=SecretBox(lambda: [*(read_key_file(path) for path in settings.key_file), *signing_keys]),
        patience=settings.webhook_patience,
    )


def make_duties(
    settings: ServerSettings,
    database: Database,
    clock: Clock,
    *,
    catalog: Catalog,
    open_store: StoreOpener,
    signing_keys: Sequence[bytes],
    plans: ReplicationPlans,
    region_use: RegionUse,
) -> Duties:
    """What a worker does for the bytes, by the rules of the settings; the first signing key signs."""
    return sync_duties(
        database,
        clock,
        catalog=catalog,
        open_store=open_store,
        signing_key=signing_keys[0],
        former_signing_keys=signing_keys[1:],
        plans=plans,
        region_use=region_use,
        record_sources=(registry_rows, feature_rows, bundle_rows),
        upkeep=UpkeepRules(
            scrub_days=settings.scrub_days,
            collect_every=settings.collect_every,
            collect_grace=settings.collect_grace,
            repack_below=settings.repack_below,
        ),
        transfers=Transfers(
            in_flight=BytesInFlight(settings.copy_memory_bytes),
            engine=RayEngine(settings.ray_address) if settings.engine == "ray" else None,
        ),
    )


def read_signing_key(path: Path) -> bytes:
    """The Ed25519 private key that signs refs, made at the first start; readable by its owner alone.

    Raises:
        InvalidInput: if the file is there and holds no such key.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        draft = path.with_name(f"{path.name}.{new_row_id()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
            handle.write(os.urandom(_KEY_BYTES))
        # Of two that start at once, the second takes the first one's key.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
        key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise InvalidInput(
            "The signing key file does not hold 32 bytes.", hint="Point FAIRLEAD_SIGNING_KEY_FILE at one."
        )
    return key

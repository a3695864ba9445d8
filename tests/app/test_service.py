"""What a service does by itself beside answering."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import func, select

from fairlead.app.service import Service
from fairlead.app.settings import ServerSettings
from fairlead.registry.idempotency import KEPT_FOR, IdempotencyKey
from fairlead.registry.tables import IdempotencyRow
from fairlead.testing.clock import ManualClock

PATIENCE_SECONDS = 20


def test_idempotency_keys_are_forgotten_when_nothing_recognises_them_any_more(tmp_path: Path) -> None:
    clock = ManualClock()
    service = Service.build(ServerSettings(home=tmp_path), clock, is_embedded=True)
    try:
        owner = service.tokens.authenticate(service.issue_owner_token())
        for key in ("old", "new"):
            service.tokens.create(
                owner,
                name=key,
                principal=key,
                scopes=["read"],
                key=IdempotencyKey(key=key, request_sha256="0" * 64),
            )
            clock.advance(KEPT_FOR - timedelta(seconds=1) if key == "old" else timedelta(seconds=2))
        service.start(has_worker=False)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while kept(service) > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert kept(service) == 1
    finally:
        service.close()


def kept(service: Service) -> int:
    """How many keys are on record."""
    with service.database.read() as session:
        return session.scalar(select(func.count()).select_from(IdempotencyRow)) or 0

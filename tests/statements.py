"""What is sent to a database, counted."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from fairlead.core.db import Database
from fairlead.core.prepared import Compiled


@contextmanager
def statements(database: Database) -> Generator[list[str]]:
    """What is sent to the database while the block runs, but for quick reads."""
    asked: list[str] = []

    def note(*context: object) -> None:
        asked.append(str(context[2]))

    def noting(send: Callable[[Compiled, Any, Any], Any]) -> Callable[[Compiled, Any, Any], Any]:
        def note_and_send(prepared: Compiled, driver: Any, values: Any) -> Any:
            asked.append(prepared.sql)
            return send(prepared, driver, values)

        return note_and_send

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Compiled, "execute", noting(Compiled.execute))
            patch.setattr(Compiled, "execute_many", noting(Compiled.execute_many))
            yield asked
    finally:
        event.remove(database.engine, "before_cursor_execute", note)

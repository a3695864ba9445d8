"""The audit log as one file, to be kept where whoever can change the database cannot change it, and checked anywhere.

    {"format": "fairlead/audit", "version": 1, "workspace_id": ...}
    one event a line, in the order of their sequence, with the members that are hashed, previous_hash and event_hash
    {"anchor": "SEQUENCE:HASH"}

Lines are JSON and end in a line feed. The last one makes a file that was cut off tell so.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.audit_chain import Anchor, ChainCheck, Problem
from fairlead.core.errors import IntegrityError, InvalidInput, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from fairlead.sdk.transport import JsonObject

FORMAT = "fairlead/audit"
VERSION = 1
_LINE_MAX_BYTES = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedExport:
    """What reading an exported audit log found; `problem` and `sequence` as `fairlead audit verify` says."""

    workspace_id: str
    is_intact: bool
    sealed: int
    anchor: str | None
    problem: Problem | None
    sequence: int | None


def write_export(file: Path, workspace_id: str, events: Iterable[JsonObject]) -> CheckedExport:
    """Write sealed events, which come in the order of their sequence, into a new file that is whole or not there.

    Raises:
        InvalidInput: if there is something at `file`.
        PermissionDenied: if the events are not all: the caller may not see every one.
        IntegrityError: if the chain was changed; nothing is written.
    """
    check = ChainCheck()
    draft = file.with_name(f".{file.name}.partial")
    if file.exists():
        raise InvalidInput(f"{str(file)!r} exists.", hint="Choose another file, or move this one away.")
    try:
        with draft.open("w", encoding="ascii", newline="\n") as out:
            out.write(_line({"format": FORMAT, "version": VERSION, "workspace_id": workspace_id}))
            for event in events:
                _add(check, workspace_id, event)
                out.write(_line(event))
            if not check.finish():
                _refuse(check)
            out.write(_line({"anchor": None if check.head is None else str(check.head)}))
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return _found(workspace_id, check)


def check_export(file: Path, *, anchor: Anchor | None = None) -> CheckedExport:
    """Recompute the chain of an exported log; no server is asked.

    Raises:
        InvalidInput: if the file cannot be read, or is none of these.
    """
    check = ChainCheck(anchor=anchor)
    lines = _lines(file)
    head = next(lines, {})
    if head.get("format") != FORMAT or head.get("version") != VERSION:
        raise InvalidInput(
            f"{file.name!r} is no exported audit log.", hint="Write one with: fairlead audit export FILE"
        )
    workspace_id = str(head.get("workspace_id"))
    stated: str | None = None
    is_whole = False
    for line in lines:
        if is_whole:
            raise InvalidInput(f"{file.name!r} goes on after its end.")
        if "anchor" in line:
            stated, is_whole = cast("str | None", line["anchor"]), True
            continue
        _add(check, workspace_id, line)
    check.finish()
    if check.problem is None and (not is_whole or stated != (None if check.head is None else str(check.head))):
        check.problem, check.sequence = "cut", check.sealed + 1
    return _found(workspace_id, check)


def _add(check: ChainCheck, workspace_id: str, event: JsonObject) -> None:
    hashed = {"id": "", "residency": "", "actor": "", "action": "", "subject": "", "facts": None, "happened_at": ""}
    check.add(
        {**hashed, **event, "workspace_id": workspace_id},
        sequence=cast("int | None", event.get("sequence")),
        previous_hash=cast("str | None", event.get("previous_hash")),
        event_hash=cast("str | None", event.get("event_hash")),
    )


def _refuse(check: ChainCheck) -> None:
    if check.problem == "missing":
        raise PermissionDenied(
            f"The event {check.sequence} is missing: it was removed, or you may not see it.",
            hint="Only who may see all of a workspace exports its log. Check it with: fairlead audit verify",
        )
    raise IntegrityError(
        f"The audit trail was changed: {check.problem} at event {check.sequence}.",
        hint="Every event before that one is as it was written.",
    )


def _found(workspace_id: str, check: ChainCheck) -> CheckedExport:
    return CheckedExport(
        workspace_id=workspace_id,
        is_intact=check.problem is None,
        sealed=check.sealed,
        anchor=None if check.head is None else str(check.head),
        problem=check.problem,
        sequence=check.sequence,
    )


def _line(value: JsonObject) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n"


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with file.open("rb") as stream:
            while line := stream.readline(_LINE_MAX_BYTES):
                yield dict(json.loads(line))
    except OSError as error:
        raise InvalidInput(f"{file.name!r} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInput(f"{file.name!r} is no exported audit log, or was damaged.") from error

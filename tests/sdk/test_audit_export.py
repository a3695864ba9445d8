"""An exported audit log: checked anywhere, and every edit of it is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.audit_chain import FIRST_PREVIOUS_HASH, hash_event, parse_anchor
from fairlead.core.errors import IntegrityError, InvalidInput, PermissionDenied
from fairlead.sdk.audit_export import check_export, write_export


def events(count: int) -> list[dict[str, Any]]:
    """A chain of so many events, as the server gives them."""
    made: list[dict[str, Any]] = []
    previous = FIRST_PREVIOUS_HASH
    for number in range(1, count + 1):
        event: dict[str, Any] = {
            "id": f"event-{number}",
            "residency": "unrestricted",
            "actor": "ana",
            "action": "model.create",
            "subject": f"größe-{number}",
            "facts": {"n": number, "x": ["0.5", None]},
            "happened_at": "2026-03-01T12:00:00.000000Z",
        }
        found = hash_event({**event, "workspace_id": "acme"}, sequence=number, previous_hash=previous)
        made.append({**event, "sequence": number, "previous_hash": previous, "event_hash": found})
        previous = found
    return made


@pytest.mark.parametrize("count", [0, 1, 5])
def test_what_was_exported_is_found_intact_without_a_server(tmp_path: Path, count: int) -> None:
    file = tmp_path / "log.jsonl"
    written = write_export(file, "acme", events(count))
    found = check_export(file, anchor=None if written.anchor is None else parse_anchor(written.anchor))
    assert found == written
    assert (found.is_intact, found.sealed) == (True, count)


def test_an_export_is_what_the_reference_describes(tmp_path: Path) -> None:
    event_hash = "7cc0e3e5da6d9e48dd1e09a4a2ebcce37e3b80bf629100f2b37bfd38e00f98c9"
    event: dict[str, Any] = {
        "id": "01957f2e-7c00-7000-8000-000000000001",
        "residency": "eu",
        "actor": "ana",
        "action": "model.promote",
        "subject": "churn/3",
        "facts": {"limit": "0.9", "to": 3},
        "happened_at": "2026-03-01T12:00:00.000000Z",
        "sequence": 1,
        "previous_hash": "0" * 64,
        "event_hash": event_hash,
    }
    file = tmp_path / "log.jsonl"
    lines = [{"format": "fairlead/audit", "version": 1, "workspace_id": "acme"}, event, {"anchor": f"1:{event_hash}"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="ascii")
    assert check_export(file).is_intact
    written = tmp_path / "written.jsonl"
    write_export(written, "acme", [event])
    assert [json.loads(line) for line in written.read_text(encoding="ascii").splitlines()] == lines


def edit_fact(lines: list[str]) -> list[str]:
    return [line.replace('"n":3', '"n":4') for line in lines]


def edit_and_hash(lines: list[str]) -> list[str]:
    event = json.loads(lines[3])
    event["actor"] = "bo"
    event["event_hash"] = hash_event(
        {**event, "workspace_id": "acme"}, sequence=3, previous_hash=event["previous_hash"]
    )
    return [*lines[:3], json.dumps(event), *lines[4:]]


EDITS: dict[str, tuple[Callable[[list[str]], list[str]], tuple[str, int]]] = {
    "a fact": (edit_fact, ("edited", 3)),
    "an actor, with its hash made good": (edit_and_hash, ("broken", 4)),
    "one taken out": (lambda lines: lines[:3] + lines[4:], ("missing", 3)),
    "two exchanged": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], ("missing", 2)),
    "the tail cut off": (lambda lines: lines[:4], ("cut", 4)),
    "the tail cut off, its end put back": (lambda lines: [*lines[:4], lines[-1]], ("cut", 4)),
    "a first event of another chain": (lambda lines: [lines[0].replace("acme", "other"), *lines[1:]], ("edited", 1)),
}


@pytest.mark.parametrize("what", EDITS)
def test_any_edit_is_found_and_where(tmp_path: Path, what: str) -> None:
    file = tmp_path / "log.jsonl"
    write_export(file, "acme", events(5))
    change, expected = EDITS[what]
    file.write_text("\n".join(change(file.read_text().splitlines())) + "\n")
    found = check_export(file)
    assert (found.problem, found.sequence) == expected
    assert not found.is_intact


def test_a_shorter_log_made_whole_is_found_by_its_anchor(tmp_path: Path) -> None:
    anchor = parse_anchor(str(write_export(tmp_path / "before.jsonl", "acme", events(5)).anchor))
    write_export(tmp_path / "after.jsonl", "acme", events(3))
    assert check_export(tmp_path / "after.jsonl").is_intact
    found = check_export(tmp_path / "after.jsonl", anchor=anchor)
    assert (found.problem, found.sequence) == ("cut", 5)


def test_a_log_of_which_one_sees_a_part_is_not_exported(tmp_path: Path) -> None:
    chain = events(4)
    with pytest.raises(PermissionDenied, match="event 2"):
        write_export(tmp_path / "log.jsonl", "acme", [chain[0], *chain[2:]])
    chain[1]["actor"] = "bo"
    with pytest.raises(IntegrityError, match="edited at event 2"):
        write_export(tmp_path / "log.jsonl", "acme", chain)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]\n", b"\xff\n", b'{"format":"fairlead/audit","version":2}\n', b"[" * 9999]
)
def test_what_is_no_export_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(InvalidInput):
        check_export(tmp_path / "log")
    with pytest.raises(InvalidInput):
        check_export(tmp_path / "nothing")


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("mine")
    with pytest.raises(InvalidInput):
        write_export(tmp_path / "log", "acme", events(1))
    assert (tmp_path / "log").read_text() == "mine"

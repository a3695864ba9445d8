from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import ColumnElement, Update, delete, func, select, update

from fairlead.core.audit_chain import FIRST_PREVIOUS_HASH, hash_event, parse_anchor
from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.core.ids import new_row_id
from fairlead.registry import audit
from fairlead.registry.audit import AuditLog, Sealer, verify
from fairlead.registry.paging import PageRequest
from fairlead.registry.tables import AuditEventRow
from tests.record_world import World, make_world, run_together

Tampering = Callable[[World], None]


def of(world: World) -> tuple[ColumnElement[bool]]:
    return (AuditEventRow.workspace_id == world.owner.workspace_id,)


def edit(world: World, sequence: int) -> Update:
    return update(AuditEventRow).where(*of(world), AuditEventRow.sequence == sequence)


def write_events(world: World, count: int) -> None:
    for number in range(count):
        with world.database.write() as session:
            facts: dict[str, JsonValue] = {"number": number, "auc": 0.1 + number, "nested": [{"é": None}]}
            audit.record(session, world.owner, world.clock, action="test.act", subject=f"thing/{number}", facts=facts)


def seal(world: World, count: int = 6) -> None:
    write_events(world, count)
    Sealer(world.database, world.clock).seal_once()


def test_sealed_events_are_numbered_without_a_gap_and_each_names_the_one_before(world: World) -> None:
    seal(world)
    seal(world)
    events = AuditLog(world.database).list(world.owner, PageRequest()).items
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[0].previous_hash == FIRST_PREVIOUS_HASH
    for before, after in itertools.pairwise(events):
        assert after.previous_hash == before.event_hash
    assert verify(world.database, world.owner.workspace_id).is_intact


def test_sealing_without_news_changes_nothing(world: World) -> None:
    seal(world)
    before = verify(world.database, world.owner.workspace_id)
    assert Sealer(world.database, world.clock).seal_once() == 0
    assert verify(world.database, world.owner.workspace_id) == before


def test_an_event_exists_if_and_only_if_its_change_was_committed(world: World) -> None:
    before = len(AuditLog(world.database).list(world.owner, PageRequest()).items)

    def fail_late() -> None:
        with world.database.write() as session:
            audit.record(session, world.owner, world.clock, action="test.act", subject="x")
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_late()
    assert len(AuditLog(world.database).list(world.owner, PageRequest()).items) == before


def change(place: int, **values: object) -> Tampering:
    def tamper(world: World) -> None:
        with world.database.write() as session:
            session.execute(update(AuditEventRow).where(*of(world), AuditEventRow.sequence == place).values(**values))

    return tamper


def remove(*sequences: int) -> Tampering:
    def tamper(world: World) -> None:
        with world.database.write() as session:
            session.execute(delete(AuditEventRow).where(*of(world), AuditEventRow.sequence.in_(sequences)))

    return tamper


def remove_and_close_the_gap(world: World) -> None:
    with world.database.write() as session:
        session.execute(delete(AuditEventRow).where(*of(world), AuditEventRow.sequence == 3))
        last = session.scalar(select(func.max(AuditEventRow.sequence)).where(*of(world))) or 0
        for sequence in range(4, last + 1):
            session.execute(
                update(AuditEventRow)
                .where(*of(world), AuditEventRow.sequence == sequence)
                .values(sequence=sequence - 1)
            )


def exchange(world: World) -> None:
    with world.database.write() as session:
        for before, after in ((3, 1000), (4, 3), (1000, 4)):
            session.execute(edit(world, before).values(sequence=after))


def insert_between(world: World) -> None:
    with world.database.write() as session:
        last = session.scalar(select(func.max(AuditEventRow.sequence)).where(*of(world))) or 0
        for sequence in range(last, 3, -1):
            session.execute(
                update(AuditEventRow)
                .where(*of(world), AuditEventRow.sequence == sequence)
                .values(sequence=sequence + 1)
            )
        before = session.scalars(select(AuditEventRow).where(*of(world), AuditEventRow.sequence == 3)).one()
        forged = AuditEventRow(
            workspace_id=world.owner.workspace_id,
            id=new_row_id(),
            residency="unrestricted",
            actor="mallory",
            action="test.forge",
            subject="thing",
            facts={},
            happened_at=before.happened_at,
            sequence=4,
            previous_hash=before.event_hash,
        )
        forged.event_hash = hash_event(audit.chained(forged), sequence=4, previous_hash=before.event_hash or "")
        session.add(forged)


TAMPERINGS: dict[str, Tampering] = {
    "the actor edited": change(4, actor="mallory"),
    "the facts edited": change(4, facts={"number": 2}),
    "the subject edited": change(4, subject="thing/9"),
    "the residency edited": change(4, residency="us"),
    "a fraction put into the facts": change(4, facts={"number": 2.5}),
    "an event removed": remove(4),
    "the first event removed": remove(1),
    "an event unsealed": change(4, sequence=None),
    "an event removed and the gap closed": remove_and_close_the_gap,
    "two events exchanged": exchange,
    "an event inserted": insert_between,
}


@pytest.mark.parametrize("tampering", list(TAMPERINGS))
def test_the_chain_shows(world: World, tampering: str) -> None:
    seal(world)
    assert verify(world.database, world.owner.workspace_id).is_intact
    TAMPERINGS[tampering](world)
    found = verify(world.database, world.owner.workspace_id)
    assert not found.is_intact
    assert found.problem in {"edited", "broken", "missing"}
    assert found.sequence is not None


def test_an_edit_with_its_hash_made_good_breaks_the_chain_after_it(world: World) -> None:
    seal(world)
    with world.database.write() as session:
        row = session.scalars(select(AuditEventRow).where(*of(world), AuditEventRow.sequence == 3)).one()
        row.actor = "mallory"
        row.event_hash = hash_event(audit.chained(row), sequence=3, previous_hash=row.previous_hash or "")
    found = verify(world.database, world.owner.workspace_id)
    assert (found.problem, found.sequence) == ("broken", 4)


def test_a_tail_that_was_cut_off_shows_against_an_exported_anchor(world: World) -> None:
    seal(world)
    head = verify(world.database, world.owner.workspace_id).head
    assert head is not None
    anchor = parse_anchor(str(head))
    seal(world, 2)
    assert verify(world.database, world.owner.workspace_id, anchor=anchor).is_intact
    remove(*range(head.sequence - 1, head.sequence + 3))(world)
    assert verify(world.database, world.owner.workspace_id).is_intact
    found = verify(world.database, world.owner.workspace_id, anchor=anchor)
    assert (found.problem, found.sequence) == ("cut", head.sequence)


def test_a_rewritten_chain_shows_against_an_exported_anchor(world: World) -> None:
    seal(world)
    anchor = verify(world.database, world.owner.workspace_id).head
    with world.database.write() as session:
        session.execute(
            update(AuditEventRow).where(*of(world)).values(sequence=None, previous_hash=None, event_hash=None)
        )
        session.execute(update(AuditEventRow).where(*of(world)).values(actor="mallory"))
    Sealer(world.database, world.clock).seal_once()
    assert verify(world.database, world.owner.workspace_id).is_intact
    assert verify(world.database, world.owner.workspace_id, anchor=anchor).problem == "cut"


def test_several_sealers_and_writers_at_once_leave_one_whole_chain(world: World) -> None:
    def keep_sealing() -> None:
        for _ in range(6):
            Sealer(world.database, world.clock).seal_once()

    write = partial(write_events, world, 10)
    assert run_together(write, write, write, keep_sealing, keep_sealing, keep_sealing) == [None] * 6
    Sealer(world.database, world.clock).seal_once()
    found = verify(world.database, world.owner.workspace_id)
    assert (found.is_intact, found.unsealed, found.sealed) == (True, 0, 32)


def test_each_workspace_has_a_chain_of_its_own(world: World) -> None:
    other = make_world(world.database)
    Sealer(world.database, world.clock).seal_once()
    assert verify(world.database, world.owner.workspace_id).sealed == 2
    assert verify(world.database, other.owner.workspace_id).sealed == 2


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def test_any_facts_come_back_as_they_were_sealed(world: World) -> None:
    @given(st.dictionaries(st.sampled_from("abc"), json_values, max_size=3))
    def holds(facts: dict[str, JsonValue]) -> None:
        with world.database.write() as session:
            audit.record(session, world.owner, world.clock, action="test.act", subject="x", facts=facts)
        Sealer(world.database, world.clock).seal_once()
        assert verify(world.database, world.owner.workspace_id).is_intact

    holds()


@pytest.mark.parametrize("text", ["", "1", "1:abc", "x:" + 64 * "0", "1:" + 64 * "G", "²:" + 64 * "0"])
def test_what_is_no_anchor_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_anchor(text)


def test_the_log_is_filtered_by_subject_and_action_in_either_order(world: World) -> None:
    world.model("churn")
    write_events(world, 3)
    log = AuditLog(world.database)
    assert [event.action for event in log.list(world.owner, PageRequest(), subject="churn").items] == ["model.create"]
    newest = log.list(world.owner, PageRequest(size=2), action="test.act", newest_first=True)
    assert [event.subject for event in newest.items] == ["thing/2", "thing/1"]
    rest = log.list(
        world.owner, PageRequest(size=2, token=newest.next_page_token), action="test.act", newest_first=True
    )
    assert [event.subject for event in rest.items] == ["thing/0"]
    with pytest.raises(InvalidInput):
        log.list(world.owner, PageRequest(), subject="a\0b")


def test_the_hash_of_an_event_is_that_of_its_documented_form() -> None:
    """What auditors compute with tools of their own: it never changes for format 1."""
    members = {
        "format": 1,
        "workspace_id": "acme",
        "id": "01957f2e-7c00-7000-8000-000000000001",
        "residency": "eu",
        "actor": "ana",
        "action": "model.promote",
        "subject": "churn/3",
        "facts": {"limit": "0.9", "to": 3},
        "happened_at": "2026-03-01T12:00:00.000000Z",
        "sequence": 1,
        "previous_hash": "0" * 64,
    }
    text = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    expected = hashlib.sha256(text.encode()).hexdigest()
    row = AuditEventRow(
        **{name: members[name] for name in ("workspace_id", "id", "residency", "actor", "action", "subject", "facts")},
        happened_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    )
    assert hash_event(audit.chained(row), sequence=1, previous_hash="0" * 64) == expected
    assert f"`{expected}`" in (Path(__file__).parents[2] / "docs/reference/format.md").read_text(encoding="utf-8")

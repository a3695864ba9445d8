from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from fairlead.core.errors import (
    AliasNotFound,
    Conflict,
    FairleadError,
    InvalidName,
    ModelNotFound,
    ModelVersionNotFound,
    NotReady,
    StaleRevision,
)
from fairlead.registry.audit import AuditLog
from fairlead.registry.paging import PageRequest
from fairlead.registry.policy import Policy
from fairlead.registry.version_registration import VersionDraft
from tests.record_world import World, run_together


@pytest.fixture
def churn(world: World) -> World:
    """A world with the model `churn` and two READY versions."""
    world.model()
    world.version()
    world.version()
    return world


def history(world: World, alias: str) -> list[tuple[str, int | None, int | None, int]]:
    moves = world.aliases.history(world.owner, "churn", alias, PageRequest()).items
    return [(move.kind, move.from_version, move.to_version, move.revision) for move in moves]


def test_each_move_makes_the_next_revision_and_is_kept(churn: World) -> None:
    first = churn.aliases.set(churn.owner, "churn", "champion", 1, expected_revision=0)
    second = churn.aliases.set(churn.owner, "churn", "champion", 2, expected_revision=1)
    churn.aliases.delete(churn.owner, "churn", "champion", expected_revision=2)
    churn.aliases.set(churn.owner, "churn", "champion", 1, expected_revision=3)
    assert (first.revision, second.revision) == (1, 2)
    assert history(churn, "champion") == [
        ("set", None, 1, 4),
        ("delete", 2, None, 3),
        ("set", 1, 2, 2),
        ("set", None, 1, 1),
    ]
    assert churn.refs_revision() == 4


def test_a_move_from_a_stale_revision_is_refused_and_changes_nothing(churn: World) -> None:
    churn.aliases.set(churn.owner, "churn", "champion", 1, expected_revision=0)
    for stale in (0, 2, 10**18):
        with pytest.raises(StaleRevision) as refused:
            churn.aliases.set(churn.owner, "churn", "champion", 2, expected_revision=stale)
        assert refused.value.attributes == {"expected": stale, "actual": 1}
    assert churn.aliases.get(churn.owner, "churn", "champion").version == 1
    assert churn.refs_revision() == 1


def test_a_move_and_its_audit_event_are_one(churn: World) -> None:
    churn.aliases.set(churn.owner, "churn", "champion", 1, expected_revision=0)
    (event,) = AuditLog(churn.database).list(churn.owner, PageRequest(), action="alias.set").items
    assert (event.actor, event.subject) == ("ana", "churn/1")
    assert event.facts == {"alias": "champion", "from": None, "to": 1, "revision": 1, "reason": ""}


def test_an_alias_never_names_bytes_that_are_not_verified(churn: World) -> None:
    churn.versions.register(churn.owner, "churn", VersionDraft(upload_id=churn.upload()))
    with pytest.raises(NotReady):
        churn.aliases.set(churn.owner, "churn", "champion", 3, expected_revision=0)


def test_an_environment_is_moved_by_promotion_only(churn: World) -> None:
    with pytest.raises(Conflict, match="promotion"):
        churn.aliases.set(churn.owner, "churn", "production", 1, expected_revision=0)
    with pytest.raises(Conflict, match="promotion"):
        churn.aliases.delete(churn.owner, "churn", "production", expected_revision=0)


def test_a_name_that_is_an_alias_cannot_become_an_environment(churn: World) -> None:
    churn.aliases.set(churn.owner, "churn", "canary", 1, expected_revision=0)
    with pytest.raises(Conflict, match="alias"):
        churn.environments.put(churn.owner, "canary", rank=15, wanted=Policy(), expected_revision=0)


@pytest.mark.parametrize("alias", ["latest", "LATEST", "v1", "V22", "", "a/b", "a\0", "a@b"])
def test_a_reserved_or_misleading_alias_is_refused(churn: World, alias: str) -> None:
    with pytest.raises(InvalidName):
        churn.aliases.set(churn.owner, "churn", alias, 1, expected_revision=0)


def test_what_does_not_exist_is_not_found(churn: World) -> None:
    calls: list[tuple[Callable[[], object], type[FairleadError]]] = [
        (lambda: churn.aliases.set(churn.owner, "fraud", "a", 1, expected_revision=0), ModelNotFound),
        (lambda: churn.aliases.set(churn.owner, "churn", "a", 9, expected_revision=0), ModelVersionNotFound),
        (lambda: churn.aliases.set(churn.owner, "churn", "a", 2**63, expected_revision=0), ModelVersionNotFound),
        (lambda: churn.aliases.delete(churn.owner, "churn", "a", expected_revision=0), AliasNotFound),
        (lambda: churn.aliases.get(churn.owner, "churn", "a"), AliasNotFound),
        (lambda: churn.aliases.history(churn.owner, "fraud", "a", PageRequest()), ModelNotFound),
    ]
    for call, error in calls:
        with pytest.raises(error):
            call()


def test_an_environment_that_was_never_set_is_at_revision_zero(churn: World) -> None:
    found = churn.aliases.get(churn.owner, "churn", "production")
    assert (found.version, found.revision) == (None, 0)
    assert history(churn, "production") == []


def test_a_models_pointers_are_listed_without_deleted_ones(churn: World) -> None:
    churn.aliases.set(churn.owner, "churn", "b", 1, expected_revision=0)
    churn.aliases.set(churn.owner, "churn", "a", 2, expected_revision=0)
    churn.aliases.delete(churn.owner, "churn", "b", expected_revision=1)
    listed = churn.aliases.list(churn.owner, "churn", PageRequest()).items
    assert [(alias.name, alias.version, alias.revision) for alias in listed] == [("a", 2, 1)]
    assert churn.models.get(churn.owner, "churn").aliases == {"a": 2}


def test_of_sixteen_who_move_one_alias_from_one_revision_exactly_one_wins(churn: World) -> None:
    movers, rounds = 16, 5
    outcomes: Counter[tuple[int, str]] = Counter()
    for revision in range(rounds):
        moves = [
            partial(churn.aliases.set, churn.owner, "churn", "champion", 1 + mover % 2, expected_revision=revision)
            for mover in range(movers)
        ]
        for outcome in run_together(*moves):
            said = outcome.code if isinstance(outcome, FairleadError) else f"made {outcome.revision}"
            outcomes[revision, said] += 1
    assert outcomes == Counter(
        {(revision, f"made {revision + 1}"): 1 for revision in range(rounds)}
        | {(revision, "stale-revision"): movers - 1 for revision in range(rounds)}
    )
    assert [revision for *_, revision in history(churn, "champion")] == list(range(rounds, 0, -1))
    assert churn.refs_revision() == rounds

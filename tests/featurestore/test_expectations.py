"""Expectations: a snapshot that is not as expected is neither served nor promoted with, and its numbers say why."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.errors import (
    ExpectationFailed,
    ExpectationsNotFound,
    FeatureServiceNotFound,
    FeatureViewNotFound,
    InvalidInput,
    StaleRevision,
)
from fairlead.featurestore.expectation_sets import ExpectationSets
from fairlead.featurestore.expectations import from_json
from fairlead.featurestore.releases import is_releasable
from fairlead.featurestore.snapshot_checks import CHECK, SnapshotFindings, snapshot_checks
from fairlead.featurestore.snapshots import Snapshot, find_snapshot, newest_snapshot
from fairlead.sync.worker import Worker
from tests.featurestore.feature_fleet import FeatureFleet, day, open_feature_fleet
from tests.fleet import ADMIN
from tests.records import WORKSPACE

ROWS = [(patient, number / 2, 10.0 + patient + number) for patient in range(1, 6) for number in range(4)]
GENES = [(patient, 0.0, "BRCA1") for patient in range(1, 6)]

WRONG: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"service": "diagnosis", "view": "cells", "expectations": [{"kind": "rows", "min": 1}]}, InvalidInput),
    ({"service": "diagnosis", "expectations": []}, InvalidInput),
    ({"service": "diagnosis", "expectations": [{"kind": "rows", "min": 1}]}, InvalidInput),
    ({"service": "nowhere", "expectations": [{"kind": "rows", "view": "x", "min": 1}]}, FeatureServiceNotFound),
    ({"view": "nowhere", "expectations": [{"kind": "rows", "min": 1}]}, FeatureViewNotFound),
    ({"view": "cells", "expectations": [{"kind": "rows"}]}, InvalidInput),
    ({"view": "cells", "expectations": [{"kind": "rows", "min": 2, "max": 1}]}, InvalidInput),
    ({"view": "cells", "expectations": [{"kind": "nulls", "at_most": 0.1}]}, InvalidInput),
    ({"view": "cells", "expectations": [{"kind": "nulls", "feature": "no", "at_most": 0.1}]}, InvalidInput),
    ({"view": "cells", "expectations": [{"kind": "nulls", "feature": "radius", "at_most": 2}]}, InvalidInput),
    ({"view": "cells", "expectations": [{"kind": "freshness", "at_most": 3}]}, InvalidInput),
    ({"view": "cells", "expectations": [{"kind": "freshness", "at_most": "soon"}]}, InvalidInput),
    ({"view": "cells", "expectations": [{"kind": "drift", "feature": "radius"}]}, InvalidInput),
    ({"view": "cells", "expectations": [{"kind": "values", "feature": "radius", "allowed": ["a"]}]}, InvalidInput),
    ({"view": "genes", "expectations": [{"kind": "range", "feature": "marker", "min": 1}]}, InvalidInput),
    ({"view": "cells", "expectations": [{"kind": "rows", "min": 1}, {"kind": "rows", "min": 2}]}, InvalidInput),
    ({"view": "cells", "expectations": [{"kind": "rows", "min": 1, "severity": "bad"}]}, InvalidInput),
]


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[FeatureFleet]:
    with open_feature_fleet(tmp_path, database_url) as opened:
        opened.cells(ROWS)
        opened.genes(GENES)
        opened.apply(opened.definitions())
        yield opened


def expect(fleet: FeatureFleet, *items: dict[str, Any], name: str = "quality", **about: str) -> None:
    expected = from_json({**(about or {"service": "diagnosis"}), "expectations": items})
    sets(fleet).put(ADMIN, name, expected, expected_revision=None)


def sets(fleet: FeatureFleet) -> ExpectationSets:
    return ExpectationSets(fleet.fleet.database, fleet.fleet.clock)


def results(fleet: FeatureFleet, snapshot: Snapshot) -> dict[str, tuple[bool, Any]]:
    """By name and measure: whether it passed, and the value."""
    with fleet.fleet.database.read() as session:
        rows = snapshot_checks(session, find_snapshot(session, WORKSPACE, snapshot.id))
        return {
            f"{each['name']} {each['measure']}": (each["passed"], each["value"])
            for row in rows
            for each in row.results or []
        }


def released(fleet: FeatureFleet, snapshot: Snapshot) -> bool:
    with fleet.fleet.database.read() as session:
        return is_releasable(session, find_snapshot(session, WORKSPACE, snapshot.id))


def newest(fleet: FeatureFleet) -> str | None:
    with fleet.fleet.database.read() as session:
        row = newest_snapshot(session, WORKSPACE, "diagnosis")
        return None if row is None else row.id


def test_every_kind_is_measured_against_its_limit(fleet: FeatureFleet) -> None:
    expect(
        fleet,
        {"kind": "nulls", "view": "cells", "feature": "radius", "at_most": 0.1},
        {"kind": "range", "view": "cells", "feature": "radius", "min": 0, "max": 15.5, "severity": "warning"},
        {"kind": "values", "view": "genes", "feature": "marker", "allowed": ["BRCA2"], "severity": "warning"},
        {"kind": "unique", "view": "cells"},
        {"kind": "unique", "name": "one-row-each", "by": "keys", "view": "cells", "severity": "warning"},
        {"kind": "rows", "view": "cells", "min": 10, "max": 30, "change_at_most": 0.2},
        {"kind": "freshness", "view": "cells", "at_most": "36h"},
        {"kind": "drift", "view": "cells", "feature": "radius", "psi_at_most": 0.2, "ks_at_most": 0.2},
    )
    taken = fleet.snapshot(as_of=day(2))
    assert results(fleet, taken) == {
        "radius-nulls share of missing values": (True, 0.0),
        "radius-range share of values out of range": (False, 0.3),
        "cells-unique share of repeated rows": (True, 0.0),
        "one-row-each share of repeated rows": (False, 0.75),
        "cells-rows rows": (True, 20.0),
        "cells-rows change of rows": (True, None),
        "cells-freshness age of the last event": (True, 12 * 3600.0),
        "radius-drift PSI": (True, None),
        "radius-drift KS": (True, None),
        # Of data that stays in the EU the record, which is nowhere in particular, holds no value.
        "marker-values share of values that are not allowed": (False, None),
    }
    assert released(fleet, taken)


def test_what_drifts_is_not_served_and_the_one_before_still_is(fleet: FeatureFleet) -> None:
    expect(fleet, {"kind": "drift", "view": "cells", "feature": "radius", "psi_at_most": 0.25, "ks_at_most": 0.3})
    good = fleet.snapshot(as_of=day(2))
    fleet.store.online.materialize(ADMIN, "diagnosis")
    fleet.fleet.settle()
    fleet.run()
    fleet.cells([*ROWS, *((patient, 3.0 + n / 10, 900.0) for patient in range(1, 6) for n in range(6))])
    bad = fleet.snapshot(as_of=day(4))
    found = results(fleet, bad)
    assert not found["radius-drift PSI"][0]
    assert not found["radius-drift KS"][0]
    assert found["radius-drift KS"][1] == pytest.approx(0.6)
    assert not released(fleet, bad)
    assert newest(fleet) == good.id
    with pytest.raises(ExpectationFailed):
        fleet.store.online.materialize(ADMIN, "diagnosis", snapshot=bad.digest)
    assert {state.snapshot for state in fleet.store.online.states(ADMIN, "diagnosis")} <= {good.digest, None}


def test_a_snapshot_waits_until_it_was_checked(fleet: FeatureFleet) -> None:
    expect(fleet, {"kind": "rows", "min": 1}, view="cells")
    taken = fleet.store.snapshots.take(ADMIN, "diagnosis")
    duties = fleet.fleet.duties
    handlers = {kind: each for kind, each in fleet.store.handlers.items() if kind != CHECK}
    derivers = [*duties.derivers, *fleet.store.derivers(None)]
    Worker(
        fleet.fleet.database,
        fleet.fleet.clock,
        regions=None,
        handlers={**duties.handlers, **handlers},
        derivers=derivers,
    ).run_until_idle()
    assert fleet.store.snapshots.get(ADMIN, taken.id).state == "READY"
    assert not released(fleet, taken)
    assert newest(fleet) is None
    fleet.run()
    assert released(fleet, taken)
    assert newest(fleet) == taken.id


def test_other_expectations_have_the_newest_snapshot_checked_anew(fleet: FeatureFleet) -> None:
    taken = fleet.snapshot(as_of=day(2))
    assert results(fleet, taken) == {}
    expect(fleet, {"kind": "rows", "view": "cells", "min": 1000})
    assert released(fleet, taken)
    fleet.run()
    assert not released(fleet, taken)
    sets(fleet).delete(ADMIN, "quality", expected_revision=1)
    assert released(fleet, taken)
    with pytest.raises(ExpectationsNotFound):
        sets(fleet).get(ADMIN, "quality")


def test_sets_that_could_not_be_checked_are_refused(fleet: FeatureFleet) -> None:
    for document, error in WRONG:
        with pytest.raises(error):
            sets(fleet).put(ADMIN, "quality", from_json(document), expected_revision=None)


def test_unknown_members_and_kinds_are_refused() -> None:
    for item in ({"kind": "magic"}, {"kind": "rows", "minimum": 1}):
        with pytest.raises(InvalidInput):
            from_json({"view": "cells", "expectations": [item]})


def test_a_set_is_replaced_only_as_it_was_seen(fleet: FeatureFleet) -> None:
    expect(fleet, {"kind": "rows", "min": 1}, view="cells")
    expect(fleet, {"kind": "rows", "min": 1}, view="cells")
    assert sets(fleet).get(ADMIN, "quality").revision == 1
    with pytest.raises(StaleRevision):
        sets(fleet).delete(ADMIN, "quality", expected_revision=7)


def test_findings_tell_promotions_the_value_and_the_limit(fleet: FeatureFleet) -> None:
    expect(fleet, {"kind": "rows", "min": 1000}, view="cells")
    taken = fleet.snapshot(as_of=day(2))
    (found,) = SnapshotFindings(fleet.fleet.database).findings(WORKSPACE, taken.digest or "")
    assert (found.name, found.measure, found.value, found.limit) == ("quality: rows", "rows", 20.0, ">= 1000")
    assert found.is_required
    assert not found.is_passed

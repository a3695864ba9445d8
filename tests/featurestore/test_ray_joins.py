"""Historical joins and materialization on a Ray cluster of several processes: the same rows as without it."""

from __future__ import annotations

import pickle
import random
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from fairlead.core.errors import InvalidInput
from fairlead.featurestore import feast_offline
from fairlead.featurestore.ray_joins import join_in_shares
from tests.featurestore.test_feast_offline import Repository, at, frame
from tests.servers.ray_cluster import ray_cluster

pytestmark = [
    pytest.mark.timeout(240),
    # Ray's own, at import and at its end, and Feast's.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def cluster() -> Generator[None]:
    with ray_cluster():
        yield


def fill(found: Repository) -> Repository:
    """Pulses of forty patients, with ties and corrections, and a view about nobody."""
    from feast.types import Float64, Int64

    chance = random.Random(7)
    count = 400
    hours = [chance.randrange(50) for _ in range(count)]
    source = found.source(
        "pulses",
        {
            "patient_id": [chance.randrange(40) for _ in range(count)],
            "pulse": [chance.randrange(50, 90) for _ in range(count)],
            "noise": [chance.choice([None, 0.5, float("nan"), 1.0]) for _ in range(count)],
            "event_timestamp": [at(hour) for hour in hours],
            "created": [at(hour + chance.randrange(3)) for hour in hours],
        },
        created_timestamp_column="created",
    )
    year = found.source("year", {"flu": [7, 8], "event_timestamp": [at(0), at(30)]})
    views = [
        found.view("pulses", source, {"pulse": Int64, "noise": Float64}, ttl=timedelta(hours=8)),
        found.view("year", year, {"flu": Int64}, entities=[]),
    ]
    found.store.apply([found.patient, source, year, *views])
    return found


def ask(repository: Repository) -> Any:
    chance = random.Random(8)
    rows = [(chance.choice([*range(44), None]), at(chance.randrange(55))) for _ in range(300)]
    wanted = ["pulses:pulse", "pulses:noise", "year:flu"]
    return repository.ask(frame(rows).assign(label=range(300)), *wanted).to_arrow()


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_shares_that_other_processes_join_give_the_rows_of_all_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    repository = fill(Repository(tmp_path))
    whole = ask(repository)
    sizes: list[int] = []

    def elsewhere(join: Any, rows: Any, keys: Any, **_: Any) -> Any:
        shipped: Any = cloudpickle.dumps(join)

        def run(shares: Any) -> list[Any]:
            sizes.extend(share.num_rows for share in shares)
            return [pickle.loads(shipped)(share) for share in shares]

        return join_in_shares(run, rows, keys, count)

    monkeypatch.setattr(feast_offline, "join_on_ray", elsewhere)
    shared = ask(Repository(tmp_path, offline={"engine": "ray"}))
    assert str(shared.to_pylist()) == str(whole.to_pylist())
    assert shared.schema == whole.schema
    assert sum(sizes) == 300
    assert len(sizes) == count or count > 40


def test_a_cluster_gives_the_rows_of_the_embedded_engine_in_their_order(cluster: None, tmp_path: Path) -> None:
    del cluster
    on_ray = Repository(tmp_path, offline={"engine": "ray", "ray_share_rows": 50})
    tables = [ask(fill(Repository(tmp_path))), ask(on_ray)]
    assert tables[0].column_names == tables[1].column_names
    assert tables[0].schema == tables[1].schema
    # (compared as text, in which what is not a number equals itself)
    assert str(tables[0].to_pylist()) == str(tables[1].to_pylist())
    assert tables[0]["pulse"].null_count < 300

    with pytest.raises(InvalidInput, match="patient_id"):
        on_ray.ask(frame([("no number", at(1))]), "pulses:pulse").to_arrow()


def test_the_ray_compute_engine_of_feast_materializes_what_the_local_one_does(cluster: None, tmp_path: Path) -> None:
    del cluster
    from feast.types import Int64

    # No two rows of one time, of which Feast's engines take any, and none that is past its time to live by now, which
    # its Ray engine leaves out.
    rows = [(patient, hour) for hour in (5, 9, 1) for patient in range(40)]
    columns: dict[str, Any] = {
        "patient_id": [patient for patient, _ in rows],
        "pulse": [50 + patient + hour for patient, hour in rows],
        "event_timestamp": [at(hour) for _, hour in rows],
    }
    found: list[Any] = []
    for engine in ("local", "ray.engine"):
        folder = tmp_path / engine
        folder.mkdir()
        repository = Repository(folder, batch_engine={"type": engine})
        source = repository.source("pulses", columns)
        repository.store.apply([repository.patient, source, repository.view("pulses", source, {"pulse": Int64})])
        repository.store.materialize(start_date=at(-1), end_date=at(60), feature_views=["pulses"])
        answer = repository.store.get_online_features(
            features=["pulses:pulse"], entity_rows=[{"patient_id": number} for number in range(40)]
        )
        found.append(answer.to_dict()["pulse"])
    assert found == [[59 + patient for patient in range(40)]] * 2

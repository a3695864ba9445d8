"""Lineage is asked from either end and shows the whole way between."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import select

from fairlead.cli.lineage import render_tree
from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput, NotFound
from fairlead.core.ids import sha256_digest
from fairlead.featurestore.tables import SnapshotRow
from fairlead.registry.identity import Reach
from fairlead.registry.tables import RegisteredModelRow
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.visibility import Narrowed, begin_access
from fairlead.sdk.lineage import Lineage as LineageRecord
from fairlead.serving.api_lineage import LineageOut
from fairlead.serving.lineage import Lineage, LineageQuestion, Lineages
from fairlead.serving.tables import BundleRow, DeploymentRegionRow, DeploymentRow
from tests.record_world import World, make_world
from tests.records import open_record

SNAPSHOT, BUNDLE = sha256_digest(b"snapshot"), sha256_digest(b"bundle")


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_record(database_url) as database:
        yield make_world(database)


def ask(world: World, **question: str) -> Lineage:
    return Lineages(world.database, world.versions).ask(world.owner, LineageQuestion(**question))


def edges(found: Lineage) -> set[tuple[str, str]]:
    return {(edge.source, edge.target) for edge in found.edges}


def make_family(world: World) -> None:
    """churn/1 was trained on a snapshot; churn/2 from it, is built and deployed; fraud/1 is another's."""
    world.model()
    world.model("fraud")
    first = VersionDraft(
        upload_id=ready(world),
        run_id="run-1",
        code_commit="1a2b",
        snapshot_digest=SNAPSHOT,
        feature_service="diagnosis",
    )
    world.versions.register(world.owner, "churn", first)
    second = VersionDraft(upload_id=ready(world), run_id="run-2", parent_version=1)
    world.versions.register(world.owner, "churn", second)
    world.versions.register(world.owner, "fraud", VersionDraft(upload_id=ready(world), run_id="run-3"))
    world.aliases.set(world.owner, "churn", "champion", version=2, expected_revision=0)
    serve(world.database, world)


def ready(world: World) -> str:
    upload = world.upload()
    world.verify(upload)
    return upload


def serve(database: Database, world: World) -> None:
    now = world.clock.now()
    workspace = world.owner.workspace_id
    with database.write() as session:
        model_id = session.scalars(
            select(RegisteredModelRow.id).where(
                RegisteredModelRow.workspace_id == workspace, RegisteredModelRow.name == "churn"
            )
        ).one()
        session.add(
            SnapshotRow(
                workspace_id=workspace,
                service="diagnosis",
                service_digest=sha256_digest(b"service"),
                as_of=now,
                state="READY",
                digest=SNAPSHOT,
                created_by="ana",
                created_at=now,
            )
        )
        session.add(
            BundleRow(
                workspace_id=workspace,
                model_id=model_id,
                version=2,
                residency="unrestricted",
                recipe=sha256_digest(b"recipe"),
                state="READY",
                digest=BUNDLE,
                created_by="ana",
                created_at=now,
            )
        )
        deployment = DeploymentRow(
            workspace_id=workspace,
            name="churn-eu",
            model_id=model_id,
            residency="unrestricted",
            version=2,
            state="ACTIVE",
            created_by="ana",
            created_at=now,
            updated_at=now,
        )
        session.add(deployment)
        session.flush()
        session.add(
            DeploymentRegionRow(
                workspace_id=workspace,
                deployment_id=deployment.id,
                region="aws:us-east-1",
                position=0,
                state="RUNNING",
                wanted_revision=1,
                version=2,
                bundle_digest=BUNDLE,
                updated_at=now,
            )
        )


WHOLE = {
    ("feature-service:diagnosis", f"snapshot:{SNAPSHOT}"),
    (f"snapshot:{SNAPSHOT}", "version:churn/1"),
    ("run:run-1", "version:churn/1"),
    ("commit:1a2b", "version:churn/1"),
    ("version:churn/1", "version:churn/2"),
    ("run:run-2", "version:churn/2"),
    ("version:churn/2", "alias:churn@champion"),
    ("version:churn/2", f"bundle:{BUNDLE}"),
    (f"bundle:{BUNDLE}", "deployment:churn-eu"),
}


def test_the_same_way_is_shown_from_either_end(world: World) -> None:
    make_family(world)
    for question in (
        {"version": "churn/1"},
        {"version": "churn@champion"},
        {"snapshot": SNAPSHOT},
        {"bundle": BUNDLE},
        {"run": "run-1"},
        {"commit": "1a2b"},
    ):
        found = ask(world, **question)
        assert edges(found) == WHOLE, question
        assert found.is_whole
    assert ask(world, bundle=BUNDLE).roots == (f"bundle:{BUNDLE}",)
    assert edges(ask(world, run="run-3")) == {("run:run-3", "version:fraud/1")}
    deployed = next(node for node in found.nodes if node.kind == "deployment")
    assert deployed.facts["regions"] == {"aws:us-east-1": "2 RUNNING"}


def test_what_nothing_is_known_of_is_not_found(world: World) -> None:
    make_family(world)
    for question in (
        {"run": "run-9"},
        {"commit": "ffff"},
        {"bundle": SNAPSHOT},
        {"snapshot": BUNDLE},
        {"version": "x/1"},
    ):
        with pytest.raises(NotFound):
            ask(world, **question)
    for wrong in ({}, {"run": "run-1", "commit": "1a2b"}, {"snapshot": "latest"}):
        with pytest.raises(InvalidInput):
            ask(world, **wrong)


def test_who_sees_some_models_sees_what_their_versions_came_from_and_became_and_nothing_else(world: World) -> None:
    make_family(world)
    for models, seen in (("churn", {"run-1", "run-2"}), ("fraud", {"run-3"})):
        reach = Reach(scopes=["read"], models=[models])
        issued = world.tokens.create(world.owner, name=models, principal="eve", reach=reach)
        caller = world.tokens.authenticate(issued.secret)
        lineages = Lineages(world.database, world.versions)
        with access_of(Narrowed(caller=caller, scope="read")):
            for run in ("run-1", "run-2", "run-3"):
                if run in seen:
                    assert lineages.ask(caller, LineageQuestion(run=run)).nodes
                else:
                    with pytest.raises(NotFound):
                        lineages.ask(caller, LineageQuestion(run=run))
            if models == "churn":
                assert edges(lineages.ask(caller, LineageQuestion(snapshot=SNAPSHOT))) == WHOLE
                continue
            for hidden in ({"snapshot": SNAPSHOT}, {"bundle": BUNDLE}, {"commit": "1a2b"}, {"version": "churn/1"}):
                with pytest.raises(NotFound):
                    lineages.ask(caller, LineageQuestion(**hidden))


@contextmanager
def access_of(narrowed: Narrowed) -> Generator[None]:
    """Let what runs in the block be a request of a narrowed caller."""
    begin_access().narrowed = narrowed
    try:
        yield
    finally:
        begin_access()


def test_it_is_drawn_as_what_it_was_made_from_and_what_was_made_of_it(world: World) -> None:
    make_family(world)
    answer = LineageOut.model_validate(ask(world, version="churn/2")).model_dump(mode="json")
    graph = LineageRecord.from_json(answer)
    assert [node.name for node in graph.of("deployment")] == ["churn-eu"]
    drawn = render_tree(graph.to_json())
    above, below = drawn.split("made of it")
    assert "churn/1" in above
    assert "run-1" in above
    assert "feature-service diagnosis" in above
    assert "deployment churn-eu" in below
    assert "deployment" not in above

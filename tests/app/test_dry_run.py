"""One header rehearses any change: the real application answers it as ever, and keeps nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from fairlead.app.embedded import EMBEDDED_REGIONS
from fairlead.app.http import create_app
from fairlead.app.schema import metadata
from fairlead.app.service import Service
from fairlead.app.settings import ServerSettings
from fairlead.catalog import load_catalog
from fairlead.core.signatures import create_key, read_private_key, sign
from fairlead.registry.issuers import Issuers, Rule
from fairlead.registry.lifecycle import Lifecycle
from fairlead.registry.policy import Policy
from fairlead.registry.promotion_policies import PromotionPolicies
from fairlead.registry.promotion_policy import PromotionPolicy
from fairlead.registry.replica_policy import ReplicaPolicy
from fairlead.registry.retention import RetentionPolicies
from fairlead.registry.retention_policy import RetentionPolicy
from fairlead.registry.role_bindings import RoleBindings
from fairlead.registry.signers import SignerDraft, Signers
from fairlead.registry.tables import ArtifactRow, LocationRow, ModelVersionRow, ReplicaRow
from fairlead.registry.tables_webhooks import WebhookDeliveryRow, WebhookRow
from fairlead.registry.version_signatures import VersionSignatures
from fairlead.registry.webhooks import WebhookDraft
from fairlead.serving.deploy_targets import TargetDraft
from fairlead.serving.deployments import DeploymentDraft
from fairlead.serving.tables import BundleRow
from fairlead.serving.tables_targets import DeploymentRevisionRow
from fairlead.sync.budgets import Budgets
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.keyring import make_key_file
from fairlead.sync.worker import Worker
from fairlead.testing.clock import ManualClock
from tests.app.federation_calls import federation_calls
from tests.app.quality_calls import quality_calls
from tests.catalog.test_private import HARBOUR
from tests.featurestore.feature_fleet import FeatureFleet, entity_rows
from tests.featurestore.test_api import ipc
from tests.fleet import Fleet
from tests.record_world import LABELS, World
from tests.servers.identity_issuer import LoopbackIssuer, loopback_issuer

DRY = {"fairlead-dry-run": "true"}
BASE = "sha256:" + "0" * 64
READS = {
    "POST /features/historical",
    "POST /features/online",
    "POST /features/plan",
    "POST /features/federated/join",
    "POST /webhooks/{name}/test",
    "POST /locations/backfill-plan",
    "POST /replications/plan",
    "POST /retention/plan",
    "POST /uploads/{upload_id}/bases",
    # Addresses change nothing by themselves; a rehearsal is given none (tests/sync/test_storage_access.py).
    "POST /artifacts/{digest}/addresses",
    "POST /uploads/{upload_id}/addresses",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that would change something, were it not for the header."""

    path: str
    body: Any = None
    if_match: int | None = None
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A service with one of everything."""

    service: Service
    world: World
    calls: dict[str, Call]
    http: TestClient

    def state(self) -> dict[str, Any]:
        """Every row of every table, and every file but the database's own."""
        with self.service.database.read() as session:
            rows = {
                table.name: sorted(repr(row) for row in session.execute(select(table)))
                for table in metadata().sorted_tables
            }
        files = {str(path) for path in self.service.home.rglob("*") if not path.name.startswith("fairlead.db")}
        return {**rows, "files": files}

    def send(self, route: str, headers: dict[str, str]) -> Any:
        call = self.calls[route]
        self.world.clock.advance(timedelta(seconds=1))
        fence = {} if call.if_match is None else {"if-match": f'"{call.if_match}"'}
        body: dict[str, Any] = {"json": call.body} if call.content is None else {"content": call.content}
        if call.content is not None:
            fence["content-type"] = "application/vnd.apache.arrow.stream"
        return self.http.request(
            route.partition(" ")[0], "/api/v1" + call.path, headers={**headers, **fence, **call.headers}, **body
        )


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    clock = ManualClock()
    make_key_file(tmp_path / "key")
    service = Service.build(
        ServerSettings(
            home=tmp_path / "home", key_file=[tmp_path / "key"], catalog_file=write_figures(tmp_path / "figures.yaml")
        ),
        clock,
        is_embedded=True,
    )
    try:
        secret = service.issue_owner_token()
        owner = service.tokens.authenticate(secret)
        world = World(database=service.database, clock=clock, owner_secret=secret, owner=owner)
        app = create_app(service, instance="one")
        with (
            TestClient(app, base_url="http://127.0.0.1", headers={"authorization": f"Bearer {secret}"}) as http,
            loopback_issuer() as issuer,
        ):
            yield Stage(service=service, world=world, calls=prepare(service, world, tmp_path, issuer), http=http)
    finally:
        service.close()


def write_figures(path: Path) -> Path:
    """A file of one figure, for the feed that reads one."""
    figure = "{kind: pue, region: aws:eu-west-1, value: 1.1, source: a report, licence: internal, date: 2026}"
    path.write_text(f"apiVersion: fairlead/v1\nkind: CatalogFigures\nspec: {{figures: [{figure}]}}\n")
    return path


def let_the_server_sign(service: Service, upload_location_id: str) -> tuple[str, str]:
    """Have clients ask for addresses; the digest of a snapshot's artifact, and where it is."""
    with service.database.write() as session:
        query = select(ReplicaRow).join(
            ArtifactRow,
            (ArtifactRow.digest == ReplicaRow.artifact_digest) & (ArtifactRow.residency == ReplicaRow.residency),
        )
        replica = session.scalars(query.where(ReplicaRow.state == "VERIFIED", ArtifactRow.kind == "snapshot")).first()
        assert replica is not None
        for location_id in {replica.location_id, upload_location_id}:
            place = session.get_one(LocationRow, (replica.workspace_id, location_id))
            # As of a location in a cloud; a rehearsal signs nothing, so folders will do.
            place.settings = {"client_access": "signed"}
        place = session.get_one(LocationRow, (replica.workspace_id, replica.location_id))
        return replica.artifact_digest, place.name


def prepare_locations(service: Service, world: World) -> None:
    """Three locations that all is in, and one that may be lost."""
    service.ensure_embedded_locations(EMBEDDED_REGIONS)
    place = (service.home / "stockholm").as_uri()
    service.locations.add(world.owner, name="stockholm", region="aws:eu-north-1", url=place)


def prepare(service: Service, world: World, folder: Path, issuer: LoopbackIssuer) -> dict[str, Call]:
    """Make one of everything, and say how each route is called on it."""
    prepare_locations(service, world)
    features = FeatureFleet(fleet=Fleet(root=folder, database=service.database), store=service.features, sources=folder)
    features.cells([(1, 0, 1.0), (2, 2, 2.5)])
    features.genes([(1, 1, "a")])
    objects = features.definitions(streamSource={"name": "measurements", "type": "PUSH_SOURCE"})
    service.features.definitions.apply(world.owner, objects)
    taken = service.features.snapshots.take(world.owner, "diagnosis")
    worker = Worker(
        service.database,
        world.clock,
        regions=None,
        handlers={**service.duties.handlers, **service.features.handlers},
        derivers=[*service.duties.derivers, *service.features.derivers(None)],
    )
    worker.run_until_idle()
    service.features.online.materialize(world.owner, "diagnosis")
    worker.run_until_idle()
    assert service.features.snapshots.get(world.owner, taken.id).state == "READY"

    world.model()
    version = world.version()
    world.replica(version, "aws:us-east-1")
    second = world.version()
    world.version()
    world.aliases.set(world.owner, "churn", "champion", 1, expected_revision=0)
    world.promotions.request(world.owner, "churn", 1, "dev", expected_revision=0)
    world.promotions.request(world.owner, "churn", 2, "dev", expected_revision=1)
    world.policy("production", Policy(approvals=1))
    requester = world.caller("bea", "promote")
    asked = world.promotions.request(requester, "churn", 1, "production", expected_revision=0)
    own = world.promotions.request(world.owner, "churn", 1, "production", expected_revision=0)
    PromotionPolicies(service.database, world.clock).put(
        world.owner, "churn-staging", PromotionPolicy(environments=("staging",)), expected_revision=0
    )
    binding = RoleBindings(service.database, world.clock).bind(world.owner, principal="ben", role="on-call")
    Issuers(service.database, world.clock).put(
        world.owner,
        "github",
        issuer=issuer.url,
        audience="https://fairlead.example",
        rules=[Rule(claims={"sub": "job"}, principal="ci", scopes=("read",))],
    )
    token = world.tokens.create(world.owner, name="ci", principal="ci", scopes=["read"]).token
    upload = service.uploads.begin(world.owner, kind="model", residency="unrestricted")
    domain = DedupDomain("default", "unrestricted")
    layout = f"{domain.layout_prefix()}{'0' * 64}/one"
    signed = let_the_server_sign(service, upload.location.id)
    key = service.keys.create(world.owner, provider="file")
    draft = DeploymentDraft(model="churn", version=1, regions=("aws:us-east-1",), name="live")
    service.serving.deployments.apply(world.owner, draft)
    prepare_deployments(service, world, draft)
    bundle = ready_bundle(service, world)
    budgets = Budgets(service.database, clock=world.clock, catalog=load_catalog())
    budgets.put(world.owner, "egress", limit_usd="50")
    service.replica_policies.put(world.owner, "all", ReplicaPolicy(), expected_revision=0)
    labels = {"owner": LABELS.owner, "team": LABELS.team, "cost_centre": LABELS.cost_centre}
    service.tracking_servers.add(world.owner, name="lab", url="http://127.0.0.1:5000")
    envelope = prepare_lifecycle(service, world)
    listed = service.features.servers.register(world.owner, region="aws:us-east-1", url="http://127.0.0.1:6570").id
    hook = WebhookDraft(name="ops", url="https://hooks.example.org/ops")
    service.webhooks.webhooks.create(world.owner, hook)
    told = dead_letter(service, world)
    service.catalog.regions.put(world.owner, "edge:quay-1", HARBOUR, expected_revision=0)
    believed: dict[str, Any] = {
        "issuer": "https://issuer.example",
        "audience": "https://fairlead.example",
        "rules": [{"claims": {"sub": "job"}, "principal": "ci", "scopes": ["read"]}],
    }
    return {
        **{route: Call(**members) for route, members in federation_calls(service, world).items()},
        **{route: Call(**members) for route, members in quality_calls(service, world).items()},
        "POST /features/services/{name}/checks": Call(
            path="/features/services/diagnosis/checks", body={"kind": "parity"}
        ),
        "PUT /features/servers": Call(
            path="/features/servers", body={"region": "aws:us-east-1", "url": "https://features.example:6566"}
        ),
        "POST /features/servers/{server}/heartbeat": Call(path=f"/features/servers/{listed}/heartbeat"),
        "DELETE /features/servers/{server}": Call(path=f"/features/servers/{listed}"),
        "PUT /issuers/{name}": Call(path="/issuers/gitlab", body=believed),
        "PUT /signers/{name}": Call(path="/signers/ci", body={"public_key": create_key()[1].decode()}),
        "POST /signers/{name}/revoke": Call(path="/signers/old/revoke", body={"reason": "Lost."}),
        "POST /models/{name}/versions/{version}/signatures": Call(
            path="/models/old/versions/1/signatures", body={"envelope": envelope}
        ),
        "POST /models/{name}/archive": Call(path="/models/spare/archive"),
        "POST /models/{name}/unarchive": Call(path="/models/attic/unarchive"),
        "POST /models/{name}/restore": Call(path="/models/gone/restore"),
        "DELETE /models/{name}": Call(path="/models/spare"),
        "POST /models/{name}/versions/{version}/archive": Call(path="/models/old/versions/3/archive"),
        "POST /models/{name}/versions/{version}/unarchive": Call(path="/models/old/versions/1/unarchive"),
        "POST /models/{name}/versions/{version}/restore": Call(path="/models/old/versions/2/restore"),
        "DELETE /models/{name}/versions/{version}": Call(path="/models/old/versions/3"),
        "PUT /models/{name}/card": Call(path="/models/old/card", body={"text": "# Old"}),
        "PUT /models/{name}/versions/{version}/card": Call(path="/models/old/versions/1/card", body={"text": "# 1"}),
        "PUT /retention-policies/{name}": Call(path="/retention-policies/more", body={"keep_last": 9}),
        "DELETE /retention-policies/{name}": Call(path="/retention-policies/few"),
        "POST /retention/plan": Call(path="/retention/plan", body={"drafts": {"few": {"keep_last": 2}}}),
        "POST /retention/run": Call(path="/retention/run"),
        "DELETE /issuers/{name}": Call(path="/issuers/github"),
        "PUT /catalog/regions/{region}": Call(path="/catalog/regions/edge:quay-2", body=HARBOUR),
        "DELETE /catalog/regions/{region}": Call(path="/catalog/regions/edge:quay-1"),
        "POST /catalog/feeds/{feed}/refresh": Call(path="/catalog/feeds/file/refresh", body={}),
        "POST /webhooks": Call(path="/webhooks", body={"name": "ci", "url": hook.url}),
        "PATCH /webhooks/{name}": Call(path="/webhooks/ops", body={"models": "churn-*"}),
        "POST /webhooks/{name}/rotate-secret": Call(path="/webhooks/ops/rotate-secret", body={}),
        "POST /webhooks/{name}/redeliver": Call(path="/webhooks/ops/redeliver", body={"deliveries": [told]}),
        "POST /webhooks/{name}/test": Call(path="/webhooks/ops/test"),
        "DELETE /webhooks/{name}": Call(path="/webhooks/ops"),
        "POST /tokens/exchange": Call(
            path="/tokens/exchange",
            body={"token": issuer.token(world.clock.now(), audience="https://fairlead.example", sub="job")},
        ),
        "PUT /promotion-policies/{name}": Call(
            path="/promotion-policies/churn-staging", body={"match": {"environments": ["staging"], "models": ["x*"]}}
        ),
        "DELETE /promotion-policies/{name}": Call(path="/promotion-policies/churn-staging"),
        "POST /role-bindings": Call(path="/role-bindings", body={"principal": "ana", "role": "on-call"}),
        "DELETE /role-bindings/{binding}": Call(path=f"/role-bindings/{binding.id}"),
        "POST /models/{name}/versions/{version}/evaluations": Call(
            path="/models/churn/versions/1/evaluations", body={"name": "fairness", "metrics": {"gap": 0.5}}
        ),
        "POST /promotions/{promotion}/withdraw": Call(path=f"/promotions/{own.id}/withdraw", body={}),
        "POST /tracking-servers": Call(
            path="/tracking-servers", body={"name": "plant", "url": "https://mlflow.example.org"}
        ),
        "DELETE /tracking-servers/{name}": Call(path="/tracking-servers/lab"),
        "POST /models": Call(path="/models", body={"name": "fraud", "labels": labels}),
        "PATCH /models/{name}": Call(path="/models/churn", body={"description": "changed", "tags": {"a": "b"}}),
        "POST /models/{name}/versions": Call(path="/models/churn/versions", body={"upload_id": version.upload_id}),
        "POST /models/{name}/imports": Call(
            path="/models/churn/imports",
            body={
                "origin": {"key": "churn/7", "version": 7, "created_at": "2026-01-02T03:04:05Z"},
                "upload_id": version.upload_id,
            },
        ),
        "PATCH /models/{name}/versions/{version}": Call(path="/models/churn/versions/1", body={"tags": {"a": "b"}}),
        "PUT /models/{name}/aliases/{alias}": Call(
            path="/models/churn/aliases/champion", body={"version": second.version}, if_match=1
        ),
        "DELETE /models/{name}/aliases/{alias}": Call(path="/models/churn/aliases/champion", if_match=1),
        "PUT /environments/{environment}": Call(
            path="/environments/dev", body={"rank": 11, "policy": {"approvals": 2}}, if_match=1
        ),
        "POST /models/{name}/promotions": Call(
            path="/models/churn/promotions", body={"version": 2, "environment": "staging"}, if_match=0
        ),
        "POST /promotions/{promotion}/approve": Call(path=f"/promotions/{asked.id}/approve", body={}),
        "POST /promotions/{promotion}/reject": Call(path=f"/promotions/{asked.id}/reject", body={}),
        "POST /models/{name}/environments/{environment}/rollback": Call(
            path="/models/churn/environments/dev/rollback", body={"reason": "worse"}, if_match=2
        ),
        "POST /tokens": Call(path="/tokens", body={"name": "eve", "principal": "eve", "scopes": ["read"]}),
        "DELETE /tokens/{token}": Call(path=f"/tokens/{token.id}"),
        "POST /tokens/{token}/rotate": Call(path=f"/tokens/{token.id}/rotate", body={}),
        "POST /workspaces": Call(path="/workspaces", body={"name": "risk"}),
        "POST /keys": Call(path="/keys", body={"provider": "file"}),
        "POST /keys/{key_id}/rotate": Call(path=f"/keys/{key.id}/rotate"),
        "POST /keys/{key_id}/retire": Call(path=f"/keys/{key.id}/retire"),
        "POST /locations": Call(
            path="/locations",
            body={"name": "dublin", "region": "aws:eu-west-1", "url": (service.home / "dublin").as_uri()},
        ),
        "POST /locations/backfill-plan": Call(
            path="/locations/backfill-plan",
            body={"name": "london", "region": "aws:eu-west-2", "url": (service.home / "london").as_uri()},
        ),
        "PATCH /locations/{name}": Call(path="/locations/azure-westeurope", body={"settings": {"min_warm": 0.5}}),
        "POST /locations/{name}/retirement": Call(path="/locations/azure-westeurope/retirement"),
        "POST /locations/{name}/loss": Call(path="/locations/stockholm/loss", body={"reason": "burnt down"}),
        "DELETE /locations/{name}/retirement": Call(path="/locations/azure-westeurope/retirement"),
        "PUT /replica-policies/{name}": Call(path="/replica-policies/all", body={"regions": ["aws:*"]}),
        "DELETE /replica-policies/{name}": Call(path="/replica-policies/all"),
        "PUT /budgets/{name}": Call(path="/budgets/egress", body={"limit_usd": "60"}),
        "DELETE /budgets/{name}": Call(path="/budgets/egress"),
        "POST /replications/plan": Call(path="/replications/plan", body={"of": "churn/1"}),
        "POST /upkeep": Call(path="/upkeep", body={"task": "scrub"}),
        "POST /uploads": Call(path="/uploads", body={"kind": "model"}),
        "POST /uploads/{upload_id}/bases": Call(path=f"/uploads/{upload.id}/bases", body={"model": "churn"}),
        "POST /uploads/{upload_id}/addresses": Call(
            path=f"/uploads/{upload.id}/addresses",
            body={"verb": "write", "keys": [f"{domain.pack_prefix()}00/{'0' * 64}.pack"]},
        ),
        "POST /artifacts/{digest}/addresses": Call(
            path=f"/artifacts/{signed[0]}/addresses", body={"location": signed[1]}
        ),
        "POST /uploads/{upload_id}/known-blocks": Call(path=f"/uploads/{upload.id}/known-blocks", body={"digests": []}),
        "POST /uploads/{upload_id}/complete": Call(
            path=f"/uploads/{upload.id}/complete",
            body={"artifact_digest": "sha256:" + "0" * 64, "layout_key": layout, "sent_bytes": 1},
        ),
        "POST /artifacts/{digest}/reports": Call(
            path=f"/artifacts/{version.artifact_digest}/reports",
            body={"location": "aws:us-east-1", "code": "corrupt-block"},
        ),
        "POST /artifacts/{digest}/verify": Call(path=f"/artifacts/{version.artifact_digest}/verify"),
        "POST /features/apply": Call(
            path="/features/apply",
            body={
                "objects": [
                    {"kind": each.kind, "spec": dict(each.spec)} for each in features.definitions(ttl="864001s")
                ]
            },
        ),
        "POST /features/services/{name}/snapshots": Call(path="/features/services/diagnosis/snapshots", body={}),
        "POST /features/push/{source}": Call(
            path="/features/push/measurements",
            body={"rows": [{"patient_id": 1, "event_timestamp": "2026-02-20T12:00:00Z", "radius": 2.0}]},
        ),
        "POST /features/historical": Call(
            path="/features/historical?service=diagnosis&region=gcp:europe-west4", content=ipc(entity_rows([(1, 5)]))
        ),
        "POST /features/services/{name}/feast/materialized": Call(
            path="/features/services/diagnosis/feast/materialized",
            body={
                "region": "aws:us-east-1",
                "store": "mine",
                "intervals": [
                    {
                        "view": "cells",
                        "snapshot": f"sha256:{'0' * 64}",
                        "start": "2026-01-01T00:00:00Z",
                        "end": "2026-01-02T00:00:00Z",
                    }
                ],
            },
        ),
        "POST /features/services/{name}/materialize": Call(
            path="/features/services/diagnosis/materialize", body={"regions": ["gcp:europe-west4"]}
        ),
        "POST /features/online": Call(
            path="/features/online",
            body={"service": "diagnosis", "entities": {"patient_id": [1]}, "region": "gcp:europe-west4"},
        ),
        "POST /placements": Call(
            path="/placements",
            body={
                "reference": "churn/1",
                "demand": [{"area": "london", "requests_per_second": 10.0}],
                "resources": {"vcpus": 1.0, "memory_gib": 2.0, "requests_per_second_per_replica": 10.0},
            },
        ),
        "POST /placements/fleet": Call(
            path="/placements/fleet",
            body={
                "models": [
                    {
                        "name": "churn",
                        "request": {
                            "demand": [{"area": "london", "requests_per_second": 10.0}],
                            "resources": {"vcpus": 1.0, "memory_gib": 2.0, "requests_per_second_per_replica": 10.0},
                        },
                    }
                ]
            },
        ),
        "POST /bundles": Call(path="/bundles", body={"reference": "churn/2"}),
        "POST /bundles/{bundle_id}/tests": Call(path=f"/bundles/{bundle}/tests"),
        "POST /bundles/{bundle_id}/image": Call(path=f"/bundles/{bundle}/image", body={"registries": ["harbour"]}),
        "POST /bundles/{bundle_id}/image/check": Call(path=f"/bundles/{bundle}/image/check"),
        "POST /bundles/{bundle_id}/profiles": Call(path=f"/bundles/{bundle}/profiles", body={}),
        "PUT /image-variants/{name}": Call(
            path="/image-variants/arm", body={"platform": "linux/arm64", "base": f"ghcr.io/base@{BASE}"}
        ),
        "DELETE /image-variants/{name}": Call(path="/image-variants/cpu"),
        "POST /container-registries": Call(
            path="/container-registries",
            body={
                "name": "second",
                "region": "gcp:europe-west4",
                "url": "https://europe-west4-docker.pkg.dev/project/images",
                "provider": "artifact-registry",
            },
        ),
        "DELETE /container-registries/{name}": Call(path="/container-registries/harbour"),
        "PUT /bundle-policies/{name}": Call(path="/bundle-policies/churn", body={"allows_pickle": True}),
        "POST /deployments": Call(
            path="/deployments", body={"model": "churn", "version": 2, "regions": ["aws:us-east-1"], "name": "live"}
        ),
        "DELETE /deployments/{name}": Call(path="/deployments/live"),
        "POST /deployments/{name}/rollback": Call(path="/deployments/live/rollback", body={"reason": "worse"}),
        "POST /deployments/{name}/replan": Call(path="/deployments/placed/replan"),
        "PUT /targets/{name}": Call(
            path="/targets/more",
            body={"kind": "bentocloud", "delivery": "folder", "delivery_settings": {"path": "/srv/manifests"}},
        ),
        "DELETE /targets/{name}": Call(path="/targets/plant"),
    }


def prepare_deployments(service: Service, world: World, draft: DeploymentDraft) -> None:
    """A revision to go back to, a deployment that was placed, and a target."""
    with service.database.write() as session:
        (revision,) = session.scalars(select(DeploymentRevisionRow))
        revision.state, revision.version, revision.bundle_digest = "LIVE", 1, "sha256:" + "0" * 64
    service.serving.deployments.apply(world.owner, draft)
    question = {
        "reference": "churn/1",
        "demand": [{"area": "london", "requests_per_second": 10.0}],
        "resources": {"vcpus": 1.0, "memory_gib": 2.0, "requests_per_second_per_replica": 10.0},
    }
    placement = service.serving.placements.create(world.owner, question)
    placed = DeploymentDraft(model="churn", version=1, name="placed", placement_id=placement.id)
    service.serving.deployments.apply(world.owner, placed)
    target = TargetDraft(
        kind="bentocloud", delivery="folder", settings={}, delivery_settings={"path": "/srv/manifests"}
    )
    service.serving.targets.put(world.owner, "plant", target, expected_revision=None)


def ready_bundle(service: Service, world: World) -> str:
    """The id of a bundle that is built."""
    bundle = service.serving.bundles.request(world.owner, "churn/1")
    harbour = service.serving.image_parts.registries
    host = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
    harbour.add(world.owner, name="harbour", region="aws:us-east-1", url=f"https://{host}", provider="ecr")
    harbour.set_variant(world.owner, "cpu", platform="linux/amd64", accelerators=(), base=f"ghcr.io/base@{BASE}")
    with service.database.write() as session:
        row = session.get_one(BundleRow, (world.owner.workspace_id, bundle.id))
        # As if the bundle were the version itself, so that it has a replica.
        version = session.get_one(ModelVersionRow, (row.workspace_id, row.model_id, row.version))
        row.state, row.digest = "READY", version.artifact_digest
    return bundle.id


def dead_letter(service: Service, world: World) -> str:
    """The id of a delivery that the webhook's receiver refused."""
    now = world.clock.now()
    with service.database.write() as session:
        (webhook,) = session.scalars(select(WebhookRow))
        webhook.position = 1
        row = WebhookDeliveryRow(
            workspace_id=webhook.workspace_id,
            webhook_id=webhook.id,
            sequence=1,
            action="model.create",
            subject="churn",
            state="DEAD",
            attempts=8,
            created_at=now,
            updated_at=now,
        )
        session.add(row)
        session.flush()
        return row.id


def prepare_lifecycle(service: Service, world: World) -> dict[str, Any]:
    """Models and versions in every state; the envelope of a signature of `old/1` that counts."""
    lifecycle = Lifecycle(service.database, world.clock)
    for name, versions in {"old": 3, "attic": 0, "gone": 0, "spare": 0, "surplus": 2}.items():
        world.model(name)
        for _ in range(versions):
            world.version(name)
    lifecycle.archive_model(world.owner, "attic", is_archived=True)
    lifecycle.delete_model(world.owner, "gone")
    lifecycle.archive_version(world.owner, "old", 1, is_archived=True)
    lifecycle.delete_version(world.owner, "old", 2)
    RetentionPolicies(service.database, world.clock).put(
        world.owner, "few", RetentionPolicy(models=("surplus",), keep_last=1), expected_revision=0
    )
    private, public = create_key()
    signers = Signers(service.database, world.clock)
    for name, key in {"release": public, "old": create_key()[1]}.items():
        signers.put(world.owner, name, SignerDraft(public_key=key.decode()), expected_revision=0)
    statement = VersionSignatures(service.database, world.clock).statement(world.owner, "old", 1)
    return sign(statement, read_private_key(private))


def test_any_change_can_be_rehearsed_and_leaves_no_trace(stage: Stage) -> None:
    document = stage.http.get("/openapi.json").json()
    routes = {
        f"{method.upper()} {path.removeprefix('/api/v1')}"
        for path, methods in document["paths"].items()
        for method in methods
        if method != "get"
    }
    assert routes == stage.calls.keys(), "every route that may change something is rehearsed here"
    for route in sorted(READS):  # they may fill a cache on disk
        answer = stage.send(route, DRY)
        assert answer.status_code == 200, f"{route}: {answer.text}"
    before = stage.state()
    for route in sorted(routes - READS):
        answer = stage.send(route, DRY)
        assert 200 <= answer.status_code < 300, f"{route}: {answer.text}"
        assert answer.headers["fairlead-dry-run"] == "true"
        assert {name for name, rows in stage.state().items() if rows != before[name]} == set(), route


def test_what_was_rehearsed_can_be_done(stage: Stage) -> None:
    """The calls above do change something, each of them; else their rehearsal would show nothing."""
    undone = {"POST /promotions/{promotion}/reject", "DELETE /models/{name}/aliases/{alias}"}  # excluded by others
    for route in sorted(stage.calls.keys() - READS - undone, reverse=True):
        before = stage.state()
        answer = stage.send(route, {})
        assert 200 <= answer.status_code < 300, f"{route}: {answer.text}"
        assert "fairlead-dry-run" not in answer.headers
        assert stage.state() != before, route


@pytest.mark.parametrize("value", ["True", "1", "yes", "", " true,true"])
def test_a_rehearsal_that_is_asked_for_wrongly_is_refused_rather_than_done(stage: Stage, value: str) -> None:
    before = stage.state()
    answer = stage.send("POST /models", {"fairlead-dry-run": value})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:fairlead:error:invalid-input"
    assert stage.state() == before


def test_the_header_may_say_no(stage: Stage) -> None:
    assert stage.send("POST /models", {"fairlead-dry-run": "false"}).status_code == 201
    assert stage.http.get("/api/v1/models/fraud").status_code == 200


def test_a_rehearsal_that_is_refused_is_audited_like_any_refusal(stage: Stage) -> None:
    secret = stage.world.tokens.create(stage.world.owner, name="eve", principal="eve", scopes=["read"]).secret
    refused = stage.http.post(
        "/api/v1/models", json={"name": "own"}, headers={**DRY, "authorization": f"Bearer {secret}"}
    )
    assert refused.status_code == 403
    told = stage.http.get("/api/v1/audit", params={"action": "access.deny"}).json()["items"]
    assert [event["actor"] for event in told] == ["eve"]

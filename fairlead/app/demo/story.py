"""The demo's story, through the SDK alone: what a user would type, in the order they would type it."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import fairlead
from fairlead.app.cleanup import stop_everything
from fairlead.app.demo import dataset, training
from fairlead.app.demo.narration import Narrator, megabytes
from fairlead.cli.output import render_value
from fairlead.cli.placements import describe_placement
from fairlead.cli.plans import describe_plan
from fairlead.core.errors import GateRefused, InvalidInput, SelfApproval
from fairlead.sdk.embedded import Home
from fairlead.serving.processes import ProcessRecord, terminate

if TYPE_CHECKING:
    from pathlib import Path

    from fairlead.sdk.client import Fairlead
    from fairlead.sdk.features import TrainingSet
    from fairlead.sdk.records import ModelVersion, Promotion

MODEL = "tumour"
EU_MODEL = "tumour-eu"
LABELS = {"owner": "ana", "team": "oncology", "cost_centre": "cc-4711"}
REGIONS = ("aws:us-east-1", "gcp:europe-west4", "azure:westeurope")
_MARKER = "fairlead-demo"

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Story:
    """What one step hands to the next."""

    home: Path
    narrator: Narrator
    ana: Fairlead
    bo: Fairlead
    measurements: dataset.Measurements
    training_set: TrainingSet | None = None
    data: training.Split | None = None
    extractor: training.Extractor | None = None


def tell_story(home: Path, *, keep: bool) -> None:
    """Run every step in order, in a home of its own that is cleared first."""
    clear_home(home)
    narrator = Narrator()
    narrator.say("Fairlead: one model and its features, registered once, true in three clouds.", indent=0)
    with narrator.step("Start the metadata service, with three local folders as three regions"):
        ana = fairlead.connect(home=home)
        me = ana.whoami()
        secret = ana.tokens.create("bo's laptop", principal="bo", scopes=["read", "approve"]).secret
        bo = fairlead.connect(ana.url, token=secret, home=home)
        narrator.say(f"{ana.url} answers; you are {me['principal']!r}, and a colleague is 'bo' (may read and approve)")
        narrator.table(ana.locations.list(), ["name", "region", "jurisdiction", "url"])
    story = Story(home=home, narrator=narrator, ana=ana, bo=bo, measurements=dataset.load_measurements())
    define_features(story)
    first = train_and_register(story)
    replicate(story, first)
    promote(story)
    placements = place(story)
    serve(story, placements)
    roll_back(story)
    finish(story, keep=keep)


def clear_home(home: Path) -> None:
    """Stop what an earlier run left running in this folder, and remove the folder.

    Raises:
        InvalidInput: if the folder holds something that is not a demo's.
    """
    if home.exists() and any(home.iterdir()) and not (home / _MARKER).exists():
        raise InvalidInput(
            f"{home} holds something else.", hint="Give an empty folder: python -m fairlead.app.demo --home FOLDER"
        )
    if home.exists():
        stop_everything(Home(path=home))
        shutil.rmtree(home)
    home.mkdir(parents=True, mode=0o700)
    (home / _MARKER).touch()


def define_features(story: Story) -> None:
    """Apply Feast definitions, take a snapshot, and show that a naive join leaks where ours does not."""
    narrator, ana, measurements = story.narrator, story.ana, story.measurements
    with narrator.step("Define features with Feast's objects, take a snapshot, join point in time"):
        narrator.say(
            "Real data: scikit-learn's breast cancer set, 569 samples. Declared synthetic: four measuring times\n"
            "a sample (the last one after its diagnosis) and a spread of 2 % around the real values."
        )
        plan = ana.features.apply(dataset.feast_definitions(measurements, story.home / "sources"))
        narrator.table(_rows(plan["changes"]), ["kind", "name", "change", "digest"])
        snapshot = ana.features.snapshot(training.FEATURE_SERVICE)
        narrator.say(f"snapshot {snapshot.digest}")
        narrator.table(snapshot.artifacts, ["view", "residency", "rows", "digest"])
        naive = dataset.naive_join(measurements)
        leaked = int((naive["event_timestamp_measured"] > naive["event_timestamp"]).sum())
        story.training_set = ana.features.training_set(
            training.FEATURE_SERVICE, measurements.labels, snapshot=snapshot.digest
        )
        frame = story.training_set.frame
        joined = frame.merge(measurements.means, on=["sample_id", "mean_radius"], suffixes=("", "_measured"))
        peeked = int((joined["event_timestamp_measured"] > joined["event_timestamp"]).sum())
        narrator.say(f"naive join (newest value): {leaked} of {len(naive)} rows hold a value from after their label")
        narrator.say(f"point-in-time join:        {peeked} of {len(frame)} rows do")


def train_and_register(story: Story) -> ModelVersion:
    """Train extractor and head on the training set, and register them pinned to what they were trained on."""
    narrator, measurements = story.narrator, story.measurements
    training_set = _known(story.training_set)
    with narrator.step("Train a model on that training set and register it"):
        features = measurements.mean_features + measurements.extreme_features
        story.data = training.split(training_set.frame, features)
        story.extractor = training.fit_extractor(story.data)
        head, metrics = training.fit_head(story.extractor, story.data, penalty=0.001)
        weights = sum(tensor.nbytes for tensor in story.extractor.values())
        narrator.say(f"extractor: {megabytes(weights)} of float32; head: logistic regression; {render_value(metrics)}")
        path = training.save_model(story.extractor, head, story.data, story.home / "trained")
        version = story.ana.models.register(MODEL, path, trained_on=training_set, metrics=metrics, labels=LABELS)
        _tell_registered(narrator, version)
        narrator.say(f"pinned to {version.feature_service} {version.feature_service_digest}")
        narrator.say(f"      and snapshot {version.snapshot_digest}")
    return version


def replicate(story: Story, version: ModelVersion) -> None:
    """Wait until model and snapshot are VERIFIED in all regions, and each online store serves its own replica."""
    narrator, ana = story.narrator, story.ana
    with narrator.step("Replicate model and features to three regions, read every byte back there"):
        ana.models.wait_replicated(version.reference)
        columns = ["region", "state", "stored_bytes", "moved_bytes", "source_region", "verified_at"]
        narrator.say(f"{version.reference} ({megabytes(version.size_bytes)} of files)")
        narrator.table(ana.models.where(version.reference), columns)
        states = ana.features.materialize(training.FEATURE_SERVICE)
        narrator.say("online stores, each from its region's own replica")
        narrator.table(states, ["region", "state", "rows", "snapshot"])


def promote(story: Story) -> None:
    """Promote version 1, then version 2, through gates; show a refused promotion and a refused self-approval."""
    narrator, ana = story.narrator, story.ana
    data, extractor = _known(story.data), _known(story.extractor)
    with narrator.step("Fit only the head again as version 2, and promote through gates"):
        set_policies(ana)
        promote_through(story, f"{MODEL}/1")
        head, metrics = training.fit_head(extractor, data, penalty=0.01)
        path = training.save_model(extractor, head, data, story.home / "trained")
        second = ana.models.register(
            MODEL, path, trained_on=_known(story.training_set), metrics=metrics, parent_version=1
        )
        _tell_registered(narrator, second)
        narrator.say("the extractor's tensors are where they were: none of their bytes were sent")
        ana.models.wait_replicated(second.reference)
        pending = promote_through(story, second.reference, show=True)
        narrator.say(f"production now points at {pending.reference} (revision {pending.revision})")
        weak, weak_metrics = training.fit_head(extractor, data, penalty=1e-6, rows=60)
        weak_path = training.save_model(extractor, weak, data, story.home / "trained")
        third = ana.models.register(MODEL, weak_path, trained_on=_known(story.training_set), metrics=weak_metrics)
        ana.models.promote(third.reference, "dev")
        narrator.say(f"\n{third.reference} was fitted on 60 rows; promoting it to staging:")
        try:
            ana.models.promote(third.reference, "staging")
        except GateRefused as refusal:
            narrator.say(f"refused: {refusal.detail}")
            plan: Any = refusal.attributes["plan"]
            narrator.say(describe_plan(plan))
        else:
            raise AssertionError("a gate let a weak model through")


def set_policies(ana: Fairlead) -> None:
    """Dev takes anything READY; staging wants accuracy; production wants replicas and another identity's approval."""
    accurate: Any = [{"metric": "accuracy", "comparison": ">=", "limit": 0.95}]
    ana.environments.set_policy("staging", {"gates": accurate, "previous_environment": "dev"})
    ana.environments.set_policy(
        "production",
        {
            "gates": accurate,
            "required_regions": list(REGIONS),
            "approvals": 1,
            "previous_environment": "staging",
        },
    )


def promote_through(story: Story, reference: str, *, show: bool = False) -> Promotion:
    """dev, staging, production; with `show`, the plan is printed and a self-approval is tried."""
    narrator, ana = story.narrator, story.ana
    for environment in ("dev", "staging"):
        promotion = ana.models.promote(reference, environment)
        narrator.say(f"{reference} -> {environment}: {promotion.state}")
    promotion = ana.models.promote(reference, "production", reason="better on the held-out samples")
    narrator.say(f"{reference} -> production: {promotion.state}")
    if show:
        narrator.say(describe_plan(promotion.plan))
        try:
            ana.models.approve(str(promotion.id))
        except SelfApproval as refusal:
            narrator.say(f"ana approves her own request: refused ({refusal.detail})")
        else:
            raise AssertionError("a requester approved her own promotion")
    applied = story.bo.models.approve(str(promotion.id), comment="checked")
    narrator.say(f"bo approves: {applied.state}")
    return applied


def place(story: Story) -> dict[str, str]:
    """Ask where to run both models; answers the placement ids by model."""
    narrator, ana = story.narrator, story.ana
    with narrator.step("Ask the placement engine where to run"):
        register_eu_model(story)
        resources: Any = {"vcpus": 2, "memory_gib": 4, "requests_per_second_per_replica": 40, "bytes_per_request": 2048}
        world: Any = [
            {"area": "new-york", "requests_per_second": 60, "latency_limit_ms": 60},
            {"area": "frankfurt", "requests_per_second": 40, "latency_limit_ms": 60},
        ]
        request: Any = {
            "reference": f"{MODEL}@production",
            "demand": world,
            "resources": resources,
        }
        narrator.say("60 requests/s from New York and 40 from Frankfurt, each within 60 ms")
        answers = {MODEL: ana.place(request)}
        narrator.say(describe_placement(answers[MODEL].to_json(), is_brief=True))
        narrator.say("\nthe EU-only model: 20 requests/s from Paris, two regions so that either may fail")
        europe: Any = [{"area": "paris", "requests_per_second": 20, "latency_limit_ms": 60}]
        answers[EU_MODEL] = ana.place(request | {"reference": f"{EU_MODEL}@dev", "demand": europe, "min_regions": 2})
        narrator.say(describe_placement(answers[EU_MODEL].to_json(), is_brief=True))
    return {name: answer.id for name, answer in answers.items()}


def register_eu_model(story: Story) -> None:
    """A second model whose bytes may not leave the EU."""
    narrator, ana, data = story.narrator, story.ana, _known(story.data)
    extractor = training.fit_extractor(data, width=256, epochs=8)
    head, metrics = training.fit_head(extractor, data, penalty=0.01)
    path = training.save_model(extractor, head, data, story.home / "trained")
    version = ana.models.register(
        EU_MODEL, path, trained_on=_known(story.training_set), metrics=metrics, labels=LABELS, residency="eu"
    )
    replicas = ana.models.wait_replicated(version.reference)
    narrator.say(
        f"{version.reference} has residency eu, so it is in {', '.join(replica.region for replica in replicas)}"
    )
    ana.models.promote(version.reference, "dev")


def serve(story: Story, placements: dict[str, str]) -> None:
    """Build each bundle once, deploy its digest to the chosen regions, predict, and lose a region."""
    narrator, ana = story.narrator, story.ana
    with narrator.step("Build the bundle once, deploy the same digest to every chosen region"):
        references = (f"{MODEL}/1", f"{MODEL}@production", f"{EU_MODEL}@dev")
        # All are asked for before any is waited for.
        asked = [ana.bundles.build(reference, wait=False) for reference in references]
        for bundle in map(ana.bundles.wait_ready, asked):
            narrator.say(f"bundle of {bundle.reference}: {bundle.digest}")
        for name, environment in ((MODEL, "production"), (EU_MODEL, "dev")):
            ana.deploy(f"{name}@{environment}", placement=placements[name])
        for name in (MODEL, EU_MODEL):
            deployment = ana.deployments.wait_ready(name)
            narrator.say(f"{name}: {deployment.endpoint}")
            narrator.table(deployment.regions, ["region", "state", "version", "bundle_digest", "endpoint_url"])
    with narrator.step("Predict through one endpoint, then lose a region"):
        for name in (MODEL, EU_MODEL):
            compare_regions(story, name)
            lose_region(story, name)


def compare_regions(story: Story, name: str) -> None:
    """Ask each region's endpoint and the gateway the same; the answers and digests are equal."""
    import httpx2

    narrator, ana = story.narrator, story.ana
    entities: Any = {"sample_id": [0, 19, 100]}
    answers: list[dict[str, Any]] = []
    for region in ana.deployments.get(name).regions:
        body = httpx2.post(f"{region['endpoint_url']}/predict", json={"entities": entities}, timeout=30).json()
        answers.append(body)
    answers.append(dict(ana.deployments.predict(name, entities=entities)))
    told = [{key: answer.get(key) for key in ("region", "model", "predictions", "bundle_digest")} for answer in answers]
    narrator.table(told, ["region", "model", "predictions", "bundle_digest"])
    if len({str(answer["predictions"]) + str(answer["bundle_digest"]) for answer in answers}) != 1:
        raise AssertionError("regions answered differently")
    narrator.say(f"{name}: {len(answers)} answers, all equal, all from one bundle digest")


def lose_region(story: Story, name: str) -> None:
    """Stop one region's process; requests are answered from another that may hold the data."""
    narrator, ana = story.narrator, story.ana
    entities: Any = {"sample_id": [0]}
    before = ana.deployments.predict(name, entities=entities)
    lost = str(before["served_by"])
    endpoint = next(region for region in ana.deployments.get(name).regions if region["region"] == lost)
    process = ProcessRecord.of(int(endpoint["process_id"]))
    terminate([] if process is None else [process])
    after = ana.deployments.predict(name, entities=entities)
    narrator.say(f"{name}: stopped the process in {lost}; the next request was answered from {after['served_by']}")
    if after["predictions"] != before["predictions"]:
        raise AssertionError("another region answered differently")
    permitted = [replica.region for replica in ana.models.where(str(after["model"]))]
    if after["served_by"] not in permitted or after["served_by"] == lost:
        raise AssertionError("a request left the permitted regions")


def roll_back(story: Story) -> None:
    """One command back to version 1; afterwards answers carry version 1's digest."""
    narrator, ana = story.narrator, story.ana
    with narrator.step("Roll production back to version 1 with one command"):
        narrator.say(f"$ fairlead model rollback {MODEL}@production --reason 'slow head'")
        move = ana.models.rollback(MODEL, "production", reason="slow head")
        narrator.say(f"version {move.from_version} -> {move.to_version} (revision {move.revision})")
        first = next(bundle.digest for bundle in ana.bundles.list(reference=f"{MODEL}/1"))
        entities: Any = {"sample_id": [0, 19, 100]}
        deadline = time.monotonic() + 60
        answer = ana.deployments.predict(MODEL, entities=entities)
        while answer["bundle_digest"] != first and time.monotonic() < deadline:
            time.sleep(0.2)
            answer = ana.deployments.predict(MODEL, entities=entities)
        if answer["bundle_digest"] != first:
            raise AssertionError("production still answers with version 2")
        narrator.say(f"answers now come from {answer['model']}, bundle {answer['bundle_digest']}")


def finish(story: Story, *, keep: bool) -> None:
    """Print the audit trail and the ledger, and say what to try next."""
    narrator, ana = story.narrator, story.ana
    with narrator.step("Read the audit trail and the ledger"):
        events = [event.to_json() for event in ana.audit.list()]
        narrator.table(events, ["sequence", "actor", "action", "subject"])
        time.sleep(1.2)  # the sealer seals within a second
        narrator.say(f"audit chain: {render_value(ana.audit.verify())}")
        narrator.table(
            ana.ledger.summary(by="kind"), ["key", "entries", "moved_bytes", "planned_usd", "actual_usd", "gco2"]
        )
        narrator.table(ana.ledger.summary(by="region"), ["key", "entries", "moved_bytes", "actual_usd", "gco2"])
    narrator.table(narrator.steps, ["step", "what", "seconds"])
    narrator.say(f"All done in {narrator.seconds:.0f} s.", indent=0)
    if keep:
        endpoint = str(ana.deployments.get(MODEL).endpoint)
        narrator.say(
            f"\nStill up, until `fairlead stop --all`:\n  service    {ana.url}\n  REST docs  {ana.url}/docs\n"
            f"  endpoints  {endpoint}",
            indent=0,
        )
    else:
        stop_everything(Home(path=story.home))
        narrator.say(
            "\nEverything is stopped; the home is kept, and the first command starts the service again.", indent=0
        )
    narrator.say(
        f"\nNext, try:\n  export FAIRLEAD_HOME={story.home}\n  .venv/bin/fairlead model show {MODEL}\n"
        f"  .venv/bin/fairlead model where {MODEL}@production\n  .venv/bin/fairlead model history {MODEL}@production\n"
        f"  .venv/bin/fairlead deploy status {MODEL}\n  .venv/bin/fairlead ledger --by region\n"
        "  .venv/bin/fairlead stop --all",
        indent=0,
    )


def _tell_registered(narrator: Narrator, version: ModelVersion) -> None:
    narrator.say(
        f"{version.reference} is {version.state}: {megabytes(version.size_bytes)} of files, "
        f"{megabytes(version.sent_bytes)} sent, {version.artifact_digest}"
    )


def _rows(value: object) -> list[dict[str, Any]]:
    return list(value) if isinstance(value, list) else []


def _known(value: T | None) -> T:
    if value is None:
        raise AssertionError("a step was left out")
    return value

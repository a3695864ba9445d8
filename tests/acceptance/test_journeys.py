"""What users do all day, through the command line alone: data on stdout, the rest on stderr, exit codes kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.command_line import LABELS, CommandLine, write_folder
from tests.acceptance.world import REGIONS, when, write_feast_repository
from tests.serving.models import model_files

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The files of versions that differ in their head alone."""
    root = tmp_path_factory.mktemp("models")
    return {n: write_folder(root / str(n), model_files(0.5, 0.25 * n, 0.125, extra_bytes=200_000)) for n in (1, 2, 3)}


@pytest.fixture(scope="module")
def churn(fairlead: CommandLine, models: dict[int, Path]) -> str:
    """The name of a model with two versions."""
    for number in (1, 2):
        fairlead("model", "register", "churn", models[number], *LABELS)
    return "churn"


def test_a_model_is_registered_found_and_downloaded(
    fairlead: CommandLine, models: dict[int, Path], tmp_path: Path
) -> None:
    registered = fairlead.json(
        *("model", "register", "triage", models[1], *LABELS),
        *("--metric", "roc_auc=0.97", "--param", "depth=6", "--tag", "stage=trial", "--description", "first"),
    )
    assert (registered["reference"], registered["state"]) == ("triage/1", "READY")
    assert registered["metrics"] == {"roc_auc": 0.97}
    assert registered["params"] == {"depth": "6"}
    assert registered["tags"] == {"stage": "trial"}
    second = fairlead.json("model", "register", "triage", models[2])
    assert second["sent_bytes"] < 20_000

    assert "triage" in {model["name"] for model in fairlead.json("model", "list")}
    assert [model["name"] for model in fairlead.json("model", "list", "--prefix", "tri")] == ["triage"]
    assert fairlead.json("model", "list", "--prefix", "x") == []
    shown = fairlead.json("model", "show", "triage")
    assert [version["reference"] for version in shown["versions"]] == ["triage/2", "triage/1"]
    assert fairlead.json("model", "show", "models:/triage/1") == fairlead.json("model", "show", "triage/1")
    assert fairlead("model", "show", "triage/1", "--output", "quiet").stdout == "triage/1\n"

    fairlead("model", "where", "triage/2", "--wait")
    replicas = fairlead.json("model", "where", "triage/2")
    assert {(each["region"], each["state"]) for each in replicas} >= {(region, "VERIFIED") for region in REGIONS}
    assert {row["verdict"] for row in fairlead.json("model", "verify", "triage/2")} == {"verified"}

    path = fairlead.json("model", "download", "triage/2", tmp_path / "copy")["path"]
    assert (Path(path) / "data/head/weights.npy").read_bytes() == (models[2] / "data/head/weights.npy").read_bytes()
    cached = fairlead("model", "download", "triage/2", "--output", "quiet").stdout.strip()
    assert Path(cached).is_relative_to(fairlead.home / "cache")

    fairlead("model", "download", "triage/2", tmp_path / "copy")
    (tmp_path / "copy" / "MLmodel").write_bytes(b"edited")
    assert str(tmp_path / "copy") in fairlead("model", "download", "triage/2", tmp_path / "copy", code=5).stderr
    assert (tmp_path / "copy" / "MLmodel").read_bytes() == b"edited"


def test_what_a_person_reads_has_no_colour_in_a_pipe_and_goes_to_stdout(fairlead: CommandLine, churn: str) -> None:
    for variables in ({}, {"NO_COLOR": "1"}):
        answer = fairlead.as_(**variables)("model", "list")
        assert churn in answer.stdout
        assert "\x1b" not in answer.stdout + answer.stderr
        assert answer.stderr == ""


def test_a_promotion_goes_through_gates_and_needs_somebody_elses_word(
    fairlead: CommandLine, models: dict[int, Path], tmp_path: Path
) -> None:
    for number, accuracy in ((1, 0.96), (2, 0.97), (3, 0.5)):
        fairlead("model", "register", "fraud", models[number], *LABELS, "--metric", f"accuracy={accuracy}")
    fairlead("model", "where", "fraud/1", "--wait")
    gates = [{"metric": "accuracy", "comparison": ">=", "limit": 0.95}]
    policy = tmp_path / "policy.yaml"
    wanted = {"gates": gates, "required_regions": list(REGIONS), "approvals": 1}
    policy.write_text(document("EnvironmentPolicy", wanted))
    before = fairlead.json("environment", "policy", "production")
    after = fairlead.json("environment", "policy", "production", policy)
    assert after["revision"] == before["revision"] + 1
    stale = fairlead.refused("environment", "policy", "production", policy, "--revision", "1", code=5)
    assert stale["type"] == "urn:fairlead:error:stale-revision"
    assert {row["name"] for row in fairlead.json("environment", "list")} == {"dev", "staging", "production"}

    planned = fairlead.json("model", "promote", "fraud/1", "--to", "production", "--dry-run")
    verdicts = {gate["gate"]: gate["verdict"] for gate in planned["plan"]["gates"]}
    assert verdicts["accuracy >= 0.95"] == "passed"
    assert verdicts["approvals"] == "pending"
    fairlead.refused("model", "show", "fraud@production", code=3)

    refused = fairlead.refused("model", "promote", "fraud/3", "--to", "production", code=6)
    assert refused["type"] == "urn:fairlead:error:gate-refused"
    assert any(gate["verdict"] == "failed" and gate["next_step"] for gate in refused["plan"]["gates"])
    told = fairlead("model", "promote", "fraud/3", "--to", "production", code=6).stderr
    assert "accuracy" in told
    assert "0.5" in told

    bo = fairlead.as_(FAIRLEAD_TOKEN=secret_of(fairlead, "bo", "read", "approve"))
    for number in (1, 2):
        asked = fairlead.json("model", "promote", f"fraud/{number}", "--to", "production", "--reason", "better")
        assert asked["state"] == "AWAITING_APPROVAL"
        own = fairlead.refused("model", "approve", asked["id"], code=4)
        assert own["type"] == "urn:fairlead:error:self-approval"
        waiting = fairlead.json("model", "promotions", "--model", "fraud", "--state", "AWAITING_APPROVAL")
        assert [promotion["id"] for promotion in waiting] == [asked["id"]]
        fairlead("model", "where", f"fraud/{number}", "--wait")
        assert bo.json("model", "approve", asked["id"], "--comment", "checked")["state"] == "APPLIED"
        assert fairlead.json("model", "show", "fraud@production")["version"] == number
    assert bo.refused("model", "promote", "fraud/1", "--to", "dev", code=4)["scope"] == "promote"

    rejected = fairlead.json("model", "promote", "fraud/1", "--to", "production")
    assert bo.json("model", "approve", rejected["id"], "--reject")["state"] == "REJECTED"
    fairlead.refused("model", "promote", "fraud/1", "--to", "production", "--revision", "1", code=5)

    move = fairlead.json("model", "rollback", "fraud@production", "--reason", "complaints")
    assert (move["from_version"], move["to_version"]) == (2, 1)
    history = fairlead.json("model", "history", "fraud@production")
    assert [(each["from_version"], each["to_version"]) for each in history] == [(2, 1), (1, 2), (None, 1)]
    assert [each["moved_by"] for each in history] == ["owner", "bo", "bo"]
    fairlead("environment", "policy", "production", "-", stdin=document("EnvironmentPolicy", {}))


@pytest.mark.usefixtures("churn")
def test_aliases_move_freely_and_environments_only_by_promotion(fairlead: CommandLine) -> None:
    assert fairlead.json("model", "alias", "churn@champion", "1")["to_version"] == 1
    assert fairlead.json("model", "alias", "churn@champion", "2", "--revision", "1")["revision"] == 2
    assert fairlead.json("model", "show", "churn@champion")["reference"] == "churn/2"
    stale = fairlead.refused("model", "alias", "churn@champion", "1", "--revision", "1", code=5)
    assert (stale["type"], stale["actual"]) == ("urn:fairlead:error:stale-revision", 2)
    assert "promote" in fairlead("model", "alias", "churn@production", "1", code=5).stderr
    fairlead.refused("model", "alias", "churn@latest", "1", code=2)


@pytest.mark.usefixtures("churn")
def test_the_trail_and_the_ledger_tell_what_happened(fairlead: CommandLine) -> None:
    fairlead("model", "where", "churn/1", "--wait")
    events = fairlead.json("audit", "--subject", "churn/1")
    assert {"version.register", "version.ready"} <= {event["action"] for event in events}
    assert {event["actor"] for event in fairlead.json("audit", "--action", "model.create")} == {"owner"}
    newest = fairlead.json("audit", "--newest", "2")
    assert len(newest) == 2

    def sealed() -> str | None:
        verdict = fairlead.json("audit", "verify")
        return None if verdict["unsealed"] else str(verdict["anchor"])

    anchor = when(sealed)
    assert fairlead.json("audit", "verify", "--anchor", anchor)["is_intact"] is True
    wrong = fairlead("audit", "verify", "--anchor", f"{anchor.split(':')[0]}:{'0' * 64}", "-o", "json", code=1)
    assert wrong.json["is_intact"] is False

    copies = fairlead.json("ledger", "--kind", "replicate")
    assert copies
    assert all(float(entry["actual_usd"]) >= 0 and entry["moved_bytes"] >= 0 for entry in copies)
    summary = {row["key"]: row for row in fairlead.json("ledger", "--by", "team")}
    assert summary["growth"]["moved_bytes"] > 0
    assert {row["key"] for row in fairlead.json("ledger", "--by", "region")} >= set(REGIONS)
    assert isinstance(fairlead.json("work"), list)


def test_tokens_say_who_may_do_what_until_they_end(fairlead: CommandLine) -> None:
    created = fairlead("token", "create", "ci", "--principal", "ci", "--scope", "read", "-o", "json")
    token = created.json
    assert "not shown again" in created.stderr
    reader = fairlead.as_(FAIRLEAD_TOKEN=token["secret"])
    reader("model", "list")
    denied = reader.refused("token", "list", code=4)
    assert denied["type"] == "urn:fairlead:error:permission-denied"
    listed = fairlead("token", "list", "--output", "json")
    assert token["id"] in {each["id"] for each in listed.json}
    assert token["secret"] not in listed.stdout
    fairlead("token", "revoke", token["id"])
    assert reader.refused("model", "list", code=4)["type"] == "urn:fairlead:error:unauthenticated"
    assert fairlead.json("token", "list")

    brief = fairlead.json("token", "create", "brief", "--principal", "ci", "--scope", "read", "--days", "0.0001")
    gone = fairlead.as_(FAIRLEAD_TOKEN=brief["secret"])
    when(lambda: True if gone_is_refused(gone) else None, seconds=30, pause=1)


@pytest.mark.usefixtures("churn")
def test_a_new_location_gets_what_is_wanted_there(fairlead: CommandLine, tmp_path: Path) -> None:
    url = (tmp_path / "frankfurt").as_uri()
    added = fairlead.json("location", "add", "frankfurt", "--region", "aws:eu-central-1", "--url", url)
    assert (added["region"], added["jurisdiction"]) == ("aws:eu-central-1", "EU")
    assert "frankfurt" in {each["name"] for each in fairlead.json("location", "list")}

    def is_there() -> bool | None:
        rows = {row["region"]: row["state"] for row in fairlead.json("model", "where", "churn/1")}
        return True if rows.get("aws:eu-central-1") == "VERIFIED" else None

    when(is_there)


def test_features_are_applied_pinned_and_read_in_every_region(fairlead: CommandLine, tmp_path: Path) -> None:
    repository = write_feast_repository(tmp_path / "clinic")
    dry = fairlead.json("features", "apply", repository, "--dry-run")
    assert {change["change"] for change in dry["changes"]} == {"added"}
    assert fairlead.json("features", "list") == []
    fairlead("features", "apply", repository)
    assert [service["name"] for service in fairlead.json("features", "list")] == ["diagnosis"]
    snapshot = fairlead.json("features", "snapshot", "diagnosis", "--as-of", "2026-04-01T00:00:00Z")
    assert snapshot["state"] == "READY"
    states = fairlead.json("features", "materialize", "diagnosis", "--region", "gcp:europe-west4")
    assert {(each["region"], each["state"]) for each in states} == {("gcp:europe-west4", "READY")}
    read = fairlead.json("features", "read", "diagnosis", "--entity", "sample_id=2,3", "--region", "gcp:europe-west4")
    assert [row["radius"] for row in read["rows"]] == [3.0, 0.5]
    assert read["snapshot"] == snapshot["digest"]


def test_a_placement_is_explained_and_an_impossible_one_says_why(fairlead: CommandLine, tmp_path: Path) -> None:
    request: dict[str, Any] = {
        "demand": [{"area": "frankfurt", "requests_per_second": 40, "latency_limit_ms": 60}],
        "resources": {"vcpus": 2, "memory_gib": 4, "requests_per_second_per_replica": 40},
        "candidate_regions": list(REGIONS),
    }
    (tmp_path / "request.json").write_text(document("PlacementRequest", request))
    placed = fairlead.json("place", tmp_path / "request.json")
    assert placed["id"]
    assert "runner-up" in fairlead("place", "-", stdin=document("PlacementRequest", request)).stdout
    request["residency"] = "us"
    request["demand"] = [{"area": "frankfurt", "requests_per_second": 40, "latency_limit_ms": 10}]
    (tmp_path / "impossible.json").write_text(document("PlacementRequest", request))
    refused = fairlead.refused("place", tmp_path / "impossible.json", code=6)
    assert refused["type"] == "urn:fairlead:error:placement-infeasible"


def document(kind: str, spec: dict[str, Any]) -> str:
    return json.dumps({"apiVersion": "fairlead/v1", "kind": kind, "spec": spec})


def secret_of(fairlead: CommandLine, principal: str, *scopes: str) -> str:
    wanted = [part for scope in scopes for part in ("--scope", scope)]
    return str(fairlead.json("token", "create", principal, "--principal", principal, *wanted)["secret"])


def gone_is_refused(gone: CommandLine) -> bool:
    try:
        gone("model", "list", code=4)
    except AssertionError:
        return False
    return True

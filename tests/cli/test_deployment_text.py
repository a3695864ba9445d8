"""Deployment plans as text: what would happen in each region, what it costs and what it emits."""

from __future__ import annotations

from typing import Any

from fairlead.cli.deployment_text import describe_deployment_plan


def step(region: str, action: str, **more: Any) -> dict[str, Any]:
    names = "from_version to_version target from_target replicas from_replicas instances source_region "
    names += "usd_per_hour from_usd_per_hour carbon_g_per_hour from_carbon_g_per_hour"
    nothing = dict.fromkeys(names.split())
    return {**nothing, "region": region, "action": action, "bytes": 0, "usd": "0", **more}


def test_a_deployment_plan_shows_each_region_and_what_it_costs() -> None:
    text = describe_deployment_plan(
        {
            "name": "churn",
            "model": "churn",
            "environment": "production",
            "version": 2,
            "bundle_state": "MISSING",
            "bundle_digest": None,
            "strategy": {"canary": {"steps": [5, 100], "pause": "5m", "max_error_rate": 0.01}},
            "steps": [
                step(
                    "aws:us-east-1",
                    "start",
                    to_version=2,
                    bytes=10,
                    usd="0.01",
                    source_region="gcp:europe-west4",
                    usd_per_hour="0.2",
                    carbon_g_per_hour="12",
                    target="eks",
                    replicas=3,
                ),
                step("gcp:europe-west4", "scale", from_version=2, to_version=2, from_replicas=1, replicas=2),
                step("azure:uksouth", "stop", from_version=1),
            ],
            "bytes": 10,
            "usd": "0.01",
            "carbon_g": "0.5",
            "usd_per_hour": "0.2",
            "from_usd_per_hour": "0.3",
            "carbon_g_per_hour": "12",
            "from_carbon_g_per_hour": None,
        }
    )
    started = "10 bytes from gcp:europe-west4 for $0.01, $0.2 an hour, 12 gCO2e an hour"
    assert text.splitlines() == [
        "churn: churn/2, following production",
        "bundle: MISSING -",
        "traffic: canary 5 %, 100 %, each watched for 5m, max_error_rate 0.01",
        f"  start    aws:us-east-1: version - -> 2, on eks, 3 replicas, {started}",
        "  scale    gcp:europe-west4: version 2 -> 2, replicas 1 -> 2",
        "  stop     azure:uksouth: version 1 -> -",
        "copies: 10 bytes, $0.01, 0.5 gCO2e",
        "running: $0.3 -> $0.2 an hour, 12 gCO2e an hour",
    ]

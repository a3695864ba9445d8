"""Plans as text: what would happen, and what stands in the way."""

from __future__ import annotations

from fairlead.cli.plans import describe_plan


def gate(
    name: str, value: float | None, limit: float, verdict: str, next_step: str | None
) -> dict[str, str | float | None]:
    verdicts: dict[str, str | float | None] = {"gate": name, "value": value, "limit": limit, "verdict": verdict}
    return verdicts | {"detail": f"About {name}.", "next_step": next_step}


def test_a_promotion_shows_each_gate_with_value_limit_and_what_to_do_next() -> None:
    replica = {"region": "aws:eu-west-1", "bytes": 5, "usd": 0.01, "source_region": "aws:us-east-1"}
    text = describe_plan(
        {
            "moves": {"from": None, "to": 2},
            "gates": [
                gate("roc_auc", 0.97, 0.9, "passed", None),
                gate("latency", None, 50, "failed", "Log it."),
                gate("approvals", 0, 1, "pending", "Ask."),
            ],
            "missing_replicas": [replica],
            "deployments": ["churn"],
        }
    )
    assert text.splitlines() == [
        "move: version - -> 2",
        "  [pass] roc_auc: 0.97 (limit 0.9)",
        "  [FAIL] latency: - (limit 50)",
        "         About latency.",
        "         Log it.",
        "  [wait] approvals: 0 (limit 1)",
        "         About approvals.",
        "         Ask.",
        "  missing in aws:eu-west-1: 5 bytes, $0.01 from aws:us-east-1",
        "  deployment touched: churn",
    ]

"""`fairlead model promote` and what belongs to it: plan, apply, approve, withdraw, evaluate, history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fairlead.cli.context import command, connected
from fairlead.cli.model import Reference, app
from fairlead.cli.output import Output, render_value, without_controls
from fairlead.cli.parsing import API_VERSION, parse_moment, parse_numbers, read_resource
from fairlead.cli.plans import describe_plan, markdown_promotion
from fairlead.core.errors import ExitCode, InvalidInput

if TYPE_CHECKING:
    from fairlead.sdk.client import Fairlead
    from fairlead.sdk.records import Promotion

PLAN_KIND = "PromotionPlan"
_WAIT_SECONDS = 3600.0
_ENDS = {
    "AWAITING_APPROVAL": ExitCode.AWAITING_APPROVAL,
    "REJECTED": ExitCode.GATE_REFUSED,
    "REFUSED": ExitCode.GATE_REFUSED,
    "WITHDRAWN": ExitCode.GATE_REFUSED,
    "STALE": ExitCode.CONFLICT,
}

Environment = Annotated[str, typer.Option("--to", help="Environment: dev, staging, production.", metavar="ENVIRONMENT")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit trail.")]
Comment = Annotated[str, typer.Option(help="Kept in the audit trail.")]
Emergency = Annotated[
    bool, typer.Option("--emergency", help="Set freezes aside, for a role that the policy names; needs --reason.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is approved; exit code 8 if it is not in time.")]
Timeout = Annotated[float, typer.Option(help="Longest wait, in seconds.", min=0)]
PromotionId = Annotated[str, typer.Argument(help="Id of the promotion.", metavar="PROMOTION")]


@command(app, "promote")
def promote(
    reference: Reference,
    *,
    to: Environment,
    reason: Reason = "",
    revision: Annotated[
        int | None, typer.Option(help="Refuse unless the environment still has this revision.", min=0)
    ] = None,
    emergency: Emergency = False,
    wait: Wait = False,
    timeout: Timeout = _WAIT_SECONDS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and change nothing.")] = False,
) -> None:
    """Promote a version through the gates of an environment and of the policies that govern the model."""
    with connected() as (client, output):
        promotion = client.models.promote(
            reference, to, reason=reason, revision=revision, dry_run=dry_run, is_emergency=emergency
        )
        _conclude(client, output, promotion, timeout=timeout if wait else None)


@command(app, "plan")
def plan(
    reference: Reference,
    *,
    to: Environment,
    out: Annotated[Path | None, typer.Option(help="File to write the plan to, for `model apply`.")] = None,
    emergency: Emergency = False,
) -> None:
    """Show what a promotion would do, and write it down with a fingerprint of all that it rests on."""
    with connected() as (client, output):
        planned = client.models.promote(reference, to, dry_run=True, is_emergency=emergency)
        if out is not None:
            _write_plan(out, planned, is_emergency=emergency)
        _show_promotion(output, planned)
        if out is not None:
            output.message(f"Wrote {out}. To apply it while nothing has changed: fairlead model apply {out}")


@command(app, "apply", has_dry_run=True)
def apply(
    file: Annotated[Path, typer.Argument(help="A plan of `fairlead model plan --out`.")],
    *,
    reason: Reason = "",
    wait: Wait = False,
    timeout: Timeout = _WAIT_SECONDS,
) -> None:
    """Do what a plan says, unless anything that it rests on has changed; then say what."""
    spec = read_resource(file, PLAN_KIND)
    try:
        reference, environment = str(spec["reference"]), str(spec["environment"])
        basis = {str(key): str(value) for key, value in cast("dict[str, str]", spec["basis"]).items()}
        # The pointer's revision is a part of the basis, and named with the rest if it has moved.
        is_emergency = bool(spec.get("emergency"))
    except (KeyError, AttributeError) as error:
        raise InvalidInput(f"{file} is no plan: {error}.", hint="Write one: fairlead model plan --out FILE") from None
    with connected() as (client, output):
        promotion = client.models.promote(reference, environment, reason=reason, basis=basis, is_emergency=is_emergency)
        _conclude(client, output, promotion, timeout=timeout if wait else None)


@command(app, "approve", has_dry_run=True)
def approve(
    promotion_id: PromotionId,
    *,
    comment: Comment = "",
    reject: Annotated[bool, typer.Option("--reject", help="Refuse it instead.")] = False,
) -> None:
    """Approve a promotion that somebody else asked for (or --reject it)."""
    with connected() as (client, output):
        decide = client.models.reject if reject else client.models.approve
        _show_promotion(output, decide(promotion_id, comment=comment))


@command(app, "withdraw", has_dry_run=True)
def withdraw(promotion_id: PromotionId, *, comment: Comment = "") -> None:
    """Take back a promotion that you asked for and that awaits approval."""
    with connected() as (client, output):
        _show_promotion(output, client.models.withdraw(promotion_id, comment=comment))


@command(app, "evaluate", has_dry_run=True)
def evaluate(
    reference: Reference,
    *,
    name: Annotated[str, typer.Option(help="Name of the evaluation, such as fairness.")],
    metric: Annotated[list[str], typer.Option(help="NAME=NUMBER; repeat for more.")],
    dataset: Annotated[str | None, typer.Option(help="What it was measured on.")] = None,
) -> None:
    """Record what was measured of a version, for gates to ask."""
    with connected() as (client, output):
        output.record(client.models.evaluate(reference, name, parse_numbers(metric), dataset=dataset))


@command(app, "evaluations")
def evaluations(reference: Reference) -> None:
    """List what was measured of a version, newest first."""
    with connected() as (client, output):
        columns = ["name", "metrics", "dataset", "created_by", "created_at"]
        output.table(client.models.evaluations(reference), columns)


@command(app, "history")
def history(
    reference: Annotated[str, typer.Argument(help="NAME@ALIAS or NAME@ENVIRONMENT.")],
    *,
    at: Annotated[
        str | None, typer.Option(help="Show what held it at this time instead, for an auditor (RFC 3339, or now).")
    ] = None,
) -> None:
    """Show every move of an alias or environment, newest first, or all that is known of its holder at a time."""
    with connected() as (client, output):
        if at is not None:
            moment = None if at == "now" else parse_moment(at)
            found = client.models.held_at(reference, moment)
            output.record(found, human=_describe_holding, markdown=lambda row: f"```\n{_describe_holding(row)}\n```")
            return
        columns = ["revision", "kind", "from_version", "to_version", "moved_by", "moved_at", "reason"]
        output.table(client.models.history(reference), columns)


@command(app, "promotions")
def promotions(
    *,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state, such as AWAITING_APPROVAL.")] = None,
) -> None:
    """List promotions, newest first."""
    with connected() as (client, output):
        columns = ["id", "reference", "environment", "state", "requested_by", "requested_at"]
        output.table(client.models.promotions(model=model, state=state), columns)


def _conclude(client: Fairlead, output: Output, promotion: Promotion, *, timeout: float | None) -> None:
    """Show where a promotion got to; whoever waits for it learns by the exit code too."""
    if timeout is None or promotion.id is None:
        _show_promotion(output, promotion)
        return
    if promotion.state == "AWAITING_APPROVAL":
        output.message(f"Waiting for somebody else to run: fairlead model approve {promotion.id}")
        promotion = client.models.wait_decided(promotion.id, timeout_seconds=timeout)
    _show_promotion(output, promotion)
    code = _ENDS.get(promotion.state, ExitCode.OK)
    if code:
        raise typer.Exit(int(code))


def _write_plan(path: Path, planned: Promotion, *, is_emergency: bool) -> None:
    spec = {
        "reference": planned.reference,
        "environment": planned.environment,
        "emergency": is_emergency,
        "fingerprint": planned.plan["fingerprint"],
        "basis": planned.plan["basis"],
        "plan": {key: value for key, value in planned.plan.items() if key not in {"basis", "fingerprint"}},
    }
    document = {"apiVersion": API_VERSION, "kind": PLAN_KIND, "spec": spec}
    try:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}.") from None


def _show_promotion(output: Output, promotion: Promotion) -> None:
    def describe(row: dict[str, Any]) -> str:
        title = f"{row['reference']} -> {row['environment']}: {row['state']}"
        if row["state"] == "AWAITING_APPROVAL":
            title += f"\nAsk somebody else to run: fairlead model approve {row['id']}"
        return f"{title}\n{describe_plan(row['plan'])}revision {render_value(row['revision'])}"

    output.record(promotion, human=describe, markdown=markdown_promotion)


def _describe_holding(row: dict[str, Any]) -> str:
    move: dict[str, Any] = row["move"]
    lines = [
        f"{row['reference']} held {move['name']} at {row['at']}",
        f"  digest          {render_value(row['artifact_digest'])}",
        f"  since           {render_value(move['moved_at'])}, revision {move['revision']}, by {move['kind']}",
        f"  moved by        {move['moved_by']}: {render_value(move['reason'] or '-')}",
    ]
    lines += [
        f"  {key.replace('_', ' ').removesuffix(' digest'):<15} {render_value(row[key])}"
        for key in ("snapshot_digest", "feature_service", "run_id", "code_commit", "parent_version", "bundle")
    ]
    lines.append(f"  regions         {render_value(row['regions'])}")
    sealed = (
        "not sealed yet" if row["audit_sequence"] is None else f"event {row['audit_sequence']}, {row['event_hash']}"
    )
    lines.append(f"  audit           {sealed}")
    promotion: dict[str, Any] | None = row["promotion"]
    if promotion is not None:
        lines.append(f"  asked for by    {promotion['requested_by']} at {promotion['requested_at']}")
        for word in promotion["approvals"]:
            said = "approved by" if word["is_approval"] else "rejected by"
            as_role = f" as {render_value(word['roles'])}" if word.get("roles") else ""
            comment = f": {word['comment']}" if word["comment"] else ""
            lines.append(f"  {said:<15} {word['principal']}{as_role} at {word['decided_at']}{comment}")
        lines.append(describe_plan(promotion["plan"]).rstrip())
    if row["not_rechecked"]:
        lines.append(f"  not asked again by the roll-back: {render_value(row['not_rechecked'])}")
    return without_controls("\n".join(lines))

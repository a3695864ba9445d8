"""What crosses the wire about budgets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fairlead.registry.wire import Amount, AnswerModel, RequestModel, Time


class BudgetIn(RequestModel):
    """What copies may cost in a period, and how fast they may go: one limit or both. No region means any."""

    source_region: Annotated[str | None, Field(examples=["aws:us-east-1"])] = None
    region: Annotated[str | None, Field(examples=["gcp:europe-west4"])] = None
    period: Literal["day", "month"] = "month"
    limit_usd: Annotated[str | None, Field(max_length=32, examples=["50"])] = None
    bytes_per_second: Annotated[int | None, Field(ge=1, lt=2**63, examples=[100_000_000])] = None


class BudgetOut(AnswerModel):
    """A budget, and how much of it is left.

    `spent_usd` is what the ledger says of the present period; `reserved_usd` is what copies under way may yet cost.
    """

    name: str
    source_region: str | None
    region: str | None
    period: str
    limit_usd: Amount | None
    bytes_per_second: int | None
    spent_usd: Amount
    reserved_usd: Amount
    resets_at: Time
    revision: int
    updated_by: str
    updated_at: Time

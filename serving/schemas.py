"""What serving's routes take and give, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from fairlead.core.clock import format_time

Time = Annotated[datetime, PlainSerializer(format_time, return_type=str)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", from_attributes=True)


class PlacementOut(_Strict):
    """A placement request and its answer."""

    id: str
    request: dict[str, Any]
    answer: dict[str, Any]
    created_by: str
    created_at: Time


class BundleIn(_Strict):
    """Which version to bundle."""

    reference: str = Field(description="`churn/2` or `churn@production`.", max_length=600)


class BundleOut(_Strict):
    """A bundle: PENDING, VERIFYING or READY."""

    id: str
    reference: str
    residency: str
    state: str
    recipe: str
    digest: str | None
    size_bytes: int | None
    sent_bytes: int | None
    error_code: str | None
    error_detail: str | None
    created_by: str
    created_at: Time
    ready_at: Time | None


class BundlePage(_Strict):
    """Some bundles."""

    items: list[BundleOut]
    next_page_token: str | None


class DeploymentIn(_Strict):
    """What should run. Give `environment` or `version`, and `placement_id` or `regions`."""

    model: str = Field(max_length=300)
    name: str | None = Field(default=None, description="The model's name where it is left out.", max_length=300)
    environment: str | None = Field(default=None, max_length=300)
    version: int | None = Field(default=None, ge=1, lt=2**31)
    placement_id: str | None = Field(default=None, max_length=64)
    regions: list[str] | None = Field(default=None, max_length=200)
    dry_run: bool = False


class PlanStepOut(_Strict):
    """What would happen in one region."""

    region: str
    action: str
    from_version: int | None
    to_version: int | None
    bytes: int
    usd: str
    source_region: str | None
    usd_per_hour: str | None


class DeploymentPlanOut(_Strict):
    """What a deployment would change."""

    name: str
    model: str
    environment: str | None
    version: int | None
    residency: str
    bundle_state: str
    bundle_digest: str | None
    steps: list[PlanStepOut]
    bytes: int
    usd: str
    usd_per_hour: str | None


class RegionOut(_Strict):
    """One region of a deployment."""

    region: str
    state: str
    health: str
    version: int | None
    bundle_digest: str | None
    endpoint_url: str | None
    process_id: int | None
    usd_per_hour: str | None
    error_code: str | None
    error_detail: str | None
    updated_at: Time


class DeploymentOut(_Strict):
    """A deployment and its regions."""

    name: str
    model: str
    environment: str | None
    state: str
    residency: str
    desired_version: int | None
    bundle_digest: str | None
    placement_id: str | None
    regions: list[RegionOut]
    endpoint: str | None
    created_by: str
    created_at: Time


class DeploymentPage(_Strict):
    """Some deployments."""

    items: list[DeploymentOut]
    next_page_token: str | None

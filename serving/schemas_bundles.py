"""What the routes of bundles take and give, as JSON."""

from __future__ import annotations

from pydantic import Field

from fairlead.registry.wire import AnswerModel, RequestModel, Time
from fairlead.serving.recipe import SERVICE_MAX_BYTES
from fairlead.serving.requirements import LOCK_MAX_BYTES


class BundleIn(RequestModel):
    """Which version to bundle, and how. Without the rest the service is generated and the lock is worked out."""

    reference: str = Field(description="`churn/2` or `churn@production`.", max_length=600)
    service_file: str | None = Field(
        default=None, description="Path of a BentoML service of your own in the version's files.", max_length=500
    )
    service_source: str | None = Field(
        default=None, description="Text of a BentoML service of your own.", max_length=SERVICE_MAX_BYTES
    )
    lock: str | None = Field(
        default=None, description="Requirements with exact versions and sha256 hashes.", max_length=LOCK_MAX_BYTES
    )


class BundleOut(AnswerModel):
    """A bundle: PENDING, VERIFYING, READY or FAILED. `papers` are those of `lock`, `sbom`, `provenance` there are."""

    id: str
    reference: str
    residency: str
    state: str
    recipe: str
    base_image: str | None
    papers: list[str]
    digest: str | None
    size_bytes: int | None
    sent_bytes: int | None
    error_code: str | None
    error_detail: str | None
    created_by: str
    created_at: Time
    ready_at: Time | None


class BundlePage(AnswerModel):
    """Some bundles."""

    items: list[BundleOut]
    next_page_token: str | None


class BundleTestOut(AnswerModel):
    """A smoke test: PENDING, PASSED or FAILED. `compared` of the `answered` predictions had been recorded."""

    id: str
    bundle_id: str
    reference: str
    state: str
    answered: int | None
    compared: int | None
    largest_difference: float | None
    seconds: float | None
    error_code: str | None
    error_detail: str | None
    created_by: str
    created_at: Time
    finished_at: Time | None


class BundleTestPage(AnswerModel):
    """Some tests."""

    items: list[BundleTestOut]
    next_page_token: str | None


class BundlePolicyIn(RequestModel):
    """What bundles of a model may hold."""

    allows_pickle: bool


class BundlePolicyOut(AnswerModel):
    """What bundles of a model may hold; nobody updated it where the server's setting alone says so."""

    model: str
    allows_pickle: bool
    updated_by: str | None
    updated_at: Time | None

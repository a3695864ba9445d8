"""Puts bundles together: their use cases, and what a worker does for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from fairlead.core.db import Database
from fairlead.core.ports import Clock
from fairlead.registry.work import LeasedWork
from fairlead.serving.artifacts import RegionArtifacts
from fairlead.serving.bundle_policies import BundlePolicies
from fairlead.serving.bundle_tests import TEST_BUNDLE, BundleTester, BundleTests, derive_bundle_tests
from fairlead.serving.bundles import BUILD_BUNDLE, BundleBuilder, Bundles, derive_bundles
from fairlead.serving.recipe import BundleRules
from fairlead.sync.scratch import Scratch

if TYPE_CHECKING:
    from fastapi import APIRouter


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleParts:
    """Everything about bundles."""

    rules: BundleRules
    bundles: Bundles
    tests: BundleTests
    policies: BundlePolicies
    handlers: Mapping[str, Callable[[LeasedWork], None]]
    derivers: Sequence[Callable[[Session, datetime], None]]

    def routers(self) -> list[APIRouter]:
        """The routes, to be mounted under `/api/v1`."""
        # FastAPI costs a second that a worker need not wait for.
        from fairlead.serving.api_bundles import bundle_policies_router, bundles_router

        return [bundles_router(self.bundles, self.tests), bundle_policies_router(self.policies)]


def assemble_bundles(
    *,
    database: Database,
    clock: Clock,
    artifacts: RegionArtifacts,
    scratch: Scratch,
    rules: BundleRules | None = None,
    signing_key: bytes | None = None,
    wake: Callable[[], None] = lambda: None,
) -> BundleParts:
    """Bundles by the rules of the settings; `signing_key` are the 32 bytes that sign where each is from."""
    rules = rules or BundleRules()
    builder = BundleBuilder(database, clock, artifacts, scratch, rules=rules, signing_key=signing_key)
    return BundleParts(
        rules=rules,
        bundles=Bundles(database, clock, rules=rules, wake=wake),
        tests=BundleTests(database, clock, wake=wake),
        policies=BundlePolicies(database, clock, rules=rules),
        handlers={BUILD_BUNDLE: builder, TEST_BUNDLE: BundleTester(database, clock, artifacts, scratch, rules=rules)},
        derivers=(derive_bundles, derive_bundle_tests),
    )

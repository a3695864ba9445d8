"""Routes of bundles: asked for, shown with their papers, tested; and the policy of a model's bundles."""

from __future__ import annotations

import json
from typing import Any, Literal

from fastapi import APIRouter, Response

from fairlead.registry.access import MayAdmin, MayDeploy, MayRead
from fairlead.registry.wire import WantedPage
from fairlead.serving.bundle_papers import LOCK
from fairlead.serving.bundle_policies import BundlePolicies
from fairlead.serving.bundle_tests import BundleTests
from fairlead.serving.bundles import Bundles
from fairlead.serving.recipe import BundleWish
from fairlead.serving.schemas_bundles import (
    BundleIn,
    BundleOut,
    BundlePage,
    BundlePolicyIn,
    BundlePolicyOut,
    BundleTestOut,
    BundleTestPage,
)


def bundles_router(bundles: Bundles, tests: BundleTests) -> APIRouter:
    """Routes of bundles and their smoke tests."""
    router = APIRouter(prefix="/bundles", tags=["bundles"])

    @router.post("", status_code=202)
    def request(caller: MayDeploy, body: BundleIn) -> BundleOut:
        """Ask for the bundle of a version; asking again gives the same one, and tries one again that has FAILED."""
        wish = BundleWish(service_file=body.service_file, service_source=body.service_source, lock=body.lock)
        return BundleOut.model_validate(bundles.request(caller, body.reference, wish))

    @router.get("/{bundle_id}")
    def get(caller: MayRead, bundle_id: str) -> BundleOut:
        """One bundle."""
        return BundleOut.model_validate(bundles.get(caller, bundle_id))

    @router.get("")
    def list_bundles(caller: MayRead, page: WantedPage, reference: str | None = None) -> BundlePage:
        """Bundles, oldest first."""
        found = bundles.list(caller, page, reference=reference).map(BundleOut.model_validate)
        return BundlePage(items=list(found.items), next_page_token=found.next_page_token)

    @router.get("/{bundle_id}/papers/lock", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def lock(caller: MayRead, bundle_id: str) -> Response:
        """The lock of a bundle: a requirements file with the hashes of all wheels."""
        return Response(bundles.paper(caller, bundle_id, LOCK), media_type="text/plain")

    @router.get("/{bundle_id}/papers/{kind}")
    def paper(caller: MayRead, bundle_id: str, kind: Literal["sbom", "provenance"]) -> dict[str, Any]:
        """The SBOM (CycloneDX 1.6), or the provenance (SLSA 1 in a DSSE envelope that the server signed)."""
        return json.loads(bundles.paper(caller, bundle_id, kind))

    @router.post("/{bundle_id}/tests", status_code=202)
    def test(caller: MayDeploy, bundle_id: str) -> BundleTestOut:
        """Ask for a smoke test; one that has not finished yet is the answer."""
        return BundleTestOut.model_validate(tests.request(caller, bundle_id))

    @router.get("/{bundle_id}/tests")
    def list_tests(caller: MayRead, bundle_id: str, page: WantedPage) -> BundleTestPage:
        """The smoke tests of a bundle, newest first."""
        found = tests.list(caller, bundle_id, page).map(BundleTestOut.model_validate)
        return BundleTestPage(items=list(found.items), next_page_token=found.next_page_token)

    return router


def bundle_policies_router(policies: BundlePolicies) -> APIRouter:
    """Routes of what bundles may hold."""
    router = APIRouter(prefix="/bundle-policies", tags=["bundles"])

    @router.get("/{name}")
    def get(caller: MayRead, name: str) -> BundlePolicyOut:
        """What bundles of a model may hold."""
        return BundlePolicyOut.model_validate(policies.get(caller, name))

    @router.put("/{name}")
    def put(caller: MayAdmin, name: str, body: BundlePolicyIn) -> BundlePolicyOut:
        """Say whether bundles of a model may hold pickles, which run code when they are opened."""
        return BundlePolicyOut.model_validate(policies.put(caller, name, allows_pickle=body.allows_pickle))

    return router

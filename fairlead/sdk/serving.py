"""Where models run: placements, bundles, deployments and predictions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from fairlead.core.errors import EndpointUnavailable
from fairlead.core.ids import parse_model_reference, parse_name
from fairlead.core.loopback import is_loopback
from fairlead.core.problems import from_problem
from fairlead.sdk.artifacts import READY_TIMEOUT_SECONDS, recorded_error, wait_until
from fairlead.sdk.records import Bundle, Deployment, Placement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import JsonObject, Transport


PREDICT_TIMEOUT_SECONDS = 60.0
_RETRIES_SECONDS = 60.0


class Placements:
    """Answers of the placement engine."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, request: Mapping[str, JsonValue]) -> Placement:
        """Solve a placement request and keep the answer.

        Raises:
            InvalidInput: with the JSON pointer of the member in `attributes["pointer"]`.
            PlacementInfeasible: naming the limits to relax.
        """
        return Placement.from_json(self._transport.post("/api/v1/placements", request))

    def get(self, placement_id: str) -> Placement:
        """A kept answer.

        Raises:
            NotFound: if there is none of that id.
        """
        return Placement.from_json(self._transport.get(f"/api/v1/placements/{quote(placement_id, safe='')}"))


class Bundles:
    """BentoML packages, each built once and deployed identically."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def build(self, reference: str, *, wait: bool = True) -> Bundle:
        """Build a version's bundle, unless it exists already; the same version gives the same digest.

        Raises:
            NotReady: if the version's bytes are not verified yet.
        """
        bundle = Bundle.from_json(
            self._transport.post("/api/v1/bundles", {"reference": str(parse_model_reference(reference))})
        )
        return self.wait_ready(bundle) if wait else bundle

    def list(self, *, reference: str | None = None) -> Iterator[Bundle]:
        """Bundles, oldest first; with a reference, those of one version."""
        return map(Bundle.from_json, self._transport.items("/api/v1/bundles", reference=reference))

    def get(self, bundle_id: str) -> Bundle:
        """One bundle.

        Raises:
            BundleNotFound: if there is none of that id.
        """
        return Bundle.from_json(self._transport.get(f"/api/v1/bundles/{quote(bundle_id, safe='')}"))

    def wait_ready(self, bundle: Bundle, *, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> Bundle:
        """Wait until the bundle is built, stored and read back.

        Raises:
            FairleadError: what the worker that built it met, if trying again did not help within a minute.
            TimeoutError: if no worker finished in time.
        """
        seen = [bundle]
        first_failure: list[float] = []

        def check() -> bool:
            seen[:] = [self.get(bundle.id)]
            if seen[0].error_code is not None and not first_failure:
                first_failure.append(time.monotonic())
            is_hopeless = bool(first_failure) and time.monotonic() - first_failure[0] > _RETRIES_SECONDS
            if seen[0].state == "FAILED" or (is_hopeless and seen[0].error_code is not None):
                error: JsonObject = {"code": seen[0].error_code, "detail": seen[0].error_detail}
                raise recorded_error(error, f"Building the bundle of {bundle.reference} failed.")
            return seen[0].state == "READY"

        wait_until(check, f"the bundle of {bundle.reference}", timeout_seconds)
        return seen[0]


class Deployments:
    """Model versions that run somewhere."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def apply(
        self,
        reference: str,
        *,
        placement: str | None = None,
        regions: Sequence[str] | None = None,
        name: str | None = None,
        dry_run: bool = False,
    ) -> Deployment:
        """Create or change a deployment; with `dry_run` nothing is done, and the answer's `plan` says what would be.

        Raises:
            InvalidInput: if neither a placement nor regions are given.
            NotReady: if the version's bytes are not verified yet.
            ResidencyViolation: if the version may not be in one of the regions.
        """
        parsed = parse_model_reference(reference)
        body: dict[str, JsonValue] = {
            "name": parsed.name if name is None else parse_name(name, what="deployment"),
            "model": parsed.name,
            "environment": parsed.alias,
            "version": parsed.version,
            "placement_id": placement,
            "regions": None if regions is None else list(regions),
            "dry_run": dry_run,
        }
        answer = self._transport.post("/api/v1/deployments", body)
        if dry_run:
            shared = {key: answer[key] for key in ("name", "model", "environment", "bundle_digest")}
            planned: JsonObject = {"state": "PLANNED", "desired_version": answer["version"], "plan": answer}
            return Deployment.from_json(shared | planned)
        return Deployment.from_json(answer)

    def list(self) -> Iterator[Deployment]:
        """All deployments by name."""
        return map(Deployment.from_json, self._transport.items("/api/v1/deployments"))

    def get(self, name: str) -> Deployment:
        """One deployment with the state of each region.

        Raises:
            DeploymentNotFound: if there is none of that name.
        """
        return Deployment.from_json(self._transport.get(_path(name)))

    def delete(self, name: str) -> None:
        """Stop a deployment everywhere."""
        self._transport.request("DELETE", _path(name))

    def wait_ready(self, name: str, *, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> Deployment:
        """Wait until every region runs the wanted bundle. A region that failed is tried again meanwhile.

        Raises:
            TimeoutError: if one does not run it in time.
        """
        seen: list[Deployment] = []

        def check() -> bool:
            seen[:] = [self.get(name)]
            return seen[0].is_ready

        wait_until(check, f"{name} to run in every region", timeout_seconds)
        return seen[0]

    def predict(
        self,
        name: str,
        *,
        entities: Mapping[str, Sequence[JsonValue]] | None = None,
        rows: Sequence[JsonObject] | None = None,
    ) -> JsonObject:
        """Ask a deployment through its one endpoint, by entity keys or by ready rows of features.

        The answer's `served_by` is the region that gave it.

        Raises:
            EndpointUnavailable: if no healthy endpoint may answer.
        """
        import httpx2

        endpoint = self.get(name).endpoint
        if endpoint is None:
            raise EndpointUnavailable(
                f"{name} has no endpoint yet.", hint=f"See what it waits for with: fairlead deploy status {name}"
            )
        path, body = (
            ("predict", {"entities": dict(entities)}) if entities is not None else ("predict_rows", {"rows": rows})
        )
        try:
            response = httpx2.post(
                f"{endpoint}/{path}", json=body, timeout=PREDICT_TIMEOUT_SECONDS, trust_env=not is_loopback(endpoint)
            )
        except httpx2.RequestError as error:
            raise EndpointUnavailable(
                f"The endpoint {endpoint} does not answer.", hint=f"See: fairlead deploy status {name}"
            ) from error
        if response.is_success:
            answer: JsonObject = response.json()
            answer["served_by"] = response.headers.get("x-fairlead-region")
            return answer
        try:
            problem: object = response.json()
        except ValueError:
            problem = None
        raise from_problem(problem, status=response.status_code)


def _path(name: str) -> str:
    return f"/api/v1/deployments/{quote(parse_name(name, what='deployment'), safe='')}"

"""Deployments: model versions that run somewhere, how they came to, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fairlead.core.errors import DeploymentNotFound, EndpointUnavailable
from fairlead.core.ids import parse_model_reference, parse_name
from fairlead.core.loopback import is_loopback
from fairlead.core.problems import from_problem
from fairlead.sdk.artifacts import READY_TIMEOUT_SECONDS, wait_until
from fairlead.sdk.records import Deployment, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import JsonObject, Transport

PREDICT_TIMEOUT_SECONDS = 60.0
_FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision(Record):
    """One state that a deployment was to have, with its steps; `why` is the reason for it, or for giving it up."""

    number: int
    cause: str
    state: str
    environment: str | None = None
    version: int | None = None
    bundle_digest: str | None = None
    regions: tuple[str, ...] = ()
    strategy: dict[str, Any] | None = None
    why: str | None = None
    created_by: str
    created_at: datetime
    finished_at: datetime | None = None
    steps: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionDrift(Record):
    """How a region differs from what it should run: `none`, `missing`, `unready`, `changed`, `outdated`, ..."""

    region: str
    target: str
    drift: str
    wanted_version: int | None = None
    version: int | None = None
    wanted_digest: str | None = None
    bundle_digest: str | None = None
    details: tuple[str, ...] = ()


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
        targets: Mapping[str, str] | None = None,
        scaling: Mapping[str, JsonValue] | None = None,
        strategy: Mapping[str, JsonValue] | None = None,
        plan_digest: str | None = None,
        dry_run: bool = False,
    ) -> Deployment:
        """Create or change a deployment; with `dry_run` nothing is done, and the answer's `plan` says what would be.

        `targets` say by region where it runs, `*` for the others; `scaling` how many replicas (`min_replicas`,
        `max_replicas`, `requests_per_second_per_replica`); `strategy` how traffic moves from one version to the next,
        such as `{"canary": {"steps": [5, 25, 100], "pause": "5m", "max_error_rate": 0.01}}`.

        Raises:
            InvalidInput: if neither a placement nor regions are given, or something is wrong with the rest.
            NotReady: if the version's bytes are not verified yet.
            ResidencyViolation: if the version may not be in one of the regions.
            PlanOutdated: if a plan's digest is given, and the plan would be another one now.
        """
        parsed = parse_model_reference(reference)
        body: dict[str, JsonValue] = {
            "name": parsed.name if name is None else parse_name(name, what="deployment"),
            "model": parsed.name,
            "environment": parsed.alias,
            "version": parsed.version,
            "placement_id": placement,
            "regions": None if regions is None else list(regions),
            "targets": dict(targets or {}),
            "scaling": dict(scaling or {}),
            "strategy": None if strategy is None else dict(strategy),
            "plan_digest": plan_digest,
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

    def history(self, name: str) -> Iterator[Revision]:
        """Every state that a deployment was to have, oldest first."""
        return map(Revision.from_json, self._transport.items(f"{_path(name)}/revisions"))

    def drift(self, name: str) -> tuple[RegionDrift, ...]:
        """How what runs in each region differs from what should, asked of the targets now."""
        return tuple(map(RegionDrift.from_json, self._transport.items(f"{_path(name)}/drift")))

    def roll_back(self, name: str, *, reason: str, to_revision: int | None = None) -> Deployment:
        """Make an earlier revision the newest, in all regions at once; none named: the last that was live before.

        Where the environment points at another version by now, the deployment stays at the revision's version, and
        follows the environment again once it is applied again.

        Raises:
            NotFound: if there is no such revision that was ever live.
        """
        body: dict[str, JsonValue] = {"to_revision": to_revision, "reason": reason}
        return Deployment.from_json(self._transport.post(f"{_path(name)}/rollback", body))

    def replan(self, name: str) -> JsonObject:
        """Solve a deployment's placement anew, with what is known now.

        The answer's `placement_id` names it, and `plan` says what applying it would change. The deployment is left as
        it is.

        Raises:
            InvalidInput: if it was not placed by the engine.
            PlacementInfeasible: naming the limits to relax.
        """
        return self._transport.post(f"{_path(name)}/replan", {})

    def delete(self, name: str) -> None:
        """Stop a deployment everywhere."""
        self._transport.request("DELETE", _path(name))

    def wait_ready(
        self,
        name: str,
        *,
        timeout_seconds: float = READY_TIMEOUT_SECONDS,
        notify: Callable[[str], None] = lambda _: None,
    ) -> Deployment:
        """Wait until every region runs the wanted bundle; `notify` is told of each step as it goes on.

        A region that failed is tried again meanwhile.

        Raises:
            EndpointUnavailable: if the newest revision was given up, and the one before goes on; it says why.
            TimeoutError: if one does not run it in time.
        """
        seen: list[Deployment] = []
        told: dict[tuple[int, int], str] = {}

        def check() -> bool:
            seen[:] = [self.get(name)]
            found = seen[0]
            for step in found.steps:
                line = _line(step)
                if step["state"] != "PENDING" and told.get((found.revision, step["number"])) != line:
                    told[found.revision, step["number"]] = line
                    notify(line)
            if found.revision_state == _FAILED:
                raise EndpointUnavailable(
                    f"Revision {found.revision} of {name} was given up, and revision {found.live_revision} goes on. "
                    f"{found.failure or ''}".strip(),
                    hint=f"See its steps: fairlead deploy history {name}",
                )
            return found.is_ready

        wait_until(check, f"{name} to run in every region", timeout_seconds)
        return seen[0]

    def wait_gone(self, name: str, *, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> None:
        """Wait until a deployment that was deleted has ended everywhere.

        Raises:
            TimeoutError: if it has not in time.
        """

        def check() -> bool:
            try:
                self.get(name)
            except DeploymentNotFound:
                return True
            return False

        wait_until(check, f"{name} to end in every region", timeout_seconds)

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


def _line(step: Mapping[str, Any]) -> str:
    where = step["region"] or ("" if step["traffic_percent"] is None else f"{step['traffic_percent']} % of requests")
    detail = f" ({step['detail']})" if step["detail"] and step["state"] != "RUNNING" else ""
    return " ".join(f"{step['action']} {where}: {step['state'].lower()}{detail}".split())


def _path(name: str) -> str:
    return f"/api/v1/deployments/{quote(parse_name(name, what='deployment'), safe='')}"

"""The routes of checks of what online stores serve."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, status
from pydantic import BaseModel, Field

from fairlead.core.errors import JsonValue
from fairlead.featurestore.online_checks import PARITY, SAMPLE_MAX, OnlineCheck
from fairlead.registry.access import MayRead, MayWrite
from fairlead.registry.wire import MayRepeat
from fairlead.sync.api import Wake

if TYPE_CHECKING:
    from fairlead.featurestore.online_checks import OnlineChecks


class OnlineCheckRequest(BaseModel):
    """What to compare online stores, or what they were asked for, with."""

    kind: Annotated[
        Literal["parity", "skew"],
        Field(description="`parity`: stores with their snapshot. `skew`: what was served with a training snapshot."),
    ] = "parity"
    snapshot: Annotated[
        str | None,
        Field(max_length=80, description="None: what each region should serve (`parity`), the newest (`skew`)."),
    ] = None
    sample: Annotated[int, Field(ge=1, le=SAMPLE_MAX, description="About how many entities of each view.")] = 1000
    seed: Annotated[str, Field(max_length=80, description="The same seed takes the same entities.")] = "fairlead"
    psi: Annotated[float, Field(ge=0, description="Greatest population stability index of a feature.")] = 0.2
    ks: Annotated[float, Field(ge=0, description="Greatest Kolmogorov-Smirnov statistic of a feature.")] = 0.2

    def settings(self) -> dict[str, JsonValue]:
        """What the kind of check takes of it."""
        if self.kind == PARITY:
            return {"sample": self.sample, "seed": self.seed}
        return {"psi": self.psi, "ks": self.ks}


class RegionCheckAnswer(BaseModel):
    """What one region found. Of data under a residency class there are counts and verdicts alone."""

    region: str
    state: str
    findings: dict[str, Any] | None
    error_detail: str | None


class OnlineCheckAnswer(BaseModel):
    """A check, and what it comes to: nothing in `problems` once it is done is good."""

    id: str
    kind: str
    service: str
    snapshot: str
    settings: dict[str, Any]
    created_at: datetime
    is_done: bool
    problems: list[str]
    regions: list[RegionCheckAnswer]

    @classmethod
    def of(cls, check: OnlineCheck) -> OnlineCheckAnswer:
        """Render a check."""
        return cls(
            id=check.id,
            kind=check.kind,
            service=check.service,
            snapshot=check.snapshot,
            settings=dict(check.settings),
            created_at=check.created_at,
            is_done=check.is_done,
            problems=list(check.problems),
            regions=[
                RegionCheckAnswer(
                    region=each.region,
                    state=each.state,
                    findings=None if each.findings is None else dict(each.findings),
                    error_detail=each.error_detail,
                )
                for each in check.regions
            ],
        )


def online_checks_router(checks: OnlineChecks, wake: Wake) -> APIRouter:
    """Checks of what online stores serve."""
    router = APIRouter(prefix="/features", tags=["features"])

    @router.post("/services/{name}/checks", status_code=status.HTTP_202_ACCEPTED)
    def start_check(caller: MayWrite, name: str, body: OnlineCheckRequest, key: MayRepeat) -> OnlineCheckAnswer:
        """Have every region that serves a service compare, each within itself."""
        started = checks.start(caller, body.kind, name, snapshot=body.snapshot, settings=body.settings(), key=key)
        wake()
        return OnlineCheckAnswer.of(started)

    @router.get("/checks/{check}")
    def get_check(caller: MayRead, check: str) -> OnlineCheckAnswer:
        """Show what a check found so far."""
        return OnlineCheckAnswer.of(checks.get(caller, check))

    return router

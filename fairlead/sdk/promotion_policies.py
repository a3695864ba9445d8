"""Promotion policies and role bindings: what a promotion asks for, and whose word counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fairlead.core.errors import JsonValue, PromotionPolicyNotFound
from fairlead.core.ids import parse_name
from fairlead.sdk.records import JsonObject, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fairlead.sdk.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionPolicy(Record):
    """A policy as it was applied; `match` holds patterns of models and environments, none of them means all."""

    name: str
    match: JsonObject
    gates: tuple[JsonObject, ...] = ()
    approvals: tuple[JsonObject, ...] = ()
    signatures: JsonObject | None = None
    freezes: tuple[JsonObject, ...] = ()
    override_roles: tuple[str, ...] = ()
    required_regions: tuple[str, ...] = ()
    residency: tuple[str, ...] = ()
    revision: int
    updated_by: str
    updated_at: datetime

    def spec(self) -> JsonObject:
        """What its owners wrote, without what is empty."""
        members = self.to_json()
        for name in ("name", "revision", "updated_by", "updated_at"):
            del members[name]
        return _without_nothing(members)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleBinding(Record):
    """That a principal (or `group:NAME`) has a role for some models and environments, as patterns."""

    id: str
    principal: str
    role: str
    models: str
    environments: str
    created_by: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(Record):
    """What was measured of a version, on which dataset."""

    id: str
    reference: str
    name: str
    dataset: str | None = None
    metrics: JsonObject = field(default_factory=dict[str, Any])
    created_by: str = ""
    created_at: datetime | None = None


class PromotionPolicies:
    """What must be true before an environment points at a version."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[PromotionPolicy]:
        """All policies by name."""
        return map(PromotionPolicy.from_json, self._transport.items("/api/v1/promotion-policies"))

    def get(self, name: str) -> PromotionPolicy:
        """One policy.

        Raises:
            PromotionPolicyNotFound: if there is none of that name.
        """
        return PromotionPolicy.from_json(self._transport.get(_policy_path(name)))

    def find(self, name: str) -> PromotionPolicy | None:
        """One policy, or None."""
        try:
            return self.get(name)
        except PromotionPolicyNotFound:
            return None

    def apply(self, name: str, spec: Mapping[str, JsonValue], *, revision: int | None = None) -> PromotionPolicy:
        """Create or replace a policy: match, gates, approvals, freezes, override_roles, required_regions, residency.

        Raises:
            InvalidInput: if it could not be evaluated; for an expression with its line and column.
            StaleRevision: if a revision is given and the policy is not at it (0: not there yet).
        """
        answer = self._transport.request("PUT", _policy_path(name), body=dict(spec), if_match=revision)
        return PromotionPolicy.from_json(answer)

    def delete(self, name: str, *, revision: int | None = None) -> None:
        """Remove a policy; what it asked for is asked for no longer."""
        self._transport.request("DELETE", _policy_path(name), if_match=revision)


class RoleBindings:
    """Whose word counts, for which models in which environments."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def bind(self, principal: str, role: str, *, models: str = "*", environments: str = "*") -> RoleBinding:
        """Bind a role to a principal or `group:NAME`; one that is bound already is answered as it is."""
        body: dict[str, JsonValue] = {
            "principal": principal,
            "role": role,
            "models": models,
            "environments": environments,
        }
        return RoleBinding.from_json(self._transport.post("/api/v1/role-bindings", body))

    def list(self, *, principal: str | None = None) -> Iterator[RoleBinding]:
        """Bindings, oldest first."""
        return map(RoleBinding.from_json, self._transport.items("/api/v1/role-bindings", principal=principal))

    def unbind(self, binding_id: str) -> None:
        """Take a role away; what was approved in it stays approved."""
        self._transport.request("DELETE", f"/api/v1/role-bindings/{quote(binding_id, safe='')}")


def _policy_path(name: str) -> str:
    return f"/api/v1/promotion-policies/{quote(parse_name(name, what='promotion policy'), safe='')}"


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nothing(v) for k, v in value.items() if v not in (None, "", [], {})}  # pyright: ignore[reportUnknownVariableType]  (JSON)
    if isinstance(value, list):
        return [_without_nothing(item) for item in value]  # pyright: ignore[reportUnknownVariableType]  (JSON)
    return value

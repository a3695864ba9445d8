"""Routes of role bindings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field, StringConstraints

from fairlead.core.ids import NAME_MAX_LENGTH
from fairlead.registry.access import MayAdmin, MayRead
from fairlead.registry.promotion_policy import ROLE_MAX_LENGTH
from fairlead.registry.wire import AnswerModel, Listing, MayRepeat, RequestModel, Time, WantedPage, listing

if TYPE_CHECKING:
    from fairlead.registry.role_bindings import RoleBindings

_Text = Annotated[str, StringConstraints(min_length=1, max_length=NAME_MAX_LENGTH)]


class RoleBindingIn(RequestModel):
    """Who gets which role, for which models in which environments (patterns)."""

    principal: Annotated[_Text, Field(description="A principal, or `group:NAME`.", examples=["ana", "group:risk"])]
    role: Annotated[str, StringConstraints(min_length=1, max_length=ROLE_MAX_LENGTH), Field(examples=["on-call"])]
    models: _Text = "*"
    environments: _Text = "*"


class RoleBindingOut(AnswerModel):
    """Who has which role, for which models in which environments."""

    id: str
    principal: str
    role: str
    models: str
    environments: str
    created_by: str
    created_at: Time


def role_bindings_router(bindings: RoleBindings) -> APIRouter:
    """Who has which role."""
    router = APIRouter(tags=["roles"])

    @router.post("/role-bindings", status_code=201, response_model=RoleBindingOut)
    def bind_role(body: RoleBindingIn, caller: MayAdmin, key: MayRepeat) -> Any:
        """Bind a role; one that is bound already is answered as it is."""
        return bindings.bind(
            caller,
            principal=body.principal,
            role=body.role,
            models=body.models,
            environments=body.environments,
            key=key,
        )

    @router.get("/role-bindings", response_model=Listing[RoleBindingOut])
    def list_role_bindings(caller: MayRead, page: WantedPage, principal: Annotated[str | None, Query()] = None) -> Any:
        """List who has which role."""
        return listing(RoleBindingOut, bindings.list(caller, page, principal=principal))

    @router.delete("/role-bindings/{binding}", status_code=204)
    def unbind_role(binding: str, caller: MayAdmin) -> None:
        """Take a role away."""
        bindings.unbind(caller, binding)

    return router

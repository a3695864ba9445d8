"""Routes of budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response

from fairlead.registry.access import MayAdmin, MayRead
from fairlead.registry.wire import IfMatch, Listing, WantedPage, etag, listing
from fairlead.sync.schemas_budgets import BudgetIn, BudgetOut

if TYPE_CHECKING:
    from collections.abc import Callable

    from fairlead.sync.budgets import Budgets


def budgets_router(budgets: Budgets, wake: Callable[[], None]) -> APIRouter:
    """Budgets."""
    router = APIRouter(tags=["budgets"])

    @router.get("/budgets", response_model=Listing[BudgetOut])
    def list_budgets(caller: MayRead, page: WantedPage) -> Any:
        """List the budgets by name, with what is spent and reserved of each."""
        return listing(BudgetOut, budgets.list(caller, page))

    @router.get("/budgets/{name}", response_model=BudgetOut)
    def get_budget(name: str, caller: MayRead, response: Response) -> Any:
        """Show a budget; its revision is the ETag."""
        found = budgets.get(caller, name)
        response.headers.update(etag(found.revision))
        return found

    @router.put("/budgets/{name}", response_model=BudgetOut)
    def put_budget(name: str, body: BudgetIn, caller: MayAdmin, expected: IfMatch, response: Response) -> Any:
        """Set a budget. With `If-Match`, only if it is still at that revision ("0": not there yet)."""
        found = budgets.put(caller, name, **body.model_dump(), expected_revision=expected)
        response.headers.update(etag(found.revision))
        wake()
        return found

    @router.delete("/budgets/{name}", status_code=204)
    def delete_budget(name: str, caller: MayAdmin, expected: IfMatch) -> None:
        """Delete a budget; copies that it kept waiting go on."""
        budgets.delete(caller, name, expected_revision=expected)
        wake()

    return router

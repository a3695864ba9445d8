"""The kinds of deploy targets by name, and the ways in which each gets to its platform.

A kind is a module of this package that has a constant `KIND`; a delivery is one of a module's `DELIVERIES`. Each is
imported when it is first asked for, so that nobody waits for what they do not use.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from fairlead.core.errors import InvalidInput
from fairlead.serving.targets import Delivery
from fairlead.serving.workload import AnyKind, TargetSettings

KINDS: Mapping[str, str] = {
    "local": "local",
    "kubernetes": "kubernetes",
    "kserve": "kserve",
    "seldon": "seldon",
    "ray": "ray",
    "kubeflow": "kubeflow",
    "crossplane": "crossplane",
    "terraform": "terraform",
    "skypilot": "skypilot",
    "bentocloud": "bentocloud",
}
"""The module of this package that has each kind."""

DELIVERIES: Mapping[str, str] = {
    "process": "local_target",
    "cluster": "cluster_target",
    "folder": "repository_target",
    "git": "repository_target",
}
"""The module of `fairlead.serving` that has each delivery."""

Checked = TypeVar("Checked", bound=TargetSettings)


def installed_kinds() -> tuple[str, ...]:
    """The names of the kinds that are part of this installation."""
    return tuple(name for name, module in KINDS.items() if find_spec(f"fairlead.serving.kinds.{module}") is not None)


def find_kind(name: str) -> AnyKind:
    """A kind by its name.

    Raises:
        InvalidInput: if there is none, or it is not part of this installation.
    """
    module = _load(f"fairlead.serving.kinds.{KINDS.get(name, '')}", is_known=name in KINDS)
    if module is None:
        raise InvalidInput(
            f"There is no kind of target {name[:80]!r}.", hint=f"Use one of {', '.join(installed_kinds())}."
        )
    return cast("AnyKind", module.KIND)


def find_delivery(name: str, kind: AnyKind) -> Delivery:
    """A delivery by its name, if the kind can be delivered so.

    Raises:
        InvalidInput: if there is none, or the kind has no such delivery.
    """
    known = name in DELIVERIES and name in kind.deliveries
    module = _load(f"fairlead.serving.{DELIVERIES.get(name, '')}", is_known=known)
    if module is None:
        raise InvalidInput(
            f"A target of kind {kind.name} is not delivered by {name[:80]!r}.",
            hint=f"Use one of {', '.join(kind.deliveries)}.",
        )
    return cast("Mapping[str, Delivery]", module.DELIVERIES)[name]


def check_settings(cls: type[Checked], values: Mapping[str, Any], *, what: str) -> Checked:
    """Settings as their class; `what` is the member of the document that holds them.

    Raises:
        InvalidInput: naming the member that is wrong in the attribute `pointer`.
    """
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        pointer = "/".join(["", what, *(str(part) for part in first["loc"])])
        raise InvalidInput(
            f"{pointer}: {first['msg']}.", hint="See docs/reference/targets.md.", pointer=pointer
        ) from None


def _load(module: str, *, is_known: bool) -> Any:
    if not is_known:
        return None
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None

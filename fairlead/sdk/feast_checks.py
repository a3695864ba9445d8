"""Feast at once: its type checks are compiled when they are needed.

Feast has a check compiled into every method of its definitions while it is imported, which takes three times as long as
all else of the import. A repository calls some twenty of those methods.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from inspect import isclass, isfunction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


@contextmanager
def deferring_checks() -> Generator[None]:
    """While the block imports parts of Feast, their methods get checks that are compiled at the first call."""
    import typeguard

    checked: Any = typeguard.typechecked
    typeguard.typechecked = functools.partial(_deferred, checked)
    try:
        yield
    finally:
        typeguard.typechecked = checked


def _deferred(checked: Any, target: Any = None, **options: Any) -> Any:
    """`typechecked`, later: what it does to a class or function is done to each function when that is first called."""
    if target is None:
        return functools.partial(_deferred, checked, **options)
    if isfunction(target):
        return _checked_when_called(checked, target)
    if not isclass(target):
        return checked(target, **options)
    for name, member in list(vars(target).items()):
        if _is_method(member, target):
            setattr(target, name, _checked_when_called(checked, member))
        elif isinstance(member, classmethod | staticmethod) and _is_method(member.__func__, target):
            setattr(target, name, type(member)(_checked_when_called(checked, member.__func__)))
        elif isinstance(member, property):
            parts: list[Any] = [
                _checked_when_called(checked, part) if part is not None and _is_method(part, target) else part
                for part in (member.fget, member.fset, member.fdel)
            ]
            setattr(target, name, property(*parts, doc=member.__doc__))
    return target


def _is_method(member: object, target: type) -> bool:
    return (
        isfunction(member)
        and member.__module__ == target.__module__
        and member.__qualname__.startswith(f"{target.__qualname__}.")
        and not hasattr(member, "__wrapped__")
    )


def _checked_when_called(checked: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.cache
    def compiled() -> Callable[..., Any]:
        return checked(function)

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        return compiled()(*arguments, **named)

    return call

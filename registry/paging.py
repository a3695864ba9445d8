"""Keyset pages: a token says where the last page ended, so a list neither skips nor repeats a row while others write.

Tokens are opaque to callers and versioned. Each is bound to what was listed (the list, its workspace and its filter):
one that comes back with another question is refused. A token grants nothing; it only names a position.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from fairlead.core.errors import InvalidInput, InvalidPageToken

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 500

_VERSION = 1
_MAX_TOKEN_LENGTH = 4096

Item = TypeVar("Item")
Rendered = TypeVar("Rendered")
Row = TypeVar("Row")
KeyValue = str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Item]):
    """Some items of a list, and the token of the next page; None after the last one."""

    items: tuple[Item, ...]
    next_page_token: str | None

    def map(self, render: Callable[[Item], Rendered]) -> Page[Rendered]:
        """The same page, each item rendered."""
        return Page(items=tuple(render(item) for item in self.items), next_page_token=self.next_page_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which page a caller asks for: at most `size` items (1 to 500), from where `token` says."""

    size: int = DEFAULT_PAGE_SIZE
    token: str | None = None

    def fetch(
        self,
        session: Session,
        query: Select[Row],
        keys: Sequence[InstrumentedAttribute[Any]],
        *,
        listing: Sequence[str | int | None],
        descending: bool = False,
    ) -> Page[Row]:
        """Read one page of a query, ordered by `keys`, which together are unique and not null.

        `listing` says what is listed: its name, the workspace and every filter of the query.

        Raises:
            InvalidInput: if the page's size is out of range.
            InvalidPageToken: if the token was made for another list or filter.
        """
        if not 1 <= self.size <= MAX_PAGE_SIZE:
            raise InvalidInput(f"A page holds 1 to {MAX_PAGE_SIZE} items, not {self.size}.", hint="Lower page_size.")
        bound_to = _fingerprint(listing)
        if self.token is not None:
            position = tuple_(*keys)
            last = tuple_(*_decode(self.token, bound_to, [key.type.python_type for key in keys]))
            query = query.where(position < last if descending else position > last)
        query = query.order_by(*(key.desc() if descending else key for key in keys)).limit(self.size + 1)
        rows = session.scalars(query).all()
        shown = rows[: self.size]
        token = None
        if len(rows) > self.size:
            token = _encode(bound_to, [cast("KeyValue", getattr(shown[-1], key.key)) for key in keys])
        return Page(items=tuple(shown), next_page_token=token)

    def cut(
        self, items: Iterable[Item], key: Callable[[Item], str], *, listing: Sequence[str | int | None]
    ) -> Page[Item]:
        """Cut one page out of a list in memory, ordered by a key that is unique and printable.

        Raises:
            InvalidInput, InvalidPageToken: as `fetch` does.
        """
        if not 1 <= self.size <= MAX_PAGE_SIZE:
            raise InvalidInput(f"A page holds 1 to {MAX_PAGE_SIZE} items, not {self.size}.", hint="Lower page_size.")
        bound_to = _fingerprint(listing)
        after = None if self.token is None else str(_decode(self.token, bound_to, [str])[0])
        rest = sorted((item for item in items if after is None or key(item) > after), key=key)
        shown = rest[: self.size]
        token = _encode(bound_to, [key(shown[-1])]) if len(rest) > self.size else None
        return Page(items=tuple(shown), next_page_token=token)


def _fingerprint(listing: Sequence[str | int | None]) -> str:
    return hashlib.sha256(json.dumps(list(listing)).encode()).hexdigest()[:16]


def _encode(bound_to: str, values: Sequence[KeyValue]) -> str:
    members = json.dumps([_VERSION, bound_to, *values], separators=(",", ":"))
    return base64.urlsafe_b64encode(members.encode()).decode().rstrip("=")


def _decode(token: str, bound_to: str, types: Sequence[type]) -> list[KeyValue]:
    hint = "Begin again without page_token."
    if len(token) > _MAX_TOKEN_LENGTH:
        raise InvalidPageToken("The page token is longer than any that was issued.", hint=hint)
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        decoded = cast("object", json.loads(base64.b64decode(padded, altchars=b"-_", validate=True)))
    except (ValueError, binascii.Error, RecursionError):
        raise InvalidPageToken("The page token is damaged.", hint=hint) from None
    members = cast("list[object]", decoded) if isinstance(decoded, list) else []
    if len(members) != len(types) + 2 or members[0] != _VERSION:
        raise InvalidPageToken("The page token is damaged or from another version of Fairlead.", hint=hint)
    if members[1] != bound_to:
        raise InvalidPageToken("The page token belongs to another list or filter.", hint=hint)
    values = members[2:]
    if not all(_is_key(value, kind) for value, kind in zip(values, types, strict=True)):
        raise InvalidPageToken("The page token is damaged.", hint=hint)
    return cast("list[KeyValue]", values)


def _is_key(value: object, kind: type) -> bool:
    if isinstance(value, str):
        return kind is str and value.isprintable()
    return kind is int and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63

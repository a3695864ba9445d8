"""MLflow's search grammar: comparisons joined by AND, and `order_by` clauses.

    name = 'churn' AND tags.team LIKE '%risk%' AND run_id IN ('a', 'b') AND version_number > 3

An attribute may be written `attribute.name`; a tag's key may stand in backticks or double quotes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fairlead.core.errors import InvalidInput
from fairlead.registry.limits import parse_text

FILTER_MAX_LENGTH = 10_000
CLAUSES_MAX = 40
ITEMS_MAX = 1_000
PROMPT_TAG = "mlflow.prompt.is_prompt"

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>'(?:[^']|'')*'|"[^"]*")
      | (?P<number>-?\d+(?:\.\d+)?)(?![\w.])
      | (?P<operator>!=|>=|<=|=|>|<)
      | (?P<mark>[(),])
      | (?P<word>[A-Za-z_][\w\-]*(?:\.(?:`[^`]*`|"[^"]*"|[\w\-./:@]+))*|`[^`]*`)
    )""",
    re.VERBOSE,
)
_EQUALITY = frozenset({"=", "!=", "LIKE", "ILIKE"})
_ORDER = frozenset({"=", "!=", ">", ">=", "<", "<="})
_MEMBERSHIP = frozenset({"IN", "NOT IN"})
_ORDER_BY = re.compile(r"\s*(?:attributes?\.)?[`\"]?(\w+)[`\"]?(?:\s+(asc|desc))?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One comparison: of an attribute, or of a tag."""

    kind: Literal["attribute", "tag"]
    key: str
    comparator: str
    value: str | float | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What may be compared and ordered by, of models or of versions."""

    texts: frozenset[str]
    numbers: frozenset[str]
    lists: frozenset[str]
    orders: frozenset[str]


MODELS = Grammar(
    texts=frozenset({"name"}),
    numbers=frozenset(),
    lists=frozenset({"name"}),
    orders=frozenset({"name", "creation_timestamp", "last_updated_timestamp"}),
)
VERSIONS = Grammar(
    texts=frozenset({"name", "run_id", "source_path"}),
    numbers=frozenset({"version_number"}),
    lists=frozenset({"name", "run_id"}),
    orders=frozenset({"name", "version_number", "creation_timestamp", "last_updated_timestamp"}),
)


def parse_filter(text: str | None, grammar: Grammar) -> tuple[Clause, ...]:
    """The comparisons of a filter; none of an empty one.

    Raises:
        InvalidInput: with the place that cannot be read, or what cannot be compared so.
    """
    if text is None or not text.strip():
        return ()
    tokens = _Tokens(parse_text(text, what="filter", max_length=FILTER_MAX_LENGTH))
    clauses = [_parse_clause(tokens, grammar)]
    while tokens.peek() is not None:
        if tokens.take()[1].upper() != "AND":
            raise tokens.refusal("comparisons are joined by AND")
        clauses.append(_parse_clause(tokens, grammar))
        if len(clauses) > CLAUSES_MAX:
            raise tokens.refusal(f"it has more than {CLAUSES_MAX} comparisons")
    return tuple(clauses)


def parse_order_by(clauses: Sequence[str], grammar: Grammar) -> tuple[tuple[str, bool], ...]:
    """What to order by, each with whether it ascends.

    Raises:
        InvalidInput: naming the clause that cannot be read.
    """
    found: dict[str, bool] = {}
    for clause in clauses:
        match = _ORDER_BY.fullmatch(clause[:200])
        # The name that older clients send.
        key = {"timestamp": "last_updated_timestamp"}.get(match[1], match[1]) if match else ""
        if match is None or key not in grammar.orders:
            raise InvalidInput(
                f"Invalid order_by clause '{clause[:100]}'.",
                hint=f"Order by {', '.join(sorted(grammar.orders))}, followed by ASC or DESC.",
            )
        found.setdefault(key, (match[2] or "asc").lower() == "asc")
    return tuple(found.items())


def asks_for_prompts(clauses: Sequence[Clause]) -> bool:
    """Whether a filter is about prompts; if it is not, they are left out of what is found."""
    for clause in clauses:
        if clause.kind == "tag" and clause.key == PROMPT_TAG:
            return (clause.comparator, str(clause.value).lower()) in {("=", "true"), ("!=", "false")}
    return False


class _Tokens:
    def __init__(self, text: str) -> None:
        self._text = text
        self._found: list[tuple[str, str]] = []
        self._next = 0
        place = 0
        while text[place:].strip():
            match = _TOKEN.match(text, place)
            if match is None:
                raise self.refusal(f"{text[place : place + 20].strip()!r} cannot be read")
            self._found.append((str(match.lastgroup), match[str(match.lastgroup)]))
            place = match.end()

    def peek(self) -> tuple[str, str] | None:
        return self._found[self._next] if self._next < len(self._found) else None

    def take(self) -> tuple[str, str]:
        found = self.peek()
        if found is None:
            raise self.refusal("it ends too early")
        self._next += 1
        return found

    def refusal(self, reason: str) -> InvalidInput:
        return InvalidInput(
            f"Invalid filter '{self._text[:200]}': {reason}.",
            hint="Write comparisons such as name = 'x' AND tags.team LIKE 'risk%'.",
        )


def _parse_clause(tokens: _Tokens, grammar: Grammar) -> Clause:
    kind, word = tokens.take()
    if kind != "word":
        raise tokens.refusal(f"{word[:40]!r} is nothing to compare")
    entity, dot, rest = word.partition(".")
    if dot and entity not in {"attribute", "attributes", "tag", "tags"}:
        raise tokens.refusal(f"{entity[:40]!r} is neither attribute nor tag")
    is_tag = bool(dot) and entity in {"tag", "tags"}
    key = (rest if dot else word).strip('`"')
    if not is_tag and key not in grammar.texts | grammar.numbers:
        known = ", ".join(sorted(grammar.texts | grammar.numbers))
        raise tokens.refusal(f"{key[:40]!r} is none of the attributes {known}")
    comparator = tokens.take()[1].upper()
    if comparator == "NOT" and (tokens.peek() or ("", ""))[1].upper() == "IN":
        tokens.take()
        comparator = "NOT IN"
    allowed = _ORDER if not is_tag and key in grammar.numbers else _EQUALITY
    if not is_tag and key in grammar.lists:
        allowed |= _MEMBERSHIP
    if comparator not in allowed:
        raise tokens.refusal(f"{key[:40]!r} is compared by {', '.join(sorted(allowed))}, not by {comparator[:20]!r}")
    value = _parse_list(tokens) if comparator in _MEMBERSHIP else _parse_value(tokens, is_number=allowed == _ORDER)
    return Clause(kind="tag" if is_tag else "attribute", key=key, comparator=comparator, value=value)


def _parse_value(tokens: _Tokens, *, is_number: bool) -> str | float:
    kind, value = tokens.take()
    if is_number:
        if kind != "number" or len(value) > 18:
            raise tokens.refusal(f"{value[:40]!r} is no number")
        return float(value) if "." in value else int(value)
    if kind != "string":
        raise tokens.refusal(f"{value[:40]!r} is no text in quotes")
    return _unquote(value)


def _parse_list(tokens: _Tokens) -> tuple[str, ...]:
    if tokens.take()[1] != "(":
        raise tokens.refusal("IN wants a list in parentheses")
    items: list[str] = []
    while True:
        kind, value = tokens.take()
        if kind != "string":
            raise tokens.refusal(f"{value[:40]!r} is no text in quotes")
        items.append(_unquote(value))
        mark = tokens.take()[1]
        if mark == ")":
            return tuple(items)
        if mark != "," or len(items) >= ITEMS_MAX:
            raise tokens.refusal("the list cannot be read, or is too long")


def _unquote(value: str) -> str:
    return value[1:-1].replace("''", "'") if value[0] == "'" else value[1:-1]

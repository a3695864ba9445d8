"""What a caller may do: scopes, roles and the models and environments that they are for. Nothing else grants anything.

A token's scopes are its ceiling. A token that goes *by roles* may do beneath it what the roles of its principal and
groups give; any other may do all of it. Both may be limited to some models and environments. What is held for every
model and environment is in `Caller.scopes`; what is held for some is in `Caller.grants`, and whatever neither holds is
refused.

Environments limit what moves or runs something in one: promoting, approving and deploying. Reading and writing are of
models alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, cast, get_args

from fairlead.core.errors import InvalidInput
from fairlead.core.ids import NAME_MAX_LENGTH
from fairlead.registry.limits import parse_text

Scope = Literal["read", "write", "promote", "approve", "deploy", "admin", "server"]
SCOPES: frozenset[Scope] = frozenset(get_args(Scope))
WORKSPACE_SCOPES: frozenset[Scope] = SCOPES - {"server"}
"""What may be had in a workspace; `admin` implies them all. `server` is beside them: it makes workspaces."""

OF_ENVIRONMENTS: frozenset[Scope] = frozenset({"promote", "approve", "deploy", "admin"})
ROLES: Mapping[str, frozenset[Scope]] = {
    "viewer": frozenset({"read"}),
    "contributor": frozenset({"read", "write"}),
    "promoter": frozenset({"read", "promote"}),
    "approver": frozenset({"read", "approve"}),
    "deployer": frozenset({"read", "deploy"}),
    "admin": WORKSPACE_SCOPES,
}
"""The built-in roles. Any other name is a role too: one that promotion policies ask for, and that gives no scope."""

PATTERNS_MAX = 20

Patterns = tuple[str, ...]


class Grant(NamedTuple):
    """Scopes for the models, and in the environments, that match every one of the patterns; none: for all."""

    scopes: frozenset[Scope]
    models: Patterns
    environments: Patterns


class RoleGrant(NamedTuple):
    """A role that somebody has, for a pattern of models and one of environments."""

    role: str
    models: str
    environments: str


def evaluate(
    ceiling: Iterable[str],
    *,
    models: Sequence[str] | None = None,
    environments: Sequence[str] | None = None,
    roles: Iterable[RoleGrant] | None = None,
) -> tuple[frozenset[Scope], tuple[Grant, ...]]:
    """What is held for everything, and what for some models and environments.

    `models` and `environments` are what a token is limited to (None: all), `roles` those of its holder (None: the token
    does not go by roles).
    """
    most = _implied(cast("Iterable[Scope]", ceiling))
    if roles is None and models is None and environments is None:
        return frozenset(cast("Iterable[Scope]", ceiling)), ()
    sources = [(WORKSPACE_SCOPES, "*", "*")] if roles is None else [(_scopes_of(role), *role[1:]) for role in roles]
    held: defaultdict[tuple[Patterns, Patterns], set[Scope]] = defaultdict(set)
    for scopes, of_models, of_environments in sources:
        for model in models or ("*",):
            for environment in environments or ("*",):
                for scope in scopes & most:
                    named = _patterns(of_environments, environment) if scope in OF_ENVIRONMENTS else ()
                    held[_patterns(of_models, model), named].add(scope)
    everywhere = frozenset(held.pop(((), ()), set()))
    return everywhere, tuple(Grant(frozenset(held[key]), *key) for key in sorted(held))


def is_match(patterns: Patterns, name: str) -> bool:
    """Whether a name matches every pattern."""
    return all(fnmatchcase(name, pattern) for pattern in patterns)


def parse_patterns(patterns: Sequence[str] | None, *, what: str) -> list[str] | None:
    """Check what a token is to be limited to, and put it in order; None: it is not.

    Raises:
        InvalidInput: if there is none, one too many, or one that is no pattern.
    """
    if patterns is None:
        return None
    if not 1 <= len(patterns) <= PATTERNS_MAX:
        raise InvalidInput(f"A token is limited to 1 to {PATTERNS_MAX} patterns of {what}.", hint="Leave out for all.")
    for pattern in patterns:
        parse_text(pattern, what=f"pattern of {what}", max_length=NAME_MAX_LENGTH)
        if not is_grantable(pattern):
            raise InvalidInput(
                f"{pattern[:80]!r} is no pattern of {what}.", hint="Wild cards are * (anything) and ? (one character)."
            )
    found = sorted(set(patterns))
    return None if "*" in found else found


def is_grantable(pattern: str) -> bool:
    """Whether a pattern may say what something is granted for; sets of characters are not compared by databases."""
    return bool(pattern) and "[" not in pattern


def _implied(scopes: Iterable[Scope]) -> frozenset[Scope]:
    found = frozenset(scopes)
    return found | WORKSPACE_SCOPES if "admin" in found else found


def _scopes_of(role: RoleGrant) -> frozenset[Scope]:
    is_understood = is_grantable(role.models) and is_grantable(role.environments)
    return ROLES.get(role.role, frozenset()) if is_understood else frozenset()


def _patterns(*patterns: str) -> Patterns:
    return tuple(sorted({pattern for pattern in patterns if pattern != "*"}))

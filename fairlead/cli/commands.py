"""The commands by their first word, so that one command loads its own part of the code and no other."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead import __version__
from fairlead.cli.context import group

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A group of commands, or some that stand alone: its words, and where it is written down."""

    words: tuple[str, ...]
    module: str
    app: str = "app"
    # Further modules, which add commands to the group when they are imported.
    also: tuple[str, ...] = ()
    # The class of a group that takes more than the names of its commands.
    kind: str | None = None
    stands_alone: bool = False


def _group(word: str, module: str, app: str = "app", *, also: Sequence[str] = (), kind: str | None = None) -> Part:
    return Part(words=(word,), module=module, app=app, also=tuple(also), kind=kind)


def _alone(module: str, *words: str, app: str = "app") -> Part:
    return Part(words=words, module=module, app=app, stands_alone=True)


PARTS = (
    _alone("server", "server", "worker", "stop", "db"),
    _group("model", "model", also=("lifecycle", "promotions", "signer")),
    _group("artifact", "artifact"),
    _alone("artifact", "verify", app="verify_app"),
    _group("features", "features_all"),
    _group("stream", "feature_streams"),
    _group("agent", "agent"),
    _group("environment", "environment"),
    _group("policy", "policy"),
    _group("role", "policy", "role_app"),
    _group("location", "location"),
    _group("replica-policy", "replica_policy"),
    _group("retention", "lifecycle"),
    _group("replicate", "replicate"),
    _alone("deploy", "place", "predict"),
    _group("bundle", "bundle", kind="BundleGroup"),
    _group("images", "images"),
    _group("profile", "profile", kind="ProfileGroup"),
    _group("deploy", "deployments"),
    _group("target", "target"),
    _group("catalog", "catalog"),
    _group("keys", "keys"),
    _group("record", "record"),
    _alone("record", "restore", app="restore_app"),
    _alone("login", "login", "logout", "whoami"),
    _group("token", "token"),
    _group("workspace", "workspace"),
    _group("signer", "signer"),
    _group("issuer", "issuer"),
    _alone("audit", "ledger"),
    _group("audit", "audit", "audit_app"),
    _alone("events", "events"),
    _alone("lineage", "lineage"),
    _group("webhook", "webhook"),
    _alone("work", "work"),
    _alone("scrub", "scrub"),
    _group("store", "store"),
    _group("budget", "budget"),
    _group("cache", "cache"),
    _group("tracking-server", "tracking_server"),
    _group("import", "imports"),
)


def command_line(word: str | None = None) -> typer.Typer:
    """The command `fairlead`: the parts with this word, or all of them where no part has it."""
    app = group("Models and features, versioned once and true in every cloud they may go to.", add_completion=True)
    app.callback(invoke_without_command=True, no_args_is_help=True)(_root)
    for part in [part for part in PARTS if word in part.words] or PARTS:
        module: Any = import_module(f"fairlead.cli.{part.module}")
        for other in part.also:
            import_module(f"fairlead.cli.{other}")
        more = {} if part.kind is None else {"cls": getattr(module, part.kind)}
        app.add_typer(getattr(module, part.app), name=None if part.stands_alone else part.words[0], **more)
    return app


def _root(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False
) -> None:
    """Models and features, versioned once and true in every cloud they may go to."""
    if version:
        sys.stdout.write(f"fairlead {__version__}\n")
        raise typer.Exit

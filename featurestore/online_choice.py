"""Which engine keeps the online stores of which region, as this machine is configured.

The setting is text: the name of an engine (`sqlite`, `redis`), or JSON with its options, for every region or by region:

    {"type": "redis", "url": "redis://10.0.0.7:6379/0"}
    {"aws:us-east-1": {"type": "redis", "url": "..."}, "*": {"type": "sqlite"}}

A type is `sqlite`, `redis`, `feast:CLASS_PATH` (any online store of Feast's), or the class path of an engine, whose
class is called with the options and the folder of this machine's stores. Options may hold secrets: they stay here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, cast

from fairlead.core.errors import InvalidInput, MissingExtra
from fairlead.featurestore.online_engines import OnlineEngine
from fairlead.featurestore.online_sqlite import OnlineFolder

EVERY_REGION = "*"

_SHORT_NAMES = {
    "sqlite": "fairlead.featurestore.online_sqlite.SqliteEngine",
    "redis": "fairlead.featurestore.online_redis.RedisEngine",
}
_FEAST = "feast:"
_FEAST_ENGINE = "fairlead.featurestore.online_feast.FeastEngine"
_HINT = (
    'Set FAIRLEAD_FEATURE_ONLINE_ENGINE to sqlite, redis, or JSON such as {"type": "redis", "url": "redis://HOST:6379"}'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """An engine's type and its options, which may hold secrets and are not shown."""

    type: str = "sqlite"
    options: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)


class EngineClass(Protocol):
    """What a class path of an engine leads to."""

    def __call__(self, options: Mapping[str, Any], folder: OnlineFolder) -> OnlineEngine:
        """An engine with these options; raises `InvalidInput` for one that is missing or unknown."""
        ...


def read_choices(setting: str) -> dict[str, EngineChoice]:
    """What a setting says, by region; `EVERY_REGION` stands for those that are not named.

    Raises:
        InvalidInput: if it is neither a name nor such JSON. The message holds nothing of it.
    """
    if not setting.lstrip().startswith("{"):
        return {EVERY_REGION: EngineChoice(type=setting.strip() or "sqlite")}
    try:
        found: Any = json.loads(setting)
    except ValueError:
        raise InvalidInput("The setting of the online engine is no JSON.", hint=_HINT) from None
    by_region = cast("dict[str, Any]", {EVERY_REGION: found} if "type" in found else found)
    choices: dict[str, EngineChoice] = {}
    for region, options in by_region.items():
        if not isinstance(options, dict) or not isinstance(cast("dict[str, Any]", options).get("type"), str):
            raise InvalidInput(f"The setting of the online engine names no type for {region[:63]!r}.", hint=_HINT)
        rest = dict(cast("dict[str, Any]", options))
        choices[region] = EngineChoice(type=rest.pop("type"), options=rest)
    return choices


class OnlineEngines:
    """Gives each region's engine; it is made when it is first asked for."""

    def __init__(self, folder: OnlineFolder, choices: Mapping[str, EngineChoice] | None = None) -> None:
        self.folder = folder
        self._choices = choices or {}
        self._made: dict[str, OnlineEngine] = {}
        self._lock = threading.Lock()

    def of(self, region: str) -> OnlineEngine:
        """The engine that keeps a region's stores.

        Raises:
            InvalidInput: if there is no such engine, or its options are wrong.
            MissingExtra: if what it needs is not installed.
        """
        named = region if region in self._choices else EVERY_REGION
        with self._lock:
            if named not in self._made:
                self._made[named] = _make(self._choices.get(named, EngineChoice()), self.folder)
            return self._made[named]


def _make(choice: EngineChoice, folder: OnlineFolder) -> OnlineEngine:
    options = dict(choice.options)
    path = _SHORT_NAMES.get(choice.type, choice.type)
    if choice.type.startswith(_FEAST):
        path, options["type"] = _FEAST_ENGINE, choice.type.removeprefix(_FEAST)
    module, _, name = path.rpartition(".")
    try:
        made: EngineClass = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is not None and not path.startswith(error.name):
            raise MissingExtra(
                f"The online engine {choice.type!r} needs {error.name}.",
                hint="Run: pip install 'fairlead[features,redis]'",
            ) from error
        raise _unknown(choice) from None
    except (ImportError, AttributeError, ValueError):
        raise _unknown(choice) from None
    return made(options, folder)


def _unknown(choice: EngineChoice) -> InvalidInput:
    return InvalidInput(f"There is no online engine {choice.type[:120]!r}.", hint=_HINT)

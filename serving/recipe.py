"""What a bundle is made of. Equal recipes give equal bundles, whoever builds them, when and where."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.core.ids import Digest, digest_hex, parse_digest, sha256_digest
from fairlead.serving.requirements import PYTHONS, SERVICE_REQUIREMENTS, parse_lock, release_lock

RECIPE_FORMAT = 2
SERVICE_MAX_BYTES = 256 * 2**10
_SOURCES = (
    ("fairlead.serving.bundled", "service.py"),
    ("fairlead.serving.bundled", "model_runner.py"),
    ("fairlead.serving.bundled", "model_loaders.py"),
    ("fairlead.serving.bundled", "batcher.py"),
    ("fairlead.serving.bundled", "tracing.py"),
    ("fairlead.serving.bundled", "bodies.py"),
    ("fairlead.serving.bundled", "on_demand.py"),
    ("fairlead.featurestore", "online_reader.py"),
    ("fairlead.featurestore", "on_demand_code.py"),
)
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:-]*@sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that shapes a bundle, beside the files of its version.

    `service_file` is a path in the version's files, `service_source` the text of one that was given; with either the
    user's own service is bundled in place of the generated one. `lock` is the text of a lock that was given. `python`
    is used where the version does not say which one it was made with. `feature_service_digest` is the version of the
    feature service whose keys and on-demand functions are bundled.
    """

    reference: str
    artifact_digest: Digest
    feature_service: str | None
    feature_service_digest: str | None = None
    base_image: str | None = None
    python: str = PYTHONS[0]
    allows_pickle: bool = False
    service_file: str | None = None
    service_source: str | None = None
    lock: str | None = None

    @property
    def digest(self) -> Digest:
        """Names the recipe together with the code and the release's lock that go into every bundle."""
        sources: list[JsonValue] = [sha256_digest(data) for _, data in bundled_sources()]
        return sha256_digest(canonical_json({**self.facts(), "sources": sources, "release": _release_digest()}))

    def facts(self) -> dict[str, JsonValue]:
        """The recipe as JSON."""
        return {
            "format": RECIPE_FORMAT,
            "reference": self.reference,
            "artifact_digest": self.artifact_digest,
            "feature_service": self.feature_service,
            "feature_service_digest": self.feature_service_digest,
            "service_name": self.service_name,
            "base_image": self.base_image,
            "python": self.python,
            "allows_pickle": self.allows_pickle,
            "service_file": self.service_file,
            "service_source": self.service_source,
            "lock": self.lock,
        }

    def with_facts(self, facts: Mapping[str, Any]) -> Recipe:
        """This version's recipe with all that a kept one said beside it."""
        kept = ("feature_service_digest", "base_image", "python", "allows_pickle")
        kept += ("service_file", "service_source", "lock")
        return replace(self, **{name: facts[name] for name in kept if name in facts})

    @property
    def service_name(self) -> str:
        """The model's name, brought to the letters that BentoML permits."""
        name = re.sub(r"[^a-z0-9]+", "_", self.reference.rpartition("/")[0].lower()).strip("_")
        return name if name[:1].isalpha() else f"model_{name}".rstrip("_")

    @property
    def version(self) -> str:
        """BentoML's version: derived, where BentoML would take the time."""
        return digest_hex(self.artifact_digest)[:32]


def bento_of(reference: str, artifact_digest: str) -> str:
    """Name and version that BentoML knows a model version's bundle by."""
    recipe = Recipe(reference=reference, artifact_digest=parse_digest(artifact_digest), feature_service=None)
    return f"{recipe.service_name}:{recipe.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRules:
    """What the settings say of every bundle.

    `package_index` is a URL, None for the one that uv is configured for, or `offline`. Memory and time are the limits
    of a smoke test.
    """

    base_image: str | None = None
    python: str = PYTHONS[0]
    allows_pickle: bool = False
    package_index: str | None = None
    test_seconds: float = 300.0
    test_memory_bytes: int = 8 * 2**30

    def recipe(
        self,
        *,
        reference: str,
        artifact_digest: str,
        feature_service: str | None,
        feature_service_digest: str | None = None,
        allows_pickle: bool,
    ) -> Recipe:
        """The recipe of a version by these rules, where pickles are allowed as the model's policy says."""
        return Recipe(
            reference=reference,
            artifact_digest=parse_digest(artifact_digest),
            feature_service=feature_service,
            feature_service_digest=feature_service_digest,
            base_image=self.base_image,
            python=self.python,
            allows_pickle=allows_pickle,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleWish:
    """What was asked for beside a version: a service of one's own (a path in the version's files or a text), a lock."""

    service_file: str | None = None
    service_source: str | None = None
    lock: str | None = None

    def apply(self, recipe: Recipe) -> Recipe:
        """The recipe with these wishes.

        Raises:
            InvalidInput: if the text is no service, the path leaves the version, or the lock is none.
        """
        if self.service_file is not None and self.service_source is not None:
            raise InvalidInput("Give a service in the version's files or a text of one, not both.")
        if self.service_source is not None:
            find_service(self.service_source)
        if self.service_file is not None and not _is_inside(self.service_file):
            raise InvalidInput(
                f"{self.service_file[:200]!r} is no path of a Python file in a version.",
                hint="Give it as it is called in the version, such as code/service.py.",
            )
        lock = None if self.lock is None else parse_lock(self.lock)
        named = {each.name for each in lock.packages} if lock is not None else {*SERVICE_REQUIREMENTS}
        if missing := sorted({*SERVICE_REQUIREMENTS} - named):
            raise InvalidInput(
                f"The lock has no {missing[0]}, which every bundle needs.",
                hint="Begin from the lock of another bundle: fairlead bundle show REFERENCE --lock",
            )
        has_own = self.service_file is not None or self.service_source is not None
        return replace(
            recipe,
            # A service of one's own gets its features by itself.
            feature_service_digest=None if has_own else recipe.feature_service_digest,
            service_file=self.service_file,
            service_source=self.service_source,
            lock=None if lock is None else lock.text,
        )


def check_base_image(image: str) -> str:
    """A base image that is named by digest.

    Raises:
        InvalidInput: if it is named by a tag, or is no name of an image.
    """
    if not _IMAGE.fullmatch(image):
        raise InvalidInput(
            f"The base image {image[:200]!r} is not named by digest.",
            hint="Name it as NAME@sha256:DIGEST; see its digest with: docker buildx imagetools inspect NAME:TAG",
        )
    return image


class OwnService(NamedTuple):
    """A service of the user's: its class, and what BentoML calls it."""

    cls: str
    name: str


def find_service(source: str) -> OwnService:
    """The one class that a service file marks with `@bentoml.service`. The file is read, never run.

    Raises:
        InvalidInput: if it is no Python, marks none or several, or names its service by more than a plain text.
    """
    try:
        found = [
            (each.name, mark)
            for each in ast.parse(source).body
            if isinstance(each, ast.ClassDef)
            for mark in each.decorator_list
            if _marks(mark)
        ]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InvalidInput("The service file is no Python source.") from None
    if len(found) != 1:
        raise InvalidInput(
            f"The service file has {len(found)} classes marked with @bentoml.service, and needs exactly one.",
            hint="Write: import bentoml, then @bentoml.service above one class at the top level.",
        )
    ((cls, mark),) = found
    named = [each.value for each in mark.keywords if each.arg in {"name", None}] if isinstance(mark, ast.Call) else []
    if not named:
        return OwnService(cls, cls)
    name = named[0].value if isinstance(named[0], ast.Constant) else None
    if not isinstance(name, str):
        raise InvalidInput(f"The name of the service {cls} is no plain text.", hint='Write: name="..."')
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
        raise InvalidInput(f"{name[:80]!r} is no name of a service.", hint="Use letters, digits, '-', '_' and '.'.")
    return OwnService(cls, name)


def _marks(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called) in {"bentoml.service", "service"}


def _is_inside(path: str) -> bool:
    parts = path.split("/")
    return path.endswith(".py") and len(path) <= 500 and "\\" not in path and not {"", ".", ".."} & set(parts)


@cache
def bundled_sources() -> tuple[tuple[str, bytes], ...]:
    """The modules that every bundle carries, as (file name, bytes)."""
    return tuple((name, (resources.files(package) / name).read_bytes()) for package, name in _SOURCES)


@cache
def _release_digest() -> Digest:
    return sha256_digest(release_lock())

"""Locks what a bundle needs to the exact versions that its builder has.

The roots are the model's own requirements and what the service itself imports; the closure is read from the metadata
of installed distributions, so locking needs no network and two builds in one environment lock alike. MLflow is left
out unless the model is loaded through it: most models need only their own library.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from fairlead.core.errors import InvalidInput

SERVICE_REQUIREMENTS = ("bentoml", "numpy", "pandas", "pyyaml")
_MLFLOW = frozenset({"mlflow", "mlflow-skinny", "mlflow-tracing"})


def lock_requirements(model_requirements: Iterable[str], *, needs_mlflow: bool) -> list[str]:
    """`name==version` lines for the roots and everything they depend on, sorted by name.

    A model's own exact pin is kept as it is, also where the builder has another version: the model was trained with it.

    Raises:
        InvalidInput: if a line of the model is no requirement, or names a package by URL.
    """
    pinned: dict[str, str] = {}
    pending = [(Requirement(name), "") for name in SERVICE_REQUIREMENTS]
    for requirement in _parse(model_requirements):
        if canonicalize_name(requirement.name) in _MLFLOW and not needs_mlflow:
            continue
        pending.append((requirement, ""))
        exact = [part.version for part in requirement.specifier if part.operator == "=="]
        if exact:
            pinned[canonicalize_name(requirement.name)] = exact[0]
    locked: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    while pending:
        requirement, extra = pending.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            distribution = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            # Not installed here: the model's own line is all that is known, and it is kept.
            if not extra and name not in locked:
                locked[name] = f"{name}{requirement.specifier}"
            continue
        locked[name] = f"{name}=={pinned.get(name, distribution.version)}"
        for wanted_extra in ("", *sorted(requirement.extras)):
            if (name, wanted_extra) not in seen:
                seen.add((name, wanted_extra))
                pending.extend((Requirement(line), wanted_extra) for line in distribution.requires or ())
    return [locked[name] for name in sorted(locked)]


def _parse(lines: Iterable[str]) -> Iterable[Requirement]:
    for line in lines:
        text = line.split("#", 1)[0].strip()
        if not text or text.startswith("-"):
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            raise InvalidInput(
                f"{text[:120]!r} in the model's requirements.txt is no requirement.",
                hint="Register the version again with valid pip requirements.",
            ) from None
        if requirement.url:
            raise InvalidInput(
                f"The model's requirement {requirement.name!r} names a URL, which no lock can hold.",
                hint="Publish the package to an index, or ship its code with the model.",
            )
        yield requirement

"""What KServe's own client says that its API takes: read from its list of types, and never imported.

The client is made by a generator out of the API's Go types, so a field that it does not name is none. Parts that are
Kubernetes's own (containers, volumes, resources) are named here and checked elsewhere.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import Any

from tests.servers.object_stores import TOOLS

_SCALARS = {"str": str, "int": int, "bool": bool, "object": object}
_KUBERNETES = re.compile(r"(K8sIo.*|V1(?!alpha|beta).*)")


def check_kserve(kind: str, found: Any, at: str = "") -> None:
    """Refuse a value that is not of one of KServe's types, such as `V1beta1InferenceServiceSpec`."""
    if many := re.fullmatch(r"list\[(.+)\]", kind):
        assert isinstance(found, list), at
        for index, each in enumerate(found):  # pyright: ignore[reportUnknownVariableType]  (JSON)
            check_kserve(many[1], each, f"{at}/{index}")
    elif kind.startswith("dict("):
        assert isinstance(found, dict), at
    elif kind in _SCALARS:
        assert isinstance(found, _SCALARS[kind]), f"{at} is no {kind}"
    elif not _KUBERNETES.fullmatch(kind):
        assert isinstance(found, dict), at
        members = _members(kind)
        for name, value in found.items():  # pyright: ignore[reportUnknownVariableType]  (JSON)
            assert name in members, f"{kind} has no member {name!r}"
            check_kserve(members[name], value, f"{at}/{name}")


@cache
def _members(kind: str) -> dict[str, str]:
    """The members of a type, as JSON calls them, with their types."""
    file = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()
    (found,) = (TOOLS / "deploy").glob(f"lib/python*/site-packages/kserve/models/{file}.py")
    tables: dict[str, dict[str, str]] = {
        target.id: ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(found.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return {tables["attribute_map"][name]: type_ for name, type_ in tables["openapi_types"].items()}

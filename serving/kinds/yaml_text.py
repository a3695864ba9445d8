"""YAML as people write it: in the order given, no anchors, texts of several lines as they stand."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Writes what is said twice twice: nobody reads anchors. Lists begin below the first letter of their key."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


class _Indenting(_Dumper):
    """Indents lists below their keys."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002  (theirs)
        del indentless
        super().increase_indent(flow=flow, indentless=False)


# Line breaks to some readers of YAML and letters to others; escapes are the same to all.
_BREAKS_TO_SOME = re.compile("[\x85\u2028\u2029]")


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _BREAKS_TO_SOME.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Indenting.add_representer(str, _represent_text)


def yaml_text(value: Any) -> str:
    """A document of mappings, lists, texts and numbers, its lists indented."""
    return yaml.dump(value, Dumper=_Indenting, sort_keys=False, allow_unicode=True, width=120)


def manifest_text(value: Any) -> str:
    """A document as Kubernetes' own tools write them: lists not indented, long texts on one line."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)

"""The plan of applying features as text: what is added, changed (and how), removed, and whom that breaks."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

_SIGNS = {"added": "+", "changed": "~", "removed": "-", "gone": "?"}
_ORDER = ("added", "changed", "removed", "gone", "unchanged")
_LONGEST = 60
_DIGEST = len("sha256:") + 12


def plan_text(plan: dict[str, Any]) -> str:
    """A plan as a person reads it; what stays as it is is only counted."""
    changes: list[dict[str, Any]] = plan["changes"]
    lines = [line for word in _ORDER[:-1] for each in changes if each["change"] == word for line in _change(each)]
    counts = Counter(each["change"] for each in changes)
    counted = ", ".join(f"{counts[word]} {word}" for word in _ORDER if counts[word]) or "nothing"
    lines.append(f"{'Applied' if plan['applied'] else 'Would apply'}: {counted}.")
    if counts["gone"]:
        lines.append("What is gone from the repository stays as it is; --prune takes it away.")
    return "\n".join(lines)


def _change(each: dict[str, Any]) -> list[str]:
    version = f"version {each['version']}"
    if each["change"] == "changed" and each["previous_digest"] == each["digest"]:
        version = f"still {version}"
    reason = f", because {each['reason']}" if each["reason"] else ""
    lines = [f"{_SIGNS[each['change']]} {each['kind']} {each['name']} ({version}){reason}"]
    lines += [f"    {_difference(difference)}" for difference in each["differences"]]
    if each["used_by"]:
        lines.append(f"    used by {', '.join(each['used_by'])}: needs --force")
    return lines


def _difference(difference: dict[str, Any]) -> str:
    # The first part of the path is the name that the line above says.
    where = difference["path"].partition(" / ")[2] or difference["path"]
    before, after = (_short(difference[side]) for side in ("before", "after"))
    return f"{difference['effect']:<6}  {where}: {before} -> {after}"


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value)
    text = text[:_DIGEST] if text.startswith("sha256:") else text
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"

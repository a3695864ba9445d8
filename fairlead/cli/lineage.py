"""`fairlead lineage`: what a version was made from, and what was made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fairlead.cli.context import command, connected, group
from fairlead.cli.output import render_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

app = group("What a version was made from, and what was made of it.")


@command(app, "lineage")
def lineage(
    reference: Annotated[
        str | None, typer.Argument(help="Version, such as churn/3 or churn@production.", show_default=False)
    ] = None,
    *,
    snapshot: Annotated[str | None, typer.Option(help="Ask from a snapshot's digest instead.")] = None,
    bundle: Annotated[str | None, typer.Option(help="Ask from a bundle's digest instead.")] = None,
    run: Annotated[str | None, typer.Option(help="Ask from a training run instead.")] = None,
    commit: Annotated[str | None, typer.Option(help="Ask from a commit of the code instead.")] = None,
) -> None:
    """Show where a version came from and where it went, or ask from the other end."""
    with connected() as (client, output):
        found = client.lineage.ask(reference, snapshot=snapshot, bundle=bundle, run=run, commit=commit)
        output.record(found, human=render_tree)
        if not found.is_whole:
            output.message("There are more versions than are shown.")


def render_tree(graph: Mapping[str, Any]) -> str:
    """A graph as two trees for each root: what it was made from, and what was made of it."""
    nodes = {node["id"]: node for node in cast("list[dict[str, Any]]", graph["nodes"])}
    edges = cast("list[dict[str, str]]", graph["edges"])
    ways = {
        "made from": [(edge["target"], edge["source"], edge["relation"]) for edge in edges],
        "made of it": [(edge["source"], edge["target"], edge["relation"]) for edge in edges],
    }
    lines: list[str] = []
    for root in cast("list[str]", graph["roots"]):
        lines.append(_describe(nodes[root]))
        for title, links in ways.items():
            below = list(_branches(root, nodes, links, "  ", {root}))
            lines += [f"  {title}", *below] if below else []
    return "\n".join(lines)


def _branches(
    node: str, nodes: Mapping[str, Any], links: list[tuple[str, str, str]], indent: str, seen: set[str]
) -> Iterator[str]:
    found = [(target, relation) for source, target, relation in links if source == node]
    for index, (target, relation) in enumerate(found):
        is_last = index == len(found) - 1
        again = target in seen
        suffix = " (above)" if again else ""
        yield f"{indent}{'└' if is_last else '├'}─ {relation}: {_describe(nodes[target])}{suffix}"
        if not again:
            seen.add(target)
            yield from _branches(target, nodes, links, indent + ("   " if is_last else "│  "), seen)


def _describe(node: Mapping[str, Any]) -> str:
    known = {key: value for key, value in node["facts"].items() if value not in (None, False, {})}
    facts = render_value(known, is_short=True) if known else ""
    name = render_value(node["name"], is_short=True)
    return f"{node['kind']} {name}" + (f"  ({facts})" if facts else "")

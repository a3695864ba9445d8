"""`fairlead scrub`: is what lies in the buckets what was written?"""

from __future__ import annotations

import re
from typing import Annotated

import typer

from fairlead.cli.context import command, connected
from fairlead.cli.upkeep import show_passes
from fairlead.core.errors import InvalidInput

app = typer.Typer()

_SAMPLE = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?)%")
_SLICE = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")


@command(app, "scrub")
def scrub(
    location: Annotated[str | None, typer.Argument(help="Which location; all if unset.")] = None,
    *,
    sample: Annotated[str | None, typer.Option(help="Read this share by chance, such as 5%.")] = None,
    part: Annotated[str | None, typer.Option("--slice", help="Read one part of so many, such as 3/30.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait and show what was found.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Find what is damaged; mend nothing.")] = False,
) -> None:
    """Find every flipped, cut, swapped, missing or rolled-back object, and mend it from another replica."""
    share, which = _parse_sample(sample), _parse_slice(part)
    with connected() as (client, output):
        asked = client.upkeep.scrub(location, sample=share, part=which, dry_run=dry_run)
        show_passes(client, output, asked, wait=wait)


def _parse_sample(text: str | None) -> float | None:
    if text is None:
        return None
    match = _SAMPLE.fullmatch(text)
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share <= 1:
        raise InvalidInput(f"{text!r} is no share.", hint="Write a percentage, such as --sample 5%.")
    return share


def _parse_slice(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = _SLICE.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InvalidInput(f"{text!r} is no slice.", hint="Write which of how many, such as --slice 3/30.")
    return int(match[1]), int(match[2])

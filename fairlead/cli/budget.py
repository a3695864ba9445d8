"""`fairlead budget`: what copies may cost, and how fast they may go."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import typer

from fairlead.cli.context import command, connected, group, is_dry_run
from fairlead.core.errors import InvalidInput

app = group("Budgets: what copies may cost in a day or a month, and how fast they may go.")

_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)(b|bit)(?:/s|ps)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@command(app, "set", has_dry_run=True)
def set_(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    *,
    source: Annotated[str | None, typer.Option(help="Only copies out of this CLOUD:REGION.")] = None,
    region: Annotated[str | None, typer.Option(help="Only copies into this CLOUD:REGION.")] = None,
    limit_usd: Annotated[str | None, typer.Option(help="What they may cost in a period, such as 50.")] = None,
    period: Annotated[Literal["day", "month"], typer.Option(help="When it begins anew (UTC).")] = "month",
    rate: Annotated[
        str | None, typer.Option(help="How fast they may go in each worker, such as 100MB/s or 800Mbit/s.")
    ] = None,
) -> None:
    """Set a budget. A copy that it does not cover waits, unless a promotion to production waits for it."""
    bytes_per_second = None if rate is None else parse_rate(rate)
    with connected() as (client, output):
        output.record(
            client.budgets.set(
                name,
                source_region=source,
                region=region,
                period=period,
                limit_usd=limit_usd,
                bytes_per_second=bytes_per_second,
            )
        )


@command(app, "list")
def list_() -> None:
    """List budgets, with what is spent and reserved of each."""
    with connected() as (client, output):
        columns = ["name", "source_region", "region", "period", "limit_usd", "spent_usd", "reserved_usd"]
        output.table(client.budgets.list(), [*columns, "bytes_per_second", "resets_at"])


@command(app, "delete", has_dry_run=True)
def delete(name: Annotated[str, typer.Argument(help="The budget.")]) -> None:
    """Delete a budget; copies that it kept waiting go on."""
    with connected() as (client, output):
        client.budgets.delete(name)
        if not is_dry_run():
            output.message(f"The budget {name!r} is deleted.")


def parse_rate(text: str) -> int:
    """Bytes a second, from text such as `100MB/s`, `64 MiB/s` or `1Gbit/s`.

    Raises:
        InvalidInput: if it is no rate.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(f"{text[:40]!r} is no rate.", hint="Write it as 100MB/s, 64MiB/s or 800Mbit/s.")
    number, prefix, binary, unit = found.groups()
    factor = (1024 if binary else 1000) ** _POWERS[prefix.lower()]
    return round(float(number) * factor / (8 if unit.lower() == "bit" or unit == "b" else 1))

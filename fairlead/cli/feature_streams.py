"""`fairlead stream`: consumers of streams."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.cli.context import command, connected, group
from fairlead.core.ports import StreamBroker

if TYPE_CHECKING:
    from fairlead.sdk.features import Features

app = group("Streams: take a broker's messages into feature views.")


@command(app, "run")
def run(
    *,
    source: Annotated[str, typer.Option(help="Push source, or another stream of a view.")],
    broker: Annotated[
        str, typer.Option(help="Address of the broker, redis://HOST:6379/0.", envvar="FAIRLEAD_STREAM_BROKER")
    ],
    region: Annotated[str | None, typer.Option(help="Region that takes the rows; none: where the server is.")] = None,
    consumers: Annotated[str, typer.Option("--group", help="Group of consumers that share the messages.")] = "fairlead",
    batch: Annotated[int, typer.Option(min=1, max=20_000, help="Most messages that are held at once.")] = 1000,
    deliveries: Annotated[int, typer.Option(min=1, help="A message that was given out more often is put aside.")] = 10,
    claim_after: Annotated[
        float, typer.Option(min=0, help="Seconds after which what another consumer holds is taken over.")
    ] = 60.0,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="Leave when there is no message left.")] = False,
) -> None:
    """Push a stream's messages, each acknowledged once its rows are durable, until SIGTERM or SIGINT."""
    import fairlead
    from fairlead.sdk.redis_streams import RedisStream
    from fairlead.sdk.streams import ConsumerRules, consumer_of

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
    rules = ConsumerRules(batch=batch, deliveries=deliveries, claim_seconds=claim_after)
    opened: list[StreamBroker] = []

    def connect(topic: str) -> StreamBroker:
        opened.append(RedisStream(broker, topic, group=consumers))
        return opened[0]

    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    with connected() as (client, output):
        current = client

        def reconnect() -> Features:
            nonlocal current
            current.close()
            current = fairlead.connect()
            return current.features

        consumer = consumer_of(
            client.features, source, region=region, connect=connect, rules=rules, reconnect=reconnect
        )
        try:
            output.message(f"Consuming {source}")
            output.record(asdict(consumer.run(stopping, until_empty=until_empty)))
        finally:
            opened[0].close()
            current.close()

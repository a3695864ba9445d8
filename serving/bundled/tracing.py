"""Traces of a bundle: one span a request, with its parts below it, sent where the `OTEL_*` variables say.

This file is copied into bundles as it is. Without one of `OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and `OTEL_TRACES_EXPORTER` (`otlp` or `console`) nothing is loaded and nothing is
sent; `OTEL_SDK_DISABLED=true` and `OTEL_TRACES_EXPORTER=none` keep it so. A request's `traceparent` (W3C) is the
parent of its span, so that a trace goes on through the gateway.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Generator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def exporter_of(environment: Mapping[str, str]) -> str | None:
    """What the environment asks spans to be sent with, `otlp` or `console`; None where it asks for nothing.

    Raises:
        ValueError: if it asks for another one.
    """
    wanted = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or wanted == "none":
        return None
    if not wanted:
        return "otlp" if any(environment.get(name) for name in _ENDPOINTS) else None
    if wanted not in {"otlp", "console"}:
        raise ValueError(f"OTEL_TRACES_EXPORTER is {wanted!r}; a bundle has otlp, console and none.")
    return wanted


class Tracing:
    """Opens spans, or does nothing where nobody wants any."""

    def __init__(self, service: str, facts: Mapping[str, str | None]) -> None:
        self._tracer: Tracer | None = None
        exporter = exporter_of(os.environ)
        if exporter is not None:
            named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", service)}
            self._tracer = _tracer(exporter, {**named, **{name: said for name, said in facts.items() if said}})

    @property
    def is_on(self) -> bool:
        """Whether spans are sent."""
        return self._tracer is not None

    @contextmanager
    def span(self, name: str, **attributes: str | int) -> Generator[None]:
        """A part of the request that runs in this context."""
        if self._tracer is None:
            yield
            return
        with self._tracer.start_as_current_span(name, attributes=attributes):
            yield

    def wrap(self, app: App) -> App:
        """An ASGI application whose requests for predictions are spans."""

        async def traced(scope: Message, receive: Receive, send: Send) -> None:
            if self._tracer is None or scope["type"] != "http" or not scope["path"].startswith(("/predict", "/info")):
                await app(scope, receive, send)
                return
            from opentelemetry.trace import SpanKind, StatusCode
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            # BentoML opens a span of its own before this one, which nobody gets: the parent is who sent the request.
            parent = TraceContextTextMapPropagator().extract(headers)
            attributes = {"http.request.method": scope["method"], "url.path": scope["path"]}
            with self._tracer.start_as_current_span(
                f"{scope['method']} {scope['path']}", parent, SpanKind.SERVER, attributes
            ) as span:

                async def watched(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        span.set_attribute("http.response.status_code", message["status"])
                        if message["status"] >= 500:
                            span.set_status(StatusCode.ERROR)
                    await send(message)

                await app(scope, receive, watched)

        return traced


def _tracer(exporter: str, facts: Mapping[str, str]) -> Tracer:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    sink: SpanExporter
    if exporter == "console":
        sink = ConsoleSpanExporter()
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        # Endpoint, headers, compression and time limit: as the variables say.
        sink = OTLPSpanExporter()
    provider = TracerProvider(resource=Resource.create(dict(facts)))
    provider.add_span_processor(BatchSpanProcessor(sink))
    return provider.get_tracer("fairlead.bundle")

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from fairlead.serving.bundled.tracing import exporter_of


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, None),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, None),
    ],
)
def test_traces_go_where_the_environment_says_and_nowhere_without_it(
    environment: dict[str, str], expected: str | None
) -> None:
    assert exporter_of(environment) == expected


def test_an_exporter_that_a_bundle_does_not_have_is_named() -> None:
    with pytest.raises(ValueError, match="jaeger"):
        exporter_of({"OTEL_TRACES_EXPORTER": "jaeger"})


def test_a_request_s_span_is_below_that_of_whoever_sent_it() -> None:
    script = """
import asyncio
from fairlead.serving.bundled.tracing import Tracing

tracing = Tracing("churn", {"fairlead.region": "aws:us-east-1", "fairlead.bundle_digest": None})

async def app(scope, receive, send):
    with tracing.span("model.predict", **{"fairlead.rows": 2}):
        await send({"type": "http.response.start", "status": 503})

async def send(message):
    pass

scope = {"type": "http", "method": "POST", "path": "/predict",
         "headers": [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]}
asyncio.run(tracing.wrap(app)(scope, None, send))
asyncio.run(tracing.wrap(app)({**scope, "path": "/readyz"}, None, send))
"""
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "console"}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    decoder, text, spans = json.JSONDecoder(), result.stdout.strip(), list[dict[str, object]]()
    while text:
        span, end = decoder.raw_decode(text)
        spans.append(span)
        text = text[end:].strip()
    model, request = spans[0], spans[1]
    assert (model["name"], request["name"]) == ("model.predict", "POST /predict")
    assert request["parent_id"] == "0xb7ad6b7169203331"
    assert model["parent_id"] == request["context"]["span_id"]  # pyright: ignore[reportIndexIssue]  (JSON)
    assert request["attributes"]["http.response.status_code"] == 503  # pyright: ignore[reportIndexIssue]  (JSON)
    assert request["resource"]["attributes"]["fairlead.region"] == "aws:us-east-1"  # pyright: ignore[reportIndexIssue]  (JSON)

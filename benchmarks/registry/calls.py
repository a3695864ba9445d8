"""What is asked: the same calls of MLflow's REST API to both servers, and Fairlead's own."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from benchmarks.registry.filling import UPLOAD, VERSIONS_EACH, candidates, model_name
from benchmarks.registry.load import Request
from benchmarks.registry.servers import Running

CallKind = Literal["alias", "search", "create", "move"]
MLFLOW = "/api/2.0/mlflow"
DISTINCT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One kind of call, as one server is asked it."""

    kind: CallKind
    dialect: Literal["mlflow", "native"]
    requests: tuple[Request, ...]
    is_own: bool = False


def calls_of(server: Running, versions: int) -> list[Call]:
    """The calls to make at a server whose database holds so many versions."""
    models = [model_name(number) for number in _some(versions // VERSIONS_EACH)]
    filters = [quote(f"tags.candidate = 'c-{number}'") for number in _some(candidates(versions) - 1)]
    calls = [
        Call(
            kind="alias", dialect="mlflow", requests=_ask(server, "registered-models/alias", models, alias="champion")
        ),
        Call(
            kind="search",
            dialect="mlflow",
            requests=tuple(
                Request(
                    method="GET",
                    path=f"{MLFLOW}/model-versions/search?filter={each}&max_results=100",
                    headers=server.headers,
                )
                for each in filters
            ),
        ),
        Call(
            kind="create",
            dialect="mlflow",
            requests=_tell(
                server,
                f"{MLFLOW}/model-versions/create",
                [
                    {
                        "name": name,
                        "source": _source(server, name),
                        "tags": [{"key": "team", "value": "risk"}],
                    }
                    for name in models
                ],
            ),
        ),
        Call(
            kind="move",
            dialect="mlflow",
            requests=_tell(
                server,
                f"{MLFLOW}/registered-models/alias",
                [{"name": name, "alias": "mover-{client}", "version": "7"} for name in models],
            ),
        ),
    ]
    return calls + (_native(server, models) if server.headers else [])


def _source(server: Running, model: str) -> str:
    """Files that the server has or can name: Fairlead takes those of another version, MLflow any address."""
    return f"mlflow-artifacts:/models/{model}/1" if server.headers else f"s3://models/{model}/1"


def _native(server: Running, models: list[str]) -> list[Call]:
    return [
        Call(
            kind="alias",
            dialect="native",
            requests=tuple(
                Request(method="GET", path=f"/api/v1/resolve?reference={name}%40champion", headers=server.headers)
                for name in models
            ),
        ),
        Call(
            kind="create",
            dialect="native",
            requests=tuple(
                Request(
                    method="POST",
                    path=f"/api/v1/models/{name}/versions",
                    body=json.dumps({"upload_id": UPLOAD, "tags": {"team": "risk"}}),
                    headers=server.headers,
                )
                for name in models
            ),
        ),
    ]


def _ask(server: Running, path: str, models: list[str], **fields: str) -> tuple[Request, ...]:
    rest = "".join(f"&{key}={value}" for key, value in fields.items())
    return tuple(
        Request(method="GET", path=f"{MLFLOW}/{path}?name={name}{rest}", headers=server.headers) for name in models
    )


def _tell(server: Running, path: str, bodies: list[dict[str, object]]) -> tuple[Request, ...]:
    return tuple(Request(method="POST", path=path, body=json.dumps(body), headers=server.headers) for body in bodies)


def _some(count: int) -> list[int]:
    """At most so many different numbers from 1 to `count`, the same at every run."""
    dice = random.Random(1)
    return dice.sample(range(1, count + 1), min(count, DISTINCT))

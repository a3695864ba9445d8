"""The BentoML service of every bundle: features by entity key from the region's own online store, then the model.

This file is copied into bundles as it is, beside the modules that it imports. What differs between bundles is in
`bundle.json`, the form of requests and answers too; what differs between regions comes from the environment at launch,
so that a bundle is identical everywhere. Importing it loads no model: the build imports it, and no code of an artifact
may run there.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import bentoml
from pydantic import WithJsonSchema

if TYPE_CHECKING:
    from fairlead.featurestore.on_demand_code import FunctionFailed, InputMissing, RequestInvalid
    from fairlead.featurestore.online_reader import STATUS, OnlineReader, OnlineStoreError
    from fairlead.serving.bundled.batcher import Batcher
    from fairlead.serving.bundled.bodies import bounded
    from fairlead.serving.bundled.model_runner import InvalidRows, load_model
    from fairlead.serving.bundled.on_demand import OnDemandFeatures
    from fairlead.serving.bundled.tracing import Tracing
else:
    from fairlead_bundle.batcher import Batcher
    from fairlead_bundle.bodies import bounded
    from fairlead_bundle.model_runner import InvalidRows, load_model
    from fairlead_bundle.on_demand import OnDemandFeatures
    from fairlead_bundle.on_demand_code import FunctionFailed, InputMissing, RequestInvalid
    from fairlead_bundle.online_reader import STATUS, OnlineReader, OnlineStoreError
    from fairlead_bundle.tracing import Tracing

_HERE = Path(__file__).resolve().parent
_BUNDLE: dict[str, Any] = json.loads((_HERE / "bundle.json").read_text(encoding="utf-8"))
_PROBLEM = "application/problem+json"
_ENTITIES_MAX = 10_000
_REPORTED_LIBRARIES = ("feast", "mlflow", "sklearn", "torch")

Entities = Annotated[dict[str, list[Any]], WithJsonSchema(_BUNDLE["schema"]["entities"])]
Rows = Annotated[list[Any], WithJsonSchema(_BUNDLE["schema"]["rows"])]
Predictions = Annotated[dict[str, Any], WithJsonSchema(_BUNDLE["schema"]["answer"])]


def _identity() -> dict[str, Any]:
    return {
        "model": _BUNDLE["reference"],
        "artifact_digest": _BUNDLE["artifact_digest"],
        "bundle_digest": os.environ.get("FAIRLEAD_BUNDLE_DIGEST"),
        "region": os.environ.get("FAIRLEAD_REGION"),
    }


_tracing = Tracing(_BUNDLE["service_name"], {f"fairlead.{name}": said for name, said in _identity().items()})


@bentoml.service(name=_BUNDLE["service_name"], workers=1, traffic={"timeout": 30})
class Prediction:
    """Answers predictions of one model version."""

    def __init__(self) -> None:
        started = time.monotonic()
        self._model = load_model(_HERE.parent / "model", allows_pickle=_BUNDLE["allows_pickle"])
        # The first request should not pay for it.
        importlib.import_module("pandas")
        self._on_demand = OnDemandFeatures(_BUNDLE["on_demand"]) if _BUNDLE["on_demand"] else None
        self._load_seconds = time.monotonic() - started
        self._batcher = Batcher(
            self._model.predict_checked, rows_max=int(os.environ.get("FAIRLEAD_BATCH_ROWS", "512")), observe=_observer()
        )
        store = os.environ.get("FAIRLEAD_ONLINE_STORE")
        self._reader = OnlineReader(store) if store else None

    @bentoml.api(route="/predict")
    async def predict(self, entities: Entities, ctx: bentoml.Context) -> Predictions:
        """Predict for entities, such as {"sample_id": ["a", "b"]}, from the features of this region's online store.

        What on-demand views take from the request is sent along: {"sample_id": ["a", "b"], "amount": [1.5, 20]}.
        """
        if self._reader is None:
            return _problem(
                ctx,
                409,
                "not-ready",
                "This endpoint has no online store, so it cannot look features up.",
                hint="Materialize the model's feature service in this region, or send features to /predict_rows.",
            )
        lengths = {len(values) for values in entities.values()}
        if len(lengths) > 1 or 0 in lengths:
            return _problem(
                ctx, 400, "invalid-input", "Every entity key needs the same number of values, at least one."
            )
        if max(lengths, default=1) > _ENTITIES_MAX:
            hint = "Ask in several requests."
            return _problem(
                ctx, 400, "invalid-input", f"The request is about more than {_ENTITIES_MAX} entities.", hint=hint
            )
        try:
            with _tracing.span("features.read", **{"fairlead.entities": max(lengths, default=1)}):
                snapshot, rows, missing = await asyncio.to_thread(_read, self._reader, entities)
        except OnlineStoreError as error:
            return _problem(ctx, 400, "invalid-input", str(error))
        except OSError as error:
            return _problem(ctx, 503, "unavailable", f"The online store cannot be read: {error.strerror or error}.")
        if missing:
            asked = {} if self._on_demand is None else self._on_demand.request
            said = {name: values[missing[0]] for name, values in entities.items() if name not in asked}
            keys = json.dumps(said, default=str)
            return _problem(
                ctx,
                404,
                "entity-not-found",
                f"The online store has no features of {keys} ({len(missing)} of {len(rows)} entities missing).",
                hint="Check the keys, or take and materialize a newer feature snapshot.",
                views=rows[missing[0]][STATUS],
                missing=missing,
            )
        if self._on_demand is not None:
            try:
                with _tracing.span("features.compute", **{"fairlead.entities": len(rows)}):
                    rows = await asyncio.to_thread(self._on_demand.compute, self._reader, entities, rows)
            except (RequestInvalid, FunctionFailed, OSError, OnlineStoreError) as error:
                return _not_computed(ctx, error)
        return await self._answer(ctx, [self._features(row) for row in rows], snapshot)

    @bentoml.api(route="/predict_rows")
    async def predict_rows(self, rows: Rows, ctx: bentoml.Context) -> Predictions:
        """Predict for rows that have the model's signature; no feature is looked up."""
        if not rows:
            return _problem(ctx, 400, "invalid-input", "There are no rows to predict for.")
        return await self._answer(ctx, rows, None)

    @bentoml.api(route="/info")
    def info(self) -> dict[str, Any]:
        """What runs here: the model, its digests, its inputs and the libraries that are loaded."""
        columns = self._model.columns
        return {
            **_identity(),
            "feature_service": _BUNDLE["feature_service"],
            "on_demand": [] if self._on_demand is None else self._on_demand.names,
            "request": {} if self._on_demand is None else self._on_demand.request,
            "inputs": None if columns is None else [{"name": each.name, "type": each.type} for each in columns],
            "loaded_with": self._model.loaded_with,
            "load_seconds": round(self._load_seconds, 3),
            "loaded_libraries": [name for name in _REPORTED_LIBRARIES if name in sys.modules],
        }

    async def _answer(self, ctx: bentoml.Context, rows: list[Any], snapshot: str | None) -> dict[str, Any]:
        try:
            self._model.check(rows)
            with _tracing.span("model.predict", **{"fairlead.rows": len(rows)}):
                predictions = await self._batcher.predict(rows)
        except InvalidRows as error:
            return _problem(ctx, 400, "invalid-input", str(error))
        return {"predictions": predictions, **_identity(), "snapshot": snapshot}

    def _features(self, row: dict[str, Any]) -> dict[str, Any]:
        # An online row also holds its keys, and may hold more features than this model reads.
        columns = self._model.columns
        if columns is None:
            return {name: value for name, value in row.items() if name != STATUS}
        return {column.name: row[column.name] for column in columns if column.name in row}


def _bounded(app: Any, **_: Any) -> Any:
    return bounded(app)


def _traced(app: Any, **_: Any) -> Any:
    return _tracing.wrap(app)


# BentoML takes a function as well as a class, as its server does.
Prediction.add_asgi_middleware(cast("Any", _bounded))
if _tracing.is_on:
    Prediction.add_asgi_middleware(cast("Any", _traced))


@functools.cache
def _observer() -> Any:
    # BentoML has to set its folder for the counts of several processes before Prometheus's client is imported.
    from prometheus_client import Histogram

    buckets = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    return Histogram("fairlead_batch_rows", "Rows that the model predicted at once.", buckets=buckets).observe


def _read(reader: OnlineReader, entities: dict[str, list[Any]]) -> tuple[str, list[dict[str, Any]], list[int]]:
    """What `OnlineReader.read` gives, and the numbers of the rows whose entity no view knows."""
    snapshot, rows = reader.read(entities)
    # What is about no entity is there for everybody.
    keyed = {view.alias for view in reader.views if view.asked_keys}
    missing = [
        number
        for number, row in enumerate(rows)
        if "present" not in {status for view, status in row[STATUS].items() if view in keyed or not keyed}
    ]
    return snapshot, rows, missing


def _not_computed(ctx: bentoml.Context, error: Exception) -> dict[str, Any]:
    """Why a feature could not be computed on demand; what a function said when it failed is for the log alone."""
    if isinstance(error, RequestInvalid):
        hint = "Send it in `entities`, one value for each row."
        return _problem(ctx, 400, "invalid-input", str(error), hint=hint)
    if isinstance(error, InputMissing):
        hint = "The online store holds another version of the feature service: materialize the one of the model."
        return _problem(ctx, 409, "not-ready", str(error), hint=hint)
    if isinstance(error, FunctionFailed):
        logging.getLogger("bentoml.fairlead").error("%s", error, exc_info=error)
        return _problem(ctx, 500, "on-demand-failed", str(error), hint="The endpoint's log says where.")
    return _problem(ctx, 503, "unavailable", "The online store cannot be read.")


def _problem(ctx: bentoml.Context, status: int, code: str, detail: str, **members: Any) -> dict[str, Any]:
    ctx.response.status_code = status
    ctx.response.headers["content-type"] = _PROBLEM
    return {"type": f"urn:fairlead:error:{code}", "status": status, "detail": detail, **members}

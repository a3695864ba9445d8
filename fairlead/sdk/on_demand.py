"""Features that are made of others where they are read: the code of on-demand views, run by Feast in this process."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    import pandas as pd

    from fairlead.sdk.transport import JsonObject


def add_on_demand(frame: pd.DataFrame, found: JsonObject) -> pd.DataFrame:
    """The rows with the features of on-demand views, and without what was only there to make them.

    `found` is what the service says: `{inputs: [{column, view, feature, is_hidden}], views: [{spec, features, ...}]}`.

    Raises:
        InvalidInput: if the code fails, or the rows lack a column that it takes from the request.
        MissingExtra: without `fairlead[features]`.
    """
    try:
        views: Any = import_module("feast.on_demand_feature_view")
        protos: Any = import_module("feast.protos.feast.core.OnDemandFeatureView_pb2")
        parse: Any = import_module("google.protobuf.json_format").ParseDict
        arrow: Any = import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise MissingExtra("On-demand views need Feast.", hint="Run: pip install 'fairlead[features]'") from error
    inputs: list[Any] = found["inputs"]  # pyright: ignore[reportAssignmentType]  (the API's own shape)
    asked: list[Any] = found["views"]  # pyright: ignore[reportAssignmentType]
    given: dict[str, Any] = {f"{each['view']}__{each['feature']}": frame[each["column"]] for each in inputs}
    result = frame.drop(columns=[each["column"] for each in inputs if each["is_hidden"]])
    for each in asked:
        view = views.OnDemandFeatureView.from_proto(
            parse(each["spec"], protos.OnDemandFeatureView(), ignore_unknown_fields=True)
        )
        table = arrow.Table.from_pandas(_input_frame(view, frame, given), preserve_index=False)
        try:
            made = view.transform_arrow(table, full_feature_names=False).to_pandas()
        except Exception as error:  # (somebody else's code ran, and may raise anything)
            raise InvalidInput(
                f"The code of the on-demand view {view.name!r} failed: {type(error).__name__}: {error}",
                hint="Correct it, apply it, and take another snapshot.",
            ) from error
        for feature in each["features"]:
            name = feature if feature not in result.columns else f"{each['alias']}__{feature}"
            result[name] = made[feature].to_numpy()
    return result


def _input_frame(view: Any, frame: pd.DataFrame, given: dict[str, Any]) -> pd.DataFrame:
    """The columns that Feast makes a function's input of: features by view and name, and what the request says."""
    pandas: Any = import_module("pandas")
    columns: dict[str, Any] = {}
    for projection in view.source_feature_view_projections.values():
        for feature in projection.features:
            name = f"{projection.name}__{feature.name}"
            columns[name] = given[name]
    for source in view.source_request_sources.values():
        for field in source.schema:
            if field.name not in frame.columns:
                raise InvalidInput(
                    f"The rows have no column {field.name!r}, which the on-demand view {view.name!r} takes from them.",
                    hint=f"Add it: entity_rows[{field.name!r}] = ...",
                )
            columns[field.name] = frame[field.name]
    return pandas.DataFrame(columns)

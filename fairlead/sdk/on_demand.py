"""Features that are made of others where they are read: the code of on-demand views, run by Feast in this process."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from fairlead.core.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from fairlead.sdk.transport import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputedFeature:
    """One feature that was made: `name` is its column's, `column` an Arrow array."""

    alias: str
    feature: str
    name: str
    type: str
    column: Any

    @property
    def values(self) -> list[Any]:
        """The values as Python has them."""
        return self.column.to_pylist()


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    view: Any
    alias: str
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDemandCode:
    """The code of the on-demand views that a service takes, loaded and ready to run.

    `inputs` is the column of each stored feature that the code is given, by `view__feature`.
    """

    service: str
    inputs: Mapping[str, str]
    _views: tuple[_View, ...]

    @classmethod
    def load(cls, found: JsonObject) -> Self:
        """Load what the service says: `{inputs: [{column, view, feature, is_hidden}], views: [{spec, ...}]}`.

        Raises:
            MissingExtra: without `fairlead[features]`.
        """
        try:
            views: Any = import_module("feast.on_demand_feature_view")
            protos: Any = import_module("feast.protos.feast.core.OnDemandFeatureView_pb2")
            parse: Any = import_module("google.protobuf.json_format").ParseDict
        except ModuleNotFoundError as error:
            raise MissingExtra("On-demand views need Feast.", hint="Run: pip install 'fairlead[features]'") from error
        inputs: list[Any] = found["inputs"]  # pyright: ignore[reportAssignmentType]  (the API's own shape)
        asked: list[Any] = found["views"]  # pyright: ignore[reportAssignmentType]
        return cls(
            service=str(found["service_digest"]),
            inputs={f"{each['view']}__{each['feature']}": each["column"] for each in inputs},
            _views=tuple(
                _View(
                    view=views.OnDemandFeatureView.from_proto(
                        parse(each["spec"], protos.OnDemandFeatureView(), ignore_unknown_fields=True)
                    ),
                    alias=each["alias"],
                    features=tuple(each["features"]),
                )
                for each in asked
            ),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the views whose code this is."""
        return tuple(each.view.name for each in self._views)

    def compute(self, given: Mapping[str, Any]) -> list[ComputedFeature]:
        """Run the code over columns of one length: stored features, and what the request says.

        Raises:
            InvalidInput: if the code fails, or a column is not given that it takes from the request.
        """
        arrow: Any = import_module("pyarrow")
        made: list[ComputedFeature] = []
        taken = set(given)
        for each in self._views:
            try:
                table = each.view.transform_arrow(
                    arrow.table(self._inputs_of(each.view, given)), full_feature_names=False
                )
            except InvalidInput:
                raise
            except Exception as error:  # (somebody else's code ran, and may raise anything)
                raise InvalidInput(
                    f"The code of the on-demand view {each.view.name!r} failed: {type(error).__name__}: {error}",
                    hint="Correct it, apply it, and take another snapshot.",
                ) from error
            types = {field.name: field.dtype.to_value_type().name for field in each.view.features}
            for feature in each.features:
                name = feature if feature not in taken else f"{each.alias}__{feature}"
                taken.add(name)
                made.append(
                    ComputedFeature(
                        alias=each.alias, feature=feature, name=name, type=types[feature], column=table[feature]
                    )
                )
        return made

    def _inputs_of(self, view: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """The columns that Feast makes a function's input of: features by view and name, and what the request says."""
        columns: dict[str, Any] = {}
        for projection in view.source_feature_view_projections.values():
            for feature in projection.features:
                name = f"{projection.name}__{feature.name}"
                columns[name] = given[self.inputs[name]]
        for source in view.source_request_sources.values():
            for field in source.schema:
                if field.name not in given:
                    raise InvalidInput(
                        f"The rows have no column {field.name!r}, which the on-demand view {view.name!r} takes from "
                        "them.",
                        hint=f"Add it: entity_rows[{field.name!r}] = ...",
                    )
                columns[field.name] = given[field.name]
        return columns


def add_on_demand(frame: pd.DataFrame, found: JsonObject) -> pd.DataFrame:
    """The rows with the features of on-demand views, and without what was only there to make them.

    Raises:
        InvalidInput: if the code fails, or the rows lack a column that it takes from the request.
        MissingExtra: without `fairlead[features]`.
    """
    code = OnDemandCode.load(found)
    inputs: list[Any] = found["inputs"]  # pyright: ignore[reportAssignmentType]  (the API's own shape)
    hidden = [each["column"] for each in inputs if each["is_hidden"]]
    made = code.compute({str(name): column for name, column in frame.items()})
    result = frame.drop(columns=hidden)
    for each in made:
        name = each.name if each.feature in result.columns else each.feature
        result[name] = each.column.to_pandas().to_numpy()
    return result

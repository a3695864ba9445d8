"""Features that are made of others where they are read: the code of on-demand views, run in this process.

Feast loads a function, from its text or else from what Feast keeps of it; bundles take the text alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from fairlead.core.errors import InvalidInput, MissingExtra
from fairlead.featurestore.on_demand_code import MODES, FunctionFailed, OnDemandFunction, RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    function: OnDemandFunction
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDemandCode:
    """The code of the on-demand views that a service takes, loaded and ready to run.

    `inputs` is the column of each stored feature that the code is given, by view and feature; `keys` are names and
    types of the join keys.
    """

    service: str
    inputs: Mapping[tuple[str, str], str]
    keys: tuple[tuple[str, str], ...]
    _views: tuple[_View, ...]

    @classmethod
    def load(cls, found: JsonObject) -> Self:
        """Load what the service says: `{keys, inputs: [{column, view, feature, is_hidden}], views: [{spec, ...}]}`.

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
        keys: list[Any] = found.get("keys", [])  # pyright: ignore[reportAssignmentType]
        return cls(
            service=str(found["service_digest"]),
            inputs={(each["view"], each["feature"]): each["column"] for each in inputs},
            keys=tuple((each["name"], each["type"]) for each in keys),
            _views=tuple(
                _View(
                    function=_function(
                        views.OnDemandFeatureView.from_proto(
                            parse(each["spec"], protos.OnDemandFeatureView(), ignore_unknown_fields=True)
                        ),
                        each["features"],
                    ),
                    alias=each["alias"],
                )
                for each in asked
            ),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the views whose code this is."""
        return tuple(each.function.view for each in self._views)

    def compute(self, given: Mapping[str, Any], *, has_own_types: bool = False) -> list[ComputedFeature]:
        """Run the code over columns of one length: stored features, join keys, and what the request says.

        What it makes is brought to the types that its views say, if it may not have its own, as it does in Feast's
        training sets.

        Raises:
            InvalidInput: if the code fails, or a column is not given that it takes from the request, or has another
                type.
        """
        inputs = {name: given[column] for name, column in self.inputs.items() if column in given}
        made: list[ComputedFeature] = []
        taken = set(given)
        for each in self._views:
            try:
                columns = each.function.compute(inputs, given, keys=self.keys, has_own_types=has_own_types)
            except RequestInvalid as error:
                raise InvalidInput(str(error), hint="Give one with each row, of the type that is said.") from error
            except FunctionFailed as error:
                raise InvalidInput(
                    f"{error} {error.__cause__ or ''}".rstrip(),
                    hint="Correct it, apply it, and take another snapshot.",
                ) from error
            for feature, kind in each.function.features:
                name = feature if feature not in taken else f"{each.alias}__{feature}"
                taken.add(name)
                made.append(
                    ComputedFeature(alias=each.alias, feature=feature, name=name, type=kind, column=columns[feature])
                )
        return made


def _function(view: Any, taken: Sequence[str]) -> OnDemandFunction:
    """What Feast loaded, with the features that are taken of it."""
    transformation = view.feature_transformation
    types = {field.name: _type(field) for field in view.features}
    return OnDemandFunction(
        view=view.name,
        mode=view.mode,
        is_singleton=view.singleton,
        inputs=[
            (projection.name, feature.name, _type(feature))
            for projection in view.source_feature_view_projections.values()
            for feature in projection.features
        ],
        request=[
            (field.name, _type(field)) for source in view.source_request_sources.values() for field in source.schema
        ],
        features=[(name, types[name]) for name in taken],
        call=transformation.udf
        if view.mode in MODES
        else lambda table: transformation.transform_arrow(table, view.features),
    )


def _type(field: Any) -> str:
    return field.dtype.to_value_type().name


def add_on_demand(frame: pd.DataFrame, found: JsonObject) -> pd.DataFrame:
    """The rows with the features of on-demand views, and without what was only there to make them.

    Raises:
        InvalidInput: if the code fails, or the rows lack a column that it takes from the request.
        MissingExtra: without `fairlead[features]`.
    """
    code = OnDemandCode.load(found)
    inputs: list[Any] = found["inputs"]  # pyright: ignore[reportAssignmentType]  (the API's own shape)
    hidden = [each["column"] for each in inputs if each["is_hidden"]]
    made = code.compute({str(name): column for name, column in frame.items()}, has_own_types=True)
    result = frame.drop(columns=hidden)
    for each in made:
        name = each.name if each.feature in result.columns else each.feature
        result[name] = each.column.to_pandas().to_numpy()
    return result

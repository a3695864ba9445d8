"""Computes what a model takes on demand: of stored features, of what the request says, and of the join keys.

This file is copied into bundles as it is, beside `on_demand_code`. The functions come as source text from
`bundle.json`, and run in the endpoint's process as the model's code does.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairlead.featurestore.on_demand_code import FunctionNotLoadable, OnDemandFunction, load_function
    from fairlead.featurestore.online_reader import STATUS, OnlineReader
    from fairlead.serving.bundled.model_loaders import ModelNotLoadable
elif __package__ == "fairlead_bundle":
    from fairlead_bundle.model_loaders import ModelNotLoadable
    from fairlead_bundle.on_demand_code import FunctionNotLoadable, OnDemandFunction, load_function
    from fairlead_bundle.online_reader import STATUS, OnlineReader
else:
    from fairlead.featurestore.on_demand_code import FunctionNotLoadable, OnDemandFunction, load_function
    from fairlead.featurestore.online_reader import STATUS, OnlineReader
    from fairlead.serving.bundled.model_loaders import ModelNotLoadable

Row = dict[str, Any]


class OnDemandFeatures:
    """The on-demand views of one bundle, loaded and ready to run. `described` is the bundle's member `on_demand`."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        """Load the functions.

        Raises:
            ModelNotLoadable: naming the view whose function cannot run here.
        """
        # The first request should not pay for it.
        importlib.import_module("pyarrow")
        self._keys = [(name, kind) for name, kind in described["keys"]]
        self._hidden = {(alias, feature) for alias, feature in described["hidden"]}
        self._views = [(str(each["alias"]), _load(each)) for each in described["views"]]

    @property
    def names(self) -> list[str]:
        """The names of the views."""
        return [function.view for _, function in self._views]

    @property
    def request(self) -> dict[str, str]:
        """What callers send beside the join keys: the type of each value by its name."""
        return {name: kind for _, function in self._views for name, kind in function.request}

    def compute(self, reader: OnlineReader, entities: Mapping[str, Sequence[Any]], rows: Sequence[Row]) -> list[Row]:
        """The rows that were read for the entities, with the features that are made, without those made for that alone.

        Raises:
            RequestInvalid: if the request lacks a value, or has one of another type.
            InputMissing: if the store holds a version of the service that lacks what a function takes.
            FunctionFailed: if a function fails.
            OSError, OnlineStoreError: if the store is gone meanwhile.
        """
        names = {(view.alias, own): name for view in reader.views for name, _, own in view.features}
        inputs = {key: [row[name] for row in rows] for key, name in names.items() if name in rows[0]}
        made: dict[str, list[Any]] = {}
        taken = set(rows[0])
        for alias, function in self._views:
            columns = function.compute(inputs, entities, keys=self._keys)
            for feature, _ in function.features:
                name = feature if feature not in taken else f"{alias}__{feature}"
                taken.add(name)
                made[name] = columns[feature].to_pylist()
        hidden = {STATUS, *(name for key, name in names.items() if key in self._hidden)}
        return [
            {name: value for name, value in row.items() if name not in hidden} | dict(zip(made, values, strict=True))
            for row, values in zip(rows, zip(*made.values(), strict=True), strict=True)
        ]


def _load(described: Mapping[str, Any]) -> OnDemandFunction:
    try:
        call = load_function(described["text"], described["function"])
    except FunctionNotLoadable as error:
        raise ModelNotLoadable(
            f"The function of the on-demand view {described['name']!r} cannot run here: {error}."
        ) from error
    return OnDemandFunction(
        view=described["name"],
        mode=described["mode"],
        is_singleton=described["is_singleton"],
        inputs=[(view, feature, kind) for view, feature, kind in described["inputs"]],
        request=[(name, kind) for name, kind in described["request"]],
        features=[(name, kind) for name, kind in described["features"]],
        call=call,
    )

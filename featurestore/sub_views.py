"""A view by residency class: its keys and times with the features that are under one class.

A feature is under its view's class unless its field says another (the tag `fairlead.residency`), which then permits no
more than the view's does: its keys are among the rows of every class. Each class gives a *sub-view*, whose rows are an
artifact of their own and stay where that class lets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fairlead.catalog.residency import Residency
from fairlead.featurestore.definitions import Column, ViewDefinition


def sub_views(view: ViewDefinition) -> Mapping[Residency, ViewDefinition]:
    """The view's sub-views by class, in order of class; a view without classes of its columns is its only one."""
    features: dict[Residency, list[Column]] = {}
    for feature in view.features:
        features.setdefault(view.residency_of(feature.name), []).append(feature)
    return {
        residency: replace(view, features=tuple(features[residency]), residency=residency, column_residency={})
        for residency in sorted(features)
    }

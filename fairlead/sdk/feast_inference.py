"""What a Feast repository leaves for Feast to find out: columns, types of keys and event times, read from the sources.

`feast apply` looks into a source for what a definition does not say. So does this, on the client, with the
repository's own configuration, and only where something is missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from fairlead.core.errors import FeatureDefinitionInvalid


def fill_in(contents: Any, folder: Path) -> None:
    """Complete the objects of a repository (Feast's `RepoContents`) in place.

    Raises:
        FeatureDefinitionInvalid: naming what was not said and could not be found out.
    """
    entities: dict[str, Any] = {entity.name: entity for entity in contents.entities}
    for view in contents.label_views:
        _forget_guesses(view, entities)
    batch_views = [*contents.feature_views, *contents.stream_feature_views, *contents.label_views]
    untimed = [each for each in contents.data_sources if _lacks_time(each)]
    untyped = [view for view in batch_views if _lacks_columns(view, entities)]
    unmade = [view for view in contents.on_demand_feature_views if not view.features]
    if not untimed and not untyped and not unmade:
        return
    inference: Any = import_module("feast.inference")
    config = _config(folder)
    for source in untimed:
        with_times = [source]
        _try(f"the timestamp_field of source {source.name!r}", "Give it: timestamp_field=...",
             inference.update_data_sources_with_inferred_event_timestamp_col, with_times, config)  # fmt: skip
    provider = import_module("feast.infra.provider").get_provider(config) if untyped else None
    for view in untyped:
        _try(f"columns of view {view.name!r}", "List them: schema=[Field(name=..., dtype=...)], the join keys too.",
             inference.update_feature_views_with_inferred_features_and_entities,
             provider, [view], list(entities.values()), config)  # fmt: skip
    for view in unmade:
        _try(f"features of on-demand view {view.name!r}", "List them: schema=[Field(name=..., dtype=...)].",
             view.infer_features)  # fmt: skip


def project_of(contents: Any, folder: Path) -> str:
    """The name of the repository's project, as its configuration or its one `Project` says.

    Raises:
        FeatureDefinitionInvalid: if neither does.
    """
    named: list[str] = [project.name for project in contents.projects]
    if len(named) == 1:
        return named[0]
    # As Feast reads it, without the stores' libraries, which its own reading would import.
    said: Any = import_module("yaml").safe_load(os.path.expandvars((folder / "feature_store.yaml").read_text()))
    project: Any = cast("dict[str, Any]", said).get("project") if isinstance(said, dict) else None
    if not isinstance(project, str) or not project:
        raise FeatureDefinitionInvalid(
            f"{str(folder / 'feature_store.yaml')!r} names no project.", hint="Add a line: project: NAME"
        )
    return project


def _config(folder: Path) -> Any:
    return import_module("feast.repo_config").load_repo_config(folder, folder / "feature_store.yaml")


def _lacks_time(source: Any) -> bool:
    # The batch source of a stream is in the list by itself.
    is_batch = type(source).__name__ not in {"RequestSource", "PushSource", "KafkaSource", "KinesisSource"}
    return is_batch and not source.timestamp_field


def _lacks_columns(view: Any, entities: Mapping[str, Any]) -> bool:
    typed = {field.name for field in view.entity_columns}
    keys: Iterable[Any] = (entities[name] for name in view.entities if name in entities)
    return not view.features or any(
        entity.join_key not in typed and entity.value_type.name == "UNKNOWN" and not _is_dummy(entity)
        for entity in keys
    )


def _forget_guesses(label_view: Any, entities: Mapping[str, Any]) -> None:
    """Feast takes keys of label views for strings where nothing says what they are."""
    unknown = {entity.join_key for entity in entities.values() if entity.value_type.name == "UNKNOWN"}
    label_view.entity_columns = [
        field
        for field in label_view.entity_columns
        if field.name not in unknown or field.dtype.to_value_type().name != "STRING"
    ]


def _is_dummy(entity: Any) -> bool:
    return str(entity.name).startswith("__")


def _try(what: str, hint: str, infer: Any, *args: Any) -> None:
    try:
        infer(*args)
    except Exception as error:  # (whatever a source's library raises)
        raise FeatureDefinitionInvalid(
            f"The repository does not say {what}, and it could not be found out: {type(error).__name__}: {error}",
            hint=hint,
        ) from error

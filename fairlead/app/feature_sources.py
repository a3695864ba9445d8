"""Where the rows of feature views are read, by the settings of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairlead.featurestore.sources import Sources

if TYPE_CHECKING:
    from fairlead.app.settings import ServerSettings


def feature_sources(settings: ServerSettings, *, is_embedded: bool) -> Sources:
    """What this process may read: folders, and databases by their connections.

    A server reads no file of its own machine on a caller's word; the embedded one serves its owner alone.
    """
    return Sources(
        roots=None if is_embedded else tuple(settings.feature_source_roots or ()),
        connections={name: url.get_secret_value() for name, url in settings.feature_connections.items()},
        query_timeout=settings.feature_query_timeout,
    )

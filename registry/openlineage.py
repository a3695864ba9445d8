"""Events as OpenLineage's run events."""

from __future__ import annotations

from fairlead.registry.webhook_messages import Format, render_event, sign_standard

OPENLINEAGE_FORMAT = Format(actions=("version.ready",), render=render_event, sign=sign_standard)

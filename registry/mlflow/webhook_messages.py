"""Events as MLflow tells of them."""

from __future__ import annotations

from fairlead.registry.webhook_messages import Format, render_event, sign_standard

MLFLOW_FORMAT = Format(events=("version.create",), render=render_event, sign=sign_standard)

"""`fairlead features online`: what each region's online store serves, and how fresh it is."""

from __future__ import annotations

from fairlead.cli.context import command, connected, group
from fairlead.cli.features import Service

app = group("Online stores of features: what each region serves, and how fresh it is.")


@command(app, "online")
def online(service: Service) -> None:
    """Show what each region serves of a feature service: snapshot, engine, watermark of each view, what is kept."""
    with connected() as (client, output):
        states = client.features.online_states(service)
        if output.form != "human":
            output.table(states, ["region", "state", "snapshot"])
            return
        output.table(states, ["region", "state", "snapshot", "engine", "rows", "materialized_at", "error.detail"])
        views = [{"region": state.region, **view.to_json()} for state in states for view in state.views]
        if views:
            output.table(views, ["region", "view", "watermark", "as_of"])
        kept = [{"region": state.region, **each.to_json()} for state in states for each in state.kept]
        if kept:
            output.message("Kept for those who hold or held an environment:")
            output.table(kept, ["region", "snapshot", "state", "rows", "materialized_at"])
        for state in states:
            if state.is_atomic is False:
                output.message(f"{state.region}: {state.engine} mixes two snapshots while one replaces the other.")

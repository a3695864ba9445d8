"""The kind of the machine that Fairlead itself runs on: nothing is written, processes are started."""

from __future__ import annotations

import json

from fairlead.serving.workload import Document, TargetKind, TargetSettings, Workload


class LocalSettings(TargetSettings):
    """There is nothing to set."""


def render(workload: Workload, _settings: LocalSettings) -> tuple[Document, ...]:
    """The workload as it is: what the process is started from."""
    return (Document(path="workload.json", text=json.dumps(workload.to_json(), indent=2, sort_keys=True) + "\n"),)


KIND = TargetKind(name="local", settings=LocalSettings, render=render, deliveries=("process",))

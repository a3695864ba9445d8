"""A process that replaces one store's snapshot for ever, until it is killed: `SETTING FOLDER`.

Every row of snapshot N has the value N. Each step is a whole one or an incremental one in turn.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from fairlead.featurestore.online_choice import OnlineEngines, read_choices
from fairlead.featurestore.online_engines import StoreChanges
from fairlead.featurestore.online_sqlite import OnlineFolder
from tests.featurestore.online_engine_suite import CELLS, NAME, REGION, World

KEYS = range(3000)
SNAPSHOTS = 4


def main(setting: str, folder: Path) -> None:
    """Write, for ever."""
    engine = OnlineEngines(OnlineFolder(root=folder / "online"), read_choices(setting)).of(REGION)
    world = World(engine, folder)
    rows = [world.history(CELLS, [(key, -9 + number, number) for key in KEYS]) for number in range(SNAPSHOTS)]
    before = None
    for step in itertools.count():
        number = step % SNAPSHOTS
        contents = world.contents(rows[number], snapshot=f"sha256:{number}")
        files = [(rows[number].path,)]
        if step % 2 == 0 or before is None:
            engine.write(NAME, contents, scratch=folder)
        else:
            changes = StoreChanges(base=f"sha256:{before}", files={"cells": files})
            engine.apply(NAME, contents, changes, scratch=folder)
        before = number
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

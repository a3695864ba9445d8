"""Run the demo: `python -m fairlead.app.demo [--home FOLDER] [--keep]`."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

from fairlead.core.errors import FairleadError


def main() -> int:
    """Tell the whole story once; a home left over from an earlier run is cleared first."""
    parser = argparse.ArgumentParser(prog="make demo", description="The whole job on one machine, step by step.")
    parser.add_argument("--home", type=Path, default=Path(".demo"), help="Folder that the demo owns, and clears.")
    parser.add_argument(
        "--keep",
        action="store_true",
        default=bool(os.environ.get("KEEP")),
        help="Leave service and endpoints up at the end (or set KEEP=1).",
    )
    options = parser.parse_args()
    # Feast, MLflow and BentoML talk a lot; this is our story.
    warnings.simplefilter("ignore")
    os.environ |= {"MLFLOW_LOG_UV_FILES": "false", "MLFLOW_LOGGING_LEVEL": "ERROR", "BENTOML_DO_NOT_TRACK": "true"}
    from stamina.instrumentation import set_on_retry_hooks

    from fairlead.app.demo.story import tell_story

    set_on_retry_hooks([])
    try:
        tell_story(options.home.absolute(), keep=options.keep)
    except FairleadError as error:
        sys.stderr.write(f"\nThe demo stopped: {error}\nRun it again; it starts afresh.\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. Run it again; it starts afresh.\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

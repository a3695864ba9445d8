"""What `fairlead features get-historical` shows and refuses, without anything that could be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fairlead.cli.features_federation import describe_plan, write_table
from fairlead.cli.main import run
from fairlead.core.errors import InvalidInput

arrow: Any = pa


def test_a_training_set_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "nowhere" / "set.parquet")
    code = run(["features", "get-historical", "churn", "--entities", "no rows.parquet", "--destination", nowhere])
    assert code == InvalidInput.exit_code
    assert "There is no folder" in capfd.readouterr().err
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_table(arrow.table({"tags": [[1, 2]]}), tmp_path / "set.csv")
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_table(arrow.table({"tag": [1]}), tmp_path)


def test_a_plan_counts_the_row_numbers_that_come_back() -> None:
    view = {"alias": "cells", "view": "cells", "bytes_back": 4000, "moving": None}
    hop = {"region": "aws:us-east-1", "joiner": "agent", "agent": None, "views": [view], "columns": ["patient_id"]}
    sizes = {"bytes_out": 24_000, "bytes_back": 12_000, "usd_out": "0", "usd_back": "0", "problem": None}
    plan = {"service": "screening", "region": None, "rows": 1000, "usd": "0", "hops": [hop | sizes]}
    assert "24 kB  12 kB" in describe_plan(plan)

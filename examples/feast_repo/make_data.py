"""Make 400 customers up: `usage.parquet`, which `definitions.py` reads, and `labels.parquet`, which says who left."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

CUSTOMERS = 400
HERE = Path(__file__).parent


def make_data() -> None:
    """Write both files beside this one; every run writes the same."""
    random = np.random.default_rng(7)
    customer_id = np.arange(1, CUSTOMERS + 1)
    months = random.uniform(1, 60, CUSTOMERS).round(1)
    monthly_bill = random.uniform(10, 120, CUSTOMERS).round(2)
    support_calls = random.poisson(2, CUSTOMERS).astype(float)
    leaning = 1.5 * support_calls - 0.15 * months + 0.05 * monthly_bill - 2 + random.normal(0, 0.7, CUSTOMERS)
    usage = {"customer_id": customer_id, "months": months, "monthly_bill": monthly_bill, "support_calls": support_calls}
    known_at = datetime(2026, 1, 1, tzinfo=UTC)
    pd.DataFrame(usage | {"event_timestamp": known_at}).to_parquet(HERE / "usage.parquet")
    asked_at = datetime(2026, 2, 1, tzinfo=UTC)
    labels = {"customer_id": customer_id, "event_timestamp": asked_at, "has_left": leaning > 0}
    pd.DataFrame(labels).to_parquet(HERE / "labels.parquet")


if __name__ == "__main__":
    make_data()

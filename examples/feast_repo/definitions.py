"""What a churn model knows of a customer. `make_data.py` writes the file that it is read from."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)

usage = FeatureView(
    name="usage",
    entities=[customer],
    ttl=timedelta(days=3650),
    schema=[
        Field(name="months", dtype=Float64),
        Field(name="monthly_bill", dtype=Float64),
        Field(name="support_calls", dtype=Float64),
    ],
    # Where users may be served from is a property of their data: tags={"fairlead.residency": "eu"}
    source=FileSource(name="usage_source", path="usage.parquet", timestamp_field="event_timestamp"),
)

churn_features = FeatureService(name="churn_features", features=[usage])

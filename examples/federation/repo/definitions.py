"""Three views of customers, each at home in another cloud, over a source of another kind."""

import os
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.types import Float64, Int64, String

from fairlead.featurestore.feast_sources import DuckDBSource

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)

payments = FeatureView(
    name="payments",
    entities=[customer],
    ttl=timedelta(days=60),
    schema=[Field(name="customer_id", dtype=Int64), Field(name="paid_30d", dtype=Float64)],
    source=FileSource(
        name="payments_source", path=f"{os.environ['PAYMENTS_BUCKET']}/payments", timestamp_field="event_timestamp"
    ),
    tags={"fairlead.home": "aws:us-east-1"},
)

# What is known of accounts may not leave the EU.
accounts = FeatureView(
    name="accounts",
    entities=[customer],
    schema=[
        Field(name="customer_id", dtype=Int64),
        Field(name="balance", dtype=Float64),
        Field(name="risk_band", dtype=String),
    ],
    source=PostgreSQLSource(
        name="accounts_source",
        query="SELECT customer_id, event_timestamp, balance, risk_band FROM accounts",
        timestamp_field="event_timestamp",
        tags={"fairlead.connection": "ledger"},
    ),
    tags={"fairlead.home": "gcp:europe-west4", "fairlead.residency": "eu"},
)

visits = FeatureView(
    name="visits",
    entities=[customer],
    schema=[Field(name="customer_id", dtype=Int64), Field(name="pages_seen", dtype=Int64)],
    source=DuckDBSource(
        name="visits_source",
        database=os.environ["VISITS_DATABASE"],
        table="visits",
        timestamp_field="event_timestamp",
    ),
    tags={"fairlead.home": "azure:westeurope"},
)

credit = FeatureService(name="credit", features=[payments, accounts, visits])
marketing = FeatureService(name="marketing", features=[payments, visits])

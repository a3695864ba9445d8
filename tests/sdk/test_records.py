"""Records are read from what the API answers, and written as what it would answer."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import ServerUnavailable
from fairlead.sdk import records
from fairlead.sdk.records import Artifact, Deployment, Location, ModelVersion, Record, RegisteredModel, Replica, Token

EVERY_RECORD = [each for each in vars(records).values() if isinstance(each, type) and issubclass(each, Record)]
text = st.text(max_size=20)
times = st.datetimes(timezones=st.just(UTC))
members = st.dictionaries(text, st.none() | st.booleans() | st.integers() | text, max_size=3)
replicas = st.builds(
    Replica,
    location=text,
    region=text,
    url=text,
    state=text,
    domain=members,
    options=members,
    layout_key=st.none() | text,
    stored_bytes=st.none() | st.integers(),
    verified_at=st.none() | times,
)
artifacts = st.builds(
    Artifact,
    digest=text,
    kind=text,
    residency=text,
    size_bytes=st.integers(),
    file_count=st.integers(),
    replicas=st.lists(replicas, max_size=3).map(tuple),
)
versions = st.builds(
    ModelVersion,
    name=text,
    version=st.integers(1),
    reference=text,
    state=text,
    residency=text,
    aliases=st.lists(text).map(tuple),
    metrics=members,
    created_at=st.none() | times,
)


@given(artifacts | versions)
def test_a_record_is_read_back_as_itself(record: Record) -> None:
    assert type(record).from_json(json.loads(json.dumps(record.to_json()))) == record


def test_members_that_this_client_does_not_know_are_left_out() -> None:
    model = RegisteredModel.from_json({"name": "churn", "residency": "eu", "last_version": 2, "mood": "good"})
    assert (model.name, model.regions, model.labels, model.created_at) == ("churn", None, {}, None)
    assert "mood" not in model.to_json()


def test_lists_become_tuples_and_times_become_aware() -> None:
    model = RegisteredModel.from_json(
        {
            "name": "a",
            "residency": "eu",
            "last_version": 0,
            "regions": ["aws:eu-west-1"],
            "created_at": "2026-03-01T00:00:00Z",
        }
    )
    assert model.regions == ("aws:eu-west-1",)
    assert model.created_at == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "answer", [{}, {"name": "x"}, {"id": "1", "name": "x", "region": "r", "url": "u", "created_at": "soon"},
               {"id": "1", "name": "x", "region": "r", "url": "u", "created_at": 7}]
)  # fmt: skip
def test_an_answer_that_is_no_such_record_names_the_server_and_not_a_line_of_ours(answer: dict[str, Any]) -> None:
    with pytest.raises(ServerUnavailable, match="Location"):
        Location.from_json(answer)


def test_a_secret_is_not_in_the_text_of_a_token() -> None:
    token = Token(id="1", name="ci", principal="ci", scopes=("read",), secret="fl_secret")
    assert "fl_secret" not in repr(token)
    assert token.to_json()["secret"] == "fl_secret"


@pytest.mark.parametrize("record", EVERY_RECORD, ids=lambda record: record.__name__)
def test_every_record_is_frozen_and_documented(record: type[Record]) -> None:
    assert record.__doc__
    assert not record.__doc__.startswith(f"{record.__name__}(")
    assert "__dict__" not in dir(record)
    assert record.__dataclass_params__.frozen  # pyright: ignore[reportAttributeAccessIssue]  (undeclared)
    assert all(each.kw_only for each in dataclasses.fields(record))


WANTED = {"state": "RUNNING", "version": 2, "bundle_digest": "d", "endpoint_url": "http://127.0.0.1:1"}
WRITTEN = WANTED | {"endpoint_url": None}
BEHIND = {"state": "RUNNING", "version": 1, "bundle_digest": "c"}
STARTING = {"state": "DEPLOYING", "version": None, "bundle_digest": None}


@pytest.mark.parametrize(
    ("regions", "expected"),
    [([], False), ([WANTED], True), ([BEHIND], False), ([WANTED, STARTING], False), ([WANTED, WANTED], True)],
)
def test_a_deployment_is_ready_when_every_region_runs_the_wanted_bundle(
    regions: list[dict[str, Any]], *, expected: bool
) -> None:
    deployment = Deployment(
        name="a",
        model="a",
        desired_version=2,
        bundle_digest="d",
        regions=tuple(regions),
        endpoint="http://127.0.0.1:1/a",
    )
    assert deployment.is_ready == expected
    assert not dataclasses.replace(deployment, endpoint=None).is_ready, "there is nowhere to send a request"
    # Of what is only written for a platform, nobody here knows an address.
    written = tuple(WRITTEN if each is WANTED else each for each in regions)
    assert dataclasses.replace(deployment, endpoint=None, regions=written).is_ready == expected

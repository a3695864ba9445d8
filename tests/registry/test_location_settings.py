from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import InvalidInput, JsonValue, LocationNotFound
from fairlead.registry.location_settings import client_settings, parse_settings
from fairlead.registry.tables import AuditEventRow, LocationRow
from tests.fleet import ADMIN, Fleet, open_fleet

ROLE = "arn:aws:iam::1:role/x"
CMEK = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"
METADATA = {"kind": "workload", "audience": "a", "token_from": "gcp-metadata", "token_audience": "a"}
TENANT = {"kind": "workload", "tenant_id": "t", "client_id": "c"}

GOOD: list[tuple[str, str, dict[str, JsonValue]]] = [
    ("file", "storage", {"rate_limit_bytes_per_second": 1, "has_create_only": False, "min_warm": 0.5}),
    ("s3", "storage", {"endpoint": "https://s3.example.com", "storage_class": "GLACIER_IR", "encryption_key": "k"}),
    ("s3", "storage", {"identity": {"kind": "workload", "role_arn": ROLE, "token_file_env": "MY_TOKEN_FILE"}}),
    ("s3", "storage", {"identity": {"kind": "workload", "role_arn": ROLE, "sts_endpoint": "http://127.0.0.1:1"}}),
    ("gs", "storage", {"storage_class": "NEARLINE", "encryption_key": CMEK, "identity": {"kind": "workload"}}),
    ("abfs", "storage", {"storage_class": "Cool", "identity": {**TENANT}}),
    ("abfs", "storage", {"identity": {"kind": "static", "credentials": "partner-eu"}}),
    ("gs", "storage", {"identity": {**METADATA, "metadata_host": "127.0.0.1:80"}}),
    ("gs", "storage", {"endpoint": "http://emulator:4443", "identity": {"kind": "anonymous"}}),
    ("https", "cache", {"is_public": True, "size_bytes": 10}),
]

BAD: list[tuple[str, str, dict[str, JsonValue], str]] = [
    ("file", "storage", {"storage_class": "STANDARD"}, "no setting 'storage_class'"),
    ("s3", "storage", {"is_public": True}, "no setting 'is_public'"),
    ("https", "cache", {"min_warm": 1}, "no setting 'min_warm'"),
    ("s3", "storage", {"storage_class": "DEEP_ARCHIVE"}, "storage_class"),
    ("abfs", "storage", {"storage_class": "Archive"}, "storage_class"),
    ("gs", "storage", {"encryption_key": "mine"}, "encryption_key"),
    ("s3", "storage", {"endpoint": "ftp://x"}, "endpoint"),
    ("s3", "storage", {"endpoint": "https://user:password@x"}, "endpoint"),
    ("s3", "storage", {"rate_limit_bytes_per_second": 0}, "rate_limit"),
    ("s3", "storage", {"rate_limit_bytes_per_second": True}, "rate_limit"),
    ("s3", "storage", {"min_warm": 1.5}, "min_warm"),
    ("s3", "storage", {"has_create_only": "no"}, "has_create_only"),
    ("s3", "storage", {"identity": "me"}, "identity"),
    ("s3", "storage", {"identity": {"kind": "key", "secret": "x"}}, "kind"),
    ("s3", "storage", {"identity": {"kind": "static"}}, "credentials"),
    ("s3", "storage", {"identity": {"kind": "static", "credentials": "AKIA/SECRET"}}, "credentials"),
    ("s3", "storage", {"identity": {"kind": "static", "credentials": "a", "secret_key": "b"}}, "secret_key"),
    ("s3", "storage", {"identity": {"kind": "workload", "token_file_env": "X_TOKEN_FILE"}}, "role_arn"),
    ("s3", "storage", {"identity": {"kind": "workload", "role_arn": ROLE, "token_file_env": "HOME"}}, "TOKEN_FILE"),
    ("s3", "storage", {"identity": {"kind": "workload", "role_arn": ROLE, "token_file": "/etc/passwd"}}, "token_file"),
    ("s3", "storage", {"identity": {"kind": "workload", "role_arn": ROLE, "sts_endpoint": "http://evil"}}, "https"),
    ("abfs", "storage", {"identity": {"kind": "workload", "tenant_id": "t"}}, "client_id"),
    ("gs", "storage", {"identity": {**METADATA, "metadata_host": "evil/x?"}}, "metadata_host"),
    ("gs", "storage", {"endpoint": "http://gcs.example.com"}, "https"),
    ("abfs", "storage", {"endpoint": "http://azure.example.com", "identity": {**TENANT}}, "https"),
    ("gs", "storage", {"identity": {"kind": "anonymous", "audience": "x"}}, "audience"),
]


@pytest.fixture
def local(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=()) as fleet:
        yield fleet


@pytest.mark.parametrize(("scheme", "kind", "settings"), GOOD)
def test_what_a_cloud_has_is_kept(scheme: str, kind: str, settings: dict[str, JsonValue]) -> None:
    assert parse_settings(settings, scheme=scheme, kind=kind) == settings


@pytest.mark.parametrize(("scheme", "kind", "settings", "reason"), BAD)
def test_what_it_has_not_is_refused_by_name(
    scheme: str, kind: str, settings: dict[str, JsonValue], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        parse_settings(settings, scheme=scheme, kind=kind)


def test_a_setting_that_is_null_is_taken_back_and_classes_are_spelled_as_their_cloud_does() -> None:
    given: dict[str, JsonValue] = {"storage_class": "standard_ia", "encryption_key": None}
    assert parse_settings(given, scheme="s3", kind="storage") == {"storage_class": "STANDARD_IA"}


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=12)


@given(st.dictionaries(st.sampled_from(["endpoint", "has_create_only", "identity", "x"]), VALUES, max_size=3))
def test_any_settings_are_kept_or_refused(settings: dict[str, JsonValue]) -> None:
    try:
        kept = parse_settings(settings, scheme="s3", kind="storage")
    except InvalidInput:
        return
    assert parse_settings(kept, scheme="s3", kind="storage") == kept


def test_clients_are_told_how_and_never_who() -> None:
    settings: dict[str, JsonValue] = {
        "endpoint": "https://x",
        "rate_limit_bytes_per_second": 5,
        "identity": {"kind": "workload", "role_arn": ROLE},
    }
    assert client_settings(settings) == {"endpoint": "https://x"}
    assert client_settings({"identity": {"kind": "anonymous"}}) == {"identity": {"kind": "anonymous"}}


def test_settings_change_after_a_trial_and_are_audited(local: Fleet) -> None:
    virginia = local.add("virginia")
    changed = local.locations.set(ADMIN, "virginia", {"rate_limit_bytes_per_second": 10**9, "min_warm": 0.5})
    assert changed.settings == {"rate_limit_bytes_per_second": 10**9, "min_warm": 0.5}
    assert (changed.url, changed.region) == (virginia.url, virginia.region)
    assert changed.store_options == {"rate_limit_bytes_per_second": 10**9}
    assert local.locations.set(ADMIN, "virginia", {"min_warm": None}).settings == {"rate_limit_bytes_per_second": 10**9}
    with local.database.read() as session:
        events = session.query(AuditEventRow).where(AuditEventRow.action == "location.set").all()
    assert [event.subject for event in events] == ["virginia", "virginia"]
    with pytest.raises(LocationNotFound):
        local.locations.set(ADMIN, "paris", {"min_warm": 1})
    with pytest.raises(InvalidInput, match="url"):
        local.locations.set(ADMIN, "virginia", {"url": "file:///elsewhere"})


def test_an_admin_cannot_send_the_servers_credentials_to_a_place_of_their_own(local: Fleet) -> None:
    exported: dict[str, JsonValue] = {
        "identity": {**METADATA, "token_audience": "sts.amazonaws.com", "token_url": "https://collector.example.com/v1"}
    }
    asked: dict[str, JsonValue] = {"identity": {**METADATA, "token_audience": "https://vault.azure.net"}}
    spoken_to: dict[str, JsonValue] = {"endpoint": "https://collector.example.com"}
    for settings, variable in (
        (exported, "FAIRLEAD_CLOUD_HOSTS"),
        (asked, "FAIRLEAD_TOKEN_AUDIENCES"),
        (spoken_to, "FAIRLEAD_CLOUD_HOSTS"),
    ):
        with pytest.raises(InvalidInput) as caught:
            local.locations.add(ADMIN, name="x", region="gcp:us-east1", url="gs://bucket/prefix", settings=settings)
        assert variable in (caught.value.hint or "")
    with pytest.raises(InvalidInput, match="identity"):
        local.locations.add(
            ADMIN, name="x", region="gcp:us-east1", url="gs://bucket/prefix", options={"identity": {"kind": "workload"}}
        )
    with local.database.write() as session:
        session.add(
            LocationRow(
                workspace_id=ADMIN.workspace_id,
                name="virginia",
                region="gcp:us-east1",
                jurisdiction="US",
                url="gs://bucket/prefix",
                options={},
                settings={},
                created_at=local.clock.now(),
            )
        )
    with pytest.raises(InvalidInput, match="collector"):
        local.locations.set(ADMIN, "virginia", spoken_to)

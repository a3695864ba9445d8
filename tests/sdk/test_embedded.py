"""A home's server is found only when it is that home's, on this machine, and answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.errors import InvalidInput
from fairlead.sdk.embedded import EmbeddedServer, Home, find, find_or_start
from tests.sdk.scripted_server import Answer, scripted_server


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(path=tmp_path)
    home.token.write_text("fl_owner\n")
    return home


def test_a_running_server_is_found_with_its_token(home: Home) -> None:
    with scripted_server([Answer(body={"status": "ok", "instance": "i1"})]) as server:
        home.address.write_text(json.dumps({"url": server.url, "pid": 7, "instance": "i1"}))
        assert find(home) == EmbeddedServer(url=server.url, token="fl_owner", pid=7)
        assert find_or_start(home) == EmbeddedServer(url=server.url, token="fl_owner", pid=7)
    assert [asked.headers.get("authorization") for asked in server.asked] == [None, None]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body={"status": "ok", "instance": "another home's"}),
        Answer(body={"status": "ok"}),
        Answer(body=["ok"]),
        Answer(body=b"hello", content_type="text/plain"),
        Answer(status=404, body={}),
        Answer(status=0),
    ],
)
def test_another_program_on_the_port_is_not_our_server(home: Home, answer: Answer) -> None:
    with scripted_server([answer]) as server:
        home.address.write_text(json.dumps({"url": server.url, "pid": 7, "instance": "i1"}))
        assert find(home) is None


@pytest.mark.parametrize(
    "address",
    [
        b"", b"{", b"\xff\xfe", b"null", b"[]", b'"http://127.0.0.1:1"', b"{}", b'{"url": "http://127.0.0.1:1"}',
        b'{"url": null, "pid": 1, "instance": "i"}', b'{"url": "http://127.0.0.1:99999999", "pid": 1, "instance": "i"}',
        b'{"url": "http://127.0.0.1:1", "pid": "x", "instance": "i"}',
        b'{"url": "x://\\u0000", "pid": 1, "instance": "i"}',
    ],
)  # fmt: skip
def test_a_stale_or_damaged_address_file_is_as_good_as_none(home: Home, address: bytes) -> None:
    home.address.write_bytes(address)
    assert find(home) is None


def test_the_owners_token_is_never_taken_to_another_machine(home: Home) -> None:
    # Reaching for it would fail the test: tests use loopback only.
    home.address.write_text(json.dumps({"url": "http://fairlead.example:8470", "pid": 7, "instance": "i1"}))
    assert find(home) is None


@pytest.mark.parametrize("missing", ["token", "address"])
def test_a_home_without_token_or_address_has_no_server(home: Home, missing: str) -> None:
    address: dict[str, Any] = {"url": "http://127.0.0.1:1", "pid": 7, "instance": "i1"}
    home.address.write_text(json.dumps(address))
    getattr(home, missing).unlink()
    assert find(home) is None


def test_a_home_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="file") as refused:
        find_or_start(Home(path=tmp_path / "file"))
    assert "FAIRLEAD_HOME" in str(refused.value.hint)

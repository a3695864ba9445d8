"""A client that holds no key of a location's cloud registers, downloads and is held to its upload, on a real server."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.command_line import LABELS, CommandLine, write_folder
from tests.acceptance.servers import running_server
from tests.servers.object_stores import ObjectStoreServer

pytestmark = pytest.mark.timeout(120)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hall:
    """A server that holds the keys of a container, and the command line of somebody who does not."""

    client: CommandLine

    def http(self) -> httpx2.Client:
        """The server's API, as the owner of its token."""
        variables = self.client.variables
        bearer = {"authorization": f"Bearer {variables['FAIRLEAD_TOKEN']}"}
        return httpx2.Client(base_url=f"{variables['FAIRLEAD_URL']}/api/v1", headers=bearer)


@pytest.fixture(scope="module")
def hall(azurite_server: ObjectStoreServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Hall]:
    text = str(azurite_server.options["connection_string"])
    host = text.rpartition("BlobEndpoint=http://")[2].partition("/")[0]
    root = tmp_path_factory.mktemp("hall")
    (root / "server").mkdir()
    server = CommandLine(
        home=root / "server" / ".fairlead",
        variables={"FAIRLEAD_CREDENTIALS_HALL_CONNECTION_STRING": text, "FAIRLEAD_CLOUD_HOSTS": host},
    )
    server("db", "upgrade")
    with running_server(server) as (process, url):
        token = process.wait_for(r"shown this once: (\S+)")[1]
        client = CommandLine(
            home=root / "client" / ".fairlead", variables={"FAIRLEAD_URL": url, "FAIRLEAD_TOKEN": token}
        )
        client.home.mkdir(parents=True)
        container = azurite_server.new_bucket()
        client(
            *("location", "add", "hall", "--region", "azure:westeurope", "--url", f"{container}/fairlead"),
            *("--identity", "kind=static", "--identity", "credentials=hall", "--client-access", "signed"),
        )
        yield Hall(client=client)


def test_files_go_there_and_come_back_without_a_key(hall: Hall, tmp_path: Path) -> None:
    files = {"weights.bin": bytes(range(256)) * 4000, "config.json": b"{}"}
    folder = write_folder(tmp_path / "model", files)

    version = hall.client.json("model", "register", "churn", folder, *LABELS)
    hall.client("model", "download", "churn/1", tmp_path / "copy")

    assert version["state"] == "READY"
    assert {path: (tmp_path / "copy" / path).read_bytes() for path in files} == files
    events = hall.client.json("audit")
    signed = [event for event in events if event["action"].startswith("storage.")]
    assert {event["action"] for event in signed} == {"storage.read", "storage.write"}
    assert {event["facts"]["location"] for event in signed} == {"hall"}
    assert "sig=" not in str(events)


def test_a_second_version_sends_only_what_is_new(hall: Hall, tmp_path: Path) -> None:
    files = {"old.bin": bytes(range(256)) * 4000}
    hall.client.json("model", "register", "grown", write_folder(tmp_path / "v1", files), *LABELS)
    again = hall.client.json(
        "model", "register", "grown", write_folder(tmp_path / "v2", {**files, "new.bin": b"new" * 100}), *LABELS
    )
    assert again["state"] == "READY"
    hall.client("model", "download", "grown/2", tmp_path / "copy")
    assert (tmp_path / "copy" / "new.bin").read_bytes() == b"new" * 100


def test_an_upload_reaches_its_own_domain_and_nothing_else(hall: Hall) -> None:
    with hall.http() as http:
        begun = http.post("/uploads", json={"kind": "model", "labels": {"owner": "ana"}}).json()
        domain = "/".join(begun["domain"].values())
        pack, path = "ab" * 32, f"/uploads/{begun['id']}/addresses"

        def ask(key: str, verb: str = "write", **headers: str) -> Any:
            return http.post(path, json={"verb": verb, "keys": [key]}, headers=headers)

        allowed = ask(f"{domain}/packs/ab/{pack}.pack")
        assert [each["method"] for each in allowed.json()["addresses"]] == ["PUT"]
        for key in (
            f"other/unrestricted/plain/packs/ab/{pack}.pack",
            f"{domain}/packs/cd/{pack}.pack",
            f"{domain}/refs/x.json",
            f"{begun['domain']['workspace']}/record/index/1.json",
            "locations.json",
        ):
            refused = ask(key)
            assert (refused.status_code, refused.json()["type"]) == (403, "urn:fairlead:error:permission-denied")
        assert ask("../x").status_code == 400
        assert http.post(path, json={"verb": "delete", "keys": ["x"]}).status_code == 400
        assert http.get(f"/uploads/{begun['id']}/objects", params={"prefix": f"{domain}/"}).status_code == 403
        # A rehearsal is told that it would be let in, and is not.
        rehearsed = ask(f"{domain}/packs/ab/{pack}.pack", **{"fairlead-dry-run": "true"})
        assert rehearsed.json() == {"addresses": []}


def test_nobody_writes_by_another_s_upload_or_by_one_that_is_over(hall: Hall) -> None:
    secret = hall.client.json("token", "create", "bo", "--principal", "bo", "--scope", "write")["secret"]
    with hall.http() as http:
        begun = http.post("/uploads", json={"kind": "model", "labels": {"owner": "ana"}}).json()
        key = f"{'/'.join(begun['domain'].values())}/packs/ab/{'ab' * 32}.pack"
        body = {"verb": "write", "keys": [key]}
        other = {"authorization": f"Bearer {secret}"}
        assert http.post(f"/uploads/{begun['id']}/addresses", json=body, headers=other).status_code == 403
        digest = "sha256:" + "cd" * 32
        layout = f"{'/'.join(begun['domain'].values())}/layouts/{'cd' * 32}/0000000001-{'ef' * 32}.json.gz"
        done = {"artifact_digest": digest, "layout_key": layout, "sent_bytes": 0}
        assert http.post(f"/uploads/{begun['id']}/complete", json=done).status_code == 200
        over = http.post(f"/uploads/{begun['id']}/addresses", json=body)
        assert over.json()["type"] == "urn:fairlead:error:lease-lost"


def test_a_location_whose_clients_have_keys_of_their_own_signs_nothing(hall: Hall, tmp_path: Path) -> None:
    hall.client("model", "register", "direct", write_folder(tmp_path / "model", {"a.bin": b"a"}), *LABELS)
    digest = hall.client.json("model", "show", "direct/1")["artifact_digest"]
    hall.client("location", "set", "hall", "--client-access", "direct")
    with hall.http() as http:
        refused = http.post(f"/artifacts/{digest}/addresses", json={"location": "hall"})
        assert refused.status_code == 409
        assert "--client-access signed" in refused.json()["hint"]
        assert http.post(f"/artifacts/{digest}/addresses", json={"location": "nowhere"}).status_code == 404
    hall.client("location", "set", "hall", "--client-access", "signed")

"""`fairlead location terraform`: files for a bucket, from the command line and from no server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairlead.cli.main import run
from fairlead.core.errors import ExitCode
from fairlead.serving.terraform.locations import Bucket, location_files

ARGUMENTS = (
    *("location", "terraform", "dublin", "--region", "azure:northeurope", "--url", "abfs://models/fairlead"),
    *("--option", "account_name=acmedublin", "--issuer", "https://oidc.example.com", "--subject", "worker"),
)
FILES = location_files(
    Bucket(
        location="dublin",
        region="azure:northeurope",
        url="abfs://models/fairlead",
        issuer="https://oidc.example.com",
        subjects=("worker",),
        account="acmedublin",
    )
)


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_URL", "http://127.0.0.1:1")


def test_files_are_shown_or_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([*ARGUMENTS, "--output", "json"]) == ExitCode.OK
    assert json.loads(capfd.readouterr().out) == {"files": FILES}
    assert run([*ARGUMENTS, "--out", str(tmp_path / "dublin")]) == ExitCode.OK
    assert {path.name: path.read_text() for path in (tmp_path / "dublin").iterdir()} == FILES


def test_what_is_missing_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert run([each for each in ARGUMENTS if each not in {"--option", "account_name=acmedublin"}]) == ExitCode.USAGE
    assert "--option account_name=" in capfd.readouterr().err


def test_the_command_that_adds_the_location_is_an_output() -> None:
    said = FILES["outputs.tf"]
    assert "fairlead location add dublin --region azure:northeurope --url abfs://models/fairlead" in said
    assert "--option account_name=acmedublin" in said
    assert "--identity client_id=${azurerm_user_assigned_identity.workers.client_id}" in said

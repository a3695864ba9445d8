"""Every block of shell on a how-to page works as it stands there, in order, in a home that nobody has used."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.acceptance.command_line import FAIRLEAD, ROOT, CommandLine, leave_nothing
from tests.servers.identity_issuer import LoopbackIssuer, to_answer
from tests.servers.sigstore_instance import sigstore_instance
from tests.servers.token_services import Answer, Request, serving

PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
PAGE_SECONDS = 540
MARK = "::block "
# What a smoke test installs is in uv's cache since this environment was made.
OFFLINE = {"FAIRLEAD_PACKAGE_INDEX": "offline"}
# The pages that ask for a Redis server, each by the variable that says where it is.
REDIS_PAGES = {"push-features": "FAIRLEAD_STREAM_BROKER", "serve-features-from-redis": "FEATURES_REDIS"}


@pytest.fixture
def checkout(tmp_path: Path) -> Generator[Path]:
    """What a reader has: the examples, and a folder to write in."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("*.parquet", "__pycache__"))
    yield tmp_path
    leave_nothing(tmp_path / "home")


@pytest.mark.timeout(PAGE_SECONDS + 60)
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_how_to_runs_from_top_to_bottom(checkout: Path, page: Path, request: pytest.FixtureRequest) -> None:
    variables = dict(OFFLINE)
    if (name := REDIS_PAGES.get(page.stem)) is not None:
        variables[name] = request.getfixturevalue("redis_server").url
    with job_that_signs(checkout) if page.stem == "sign-and-verify" else contextlib.nullcontext({}) as signing:
        printed = run_blocks(checkout, blocks_of(page), variables | signing)
    if page.stem == "promote-and-deploy":
        check_promote_and_deploy(printed)


def test_a_how_to_holds_no_command_that_is_not_run() -> None:
    for page in PAGES:
        languages = re.findall(r"^```(\w*)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(languages) == {"sh", ""}, page.name


def check_promote_and_deploy(printed: list[str]) -> None:
    _, registered, policy, approved, _, deployed, predicted, rolled_back, seen, _ = printed
    assert registered.count("VERIFIED") == 3
    assert "0.95" in policy
    assert "churn/1 -> production: APPLIED" in approved
    assert "RUNNING" in deployed
    assert "predictions" in predicted
    moves = re.findall(r"^\s+\d+\s+(promote|rollback)\s+(\S+)\s+(\d)", rolled_back, re.MULTILINE)
    assert moves == [("rollback", "2", "1"), ("promote", "1", "2"), ("promote", "-", "1")]
    assert "model.promote.approve" in seen
    assert "aws:us-east-1" in seen


@contextlib.contextmanager
def job_that_signs(folder: Path) -> Generator[dict[str, str]]:
    """The variables of a job of GitHub Actions, where a sigstore instance that knows GitHub is told of in a folder."""
    github = LoopbackIssuer(url="https://token.actions.githubusercontent.com")
    workflow = "https://github.com/acme/churn/.github/workflows/release.yml@refs/heads/main"

    def issue(request: Request) -> Answer:
        assert request.headers["authorization"] == "Bearer job"
        return to_answer({"value": github.token(datetime.now(UTC), audience=request.query["audience"], sub=workflow)})

    with sigstore_instance(github) as instance, serving(issue) as url:
        for name, document in (("trust", instance.trust_config), ("trusted_root", instance.trusted_root)):
            (folder / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
        yield {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{url}/?api-version=2", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "job"}


def blocks_of(page: Path) -> list[str]:
    """The text of each block of shell, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run_blocks(folder: Path, blocks: list[str], variables: Mapping[str, str]) -> list[str]:
    """What each block printed to standard output. One shell runs them all, so that variables live on."""
    environment = CommandLine(home=folder / "home", variables=variables).environment
    # Pages say `python` and `fairlead`; here they are those that run the tests.
    environment |= {"PATH": f"{FAIRLEAD.parent}{os.pathsep}{environment['PATH']}"}
    # Only the last command of a substitution or pipe counts for -e; every other one ends the page.
    script = "".join(f"echo '{MARK}{number}'\n{block}" for number, block in enumerate(blocks))
    finished = subprocess.run(
        ["/bin/sh", "-eu", "-s"],
        input=script,
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        env=environment,
        timeout=PAGE_SECONDS,
        check=False,
    )
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"
    assert "Traceback" not in finished.stderr, finished.stderr
    return re.split(rf"^{MARK}\d+\n", finished.stdout, flags=re.MULTILINE)[1:]

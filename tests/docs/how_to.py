"""How a page is run: every block of shell as it stands there, in order, in a home that nobody has used."""

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

FOLDER = ROOT / "docs" / "how-to"
SHELVES = {
    "features": (
        "check-snapshots",
        "erase-a-subject",
        "join-across-clouds",
        "moving-from-feast",
        "push-features",
        "read-features-online",
        "restore-a-snapshot",
        "serve-features-from-redis",
    ),
    "serving": (
        "bundle-a-model",
        "deploy-by-gitops",
        "deploy-to-kubernetes",
        "move-traffic-in-steps",
        "place-a-model",
        "promote-and-deploy",
        "push-images",
    ),
    "record": (
        "archive-and-delete",
        "follow-events",
        "give-access",
        "moving-from-mlflow",
        "promote-in-ci",
        "sign-and-verify",
        "survive-the-registry",
        "trace-lineage",
        "use-the-mlflow-plug-in",
        "workload-identity",
    ),
    "storage": (
        "add-a-private-region",
        "add-a-region",
        "encrypt",
        "keep-storage-true",
        "refresh-the-catalog",
        "run-fairlead-in-containers",
        "run-workers",
        "say-where-replicas-go",
        "scale-the-server",
        "send-only-what-changed",
    ),
}
"""The pages by what they are about; each shelf is a file of tests, which one process runs."""

PAGE_SECONDS = 540
MARK = "::block "
# What a smoke test installs is in uv's cache since this environment was made.
OFFLINE = {"FAIRLEAD_PACKAGE_INDEX": "offline"}
# The pages that ask for a Redis server, each by the variable that says where it is.
REDIS_PAGES = {"push-features": "FAIRLEAD_STREAM_BROKER", "serve-features-from-redis": "FEATURES_REDIS"}


def pages(shelf: str) -> pytest.MarkDecorator:
    """The pages of a shelf, as the parameter `page` of a test."""
    return pytest.mark.parametrize("page", SHELVES[shelf])


@contextlib.contextmanager
def checked_out(folder: Path) -> Generator[Path]:
    """What a reader has: the examples, and a folder to write in."""
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("*.parquet", "__pycache__"))
    try:
        yield folder
    finally:
        leave_nothing(folder / "home")


def run_page(name: str, folder: Path, request: pytest.FixtureRequest) -> list[str]:
    """What each block of a page printed, in a checkout of its own."""
    variables = dict(OFFLINE)
    if (variable := REDIS_PAGES.get(name)) is not None:
        variables[variable] = request.getfixturevalue("redis_server").url
    with (
        checked_out(folder) as checkout,
        job_that_signs(checkout) if name == "sign-and-verify" else contextlib.nullcontext({}) as signing,
    ):
        return run_blocks(checkout, blocks_of(FOLDER / f"{name}.md"), variables | signing)


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

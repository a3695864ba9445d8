"""Whatever is given, the answer is a typed error with the right exit code, and a second, right try works."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.command_line import FAIRLEAD, LABELS, CommandLine, leave_nothing, write_folder
from tests.acceptance.world import write_feast_repository
from tests.serving.models import model_files

pytestmark = pytest.mark.timeout(180)

ESCAPE = "\x1b[31m"


@pytest.fixture(scope="module")
def model(fairlead: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is registered as churn/1."""
    folder = write_folder(tmp_path_factory.mktemp("model"), model_files(0.5, extra_bytes=50_000))
    fairlead("model", "register", "churn", folder, *LABELS)
    return folder


@pytest.fixture(scope="module")
def untouched(fairlead: CommandLine, model: Path) -> Generator[dict[str, Any]]:
    """What the record holds before any of it; in the end its chain is whole."""
    del model
    yield record(fairlead)
    assert get(fairlead, "/api/v1/audit/verification").json()["is_intact"] is True


@pytest.fixture(autouse=True)
def nothing_half_done(fairlead: CommandLine, untouched: dict[str, Any]) -> Generator[None]:
    """After every test the record holds what it held, and the server still lives."""
    yield
    assert record(fairlead) == untouched


@pytest.mark.parametrize("name", ["a/b", "../../etc", f"a{ESCAPE}b"])
def test_the_command_line_refuses_a_name_that_breaks_a_rule_and_obeys_none(
    fairlead: CommandLine, model: Path, name: str
) -> None:
    problem = fairlead.refused("model", "register", name, model, *LABELS, code=2)
    assert problem["type"] == "urn:fairlead:error:invalid-name"
    told = fairlead("model", "show", f"{name}/1", code=2)
    assert "\x1b" not in told.stderr + told.stdout


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "../../etc", "a\\b", ".hidden", "dot.", "a@b", "a:b", "a%2Fb", "x" * 256, "a\nb", f"a{ESCAPE}b",
     "\u202eabc", "a\u0085b", " pad", "a*b"],
)  # fmt: skip
def test_a_name_that_breaks_a_rule_is_refused_wherever_it_is_given(fairlead: CommandLine, name: str) -> None:
    body = {"name": name, "labels": {"owner": "a", "team": "b", "cost_centre": "c"}}
    answers = [
        post(fairlead, "/api/v1/models", body),
        post(fairlead, "/api/v1/locations", {"name": name, "region": "aws:us-east-1", "url": "file:///nowhere"}),
    ]
    for answer in answers:
        assert answer.status_code == 400
        check_problem(answer)


def test_a_nul_in_any_text_is_refused_and_never_reaches_the_database(fairlead: CommandLine) -> None:
    labels = {"owner": "a", "team": "b", "cost_centre": "c"}
    for path, body in (
        ("/models", {"name": "a\x00b", "labels": labels}),
        ("/models", {"name": "fine", "labels": labels | {"owner": "a\x00"}}),
        ("/models", {"name": "fine", "labels": labels, "description": "a\x00b"}),
        ("/models", {"name": "fine", "labels": labels, "tags": {"a": "\ud800"}}),
        ("/tokens", {"name": "a\x00", "principal": "bo", "scopes": ["read"]}),
        ("/tokens", {"name": "a", "principal": "b\x00o", "scopes": ["read"]}),
    ):
        check_problem(post(fairlead, f"/api/v1{path}", body))
    for path in ("/models/a%00b", "/models/..%2f..%2fetc", "/resolve?reference=a%00/1", "/models?name_prefix=%00",
                 "/audit?subject=%00", "/artifacts/sha256:%00", "/features/services/%00", "/deployments/%00",
                 "/models/churn/aliases/%0a"):  # fmt: skip
        answer = get(fairlead, f"/api/v1{path}")
        check_problem(answer)
        assert answer.status_code in {400, 404}, path


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["model", "show", "absent"], 3, "model-not-found"),
        (["model", "show", "churn/99"], 3, "model-version-not-found"),
        (["model", "show", "churn@absent"], 3, "alias-not-found"),
        (["model", "show", f"churn/{2**63}"], 2, "invalid-reference"),
        (["model", "promote", "churn/1", "--to", "absent"], 3, "environment-not-found"),
        (["model", "promote", "churn/1", "--to", "dev", "--revision", "41"], 5, "stale-revision"),
        (["model", "alias", "churn@champion", str(2**63)], 2, "invalid-input"),
        (["model", "rollback", "churn@production", "--reason", "x"], 5, "conflict"),
        (["model", "approve", "nonsense"], 3, "promotion-not-found"),
        (["model", "register", "churn", "{tmp}/absent"], 2, "invalid-input"),
        (["model", "register", "new", "{tmp}/model"], 2, "invalid-input"),
        (["model", "register", "churn", "{tmp}/model", "--metric", "auc=high"], 2, "invalid-input"),
        (["model", "register", "churn", "{tmp}/model", "--residency", "eu"], 2, "invalid-input"),
        (["model", "register", "mars", "{tmp}/model", *LABELS, "--residency", "mars"], 2, "unknown-residency"),
        (["model", "register", "churn", "{tmp}/model", "--snapshot", "sha256:" + "0" * 64], 3, "snapshot-not-found"),
        (["features", "read", "absent", "--entity", "a=1"], 3, "feature-service-not-found"),
        (["features", "apply", "{tmp}"], 2, "invalid-input"),
        (["location", "add", "x", "--region", "aws:us-esat-1", "--url", "file://{tmp}/x"], 2, "unknown-region"),
        (["location", "add", "x", "--region", "aws:us-east-1", "--url", "ftp://host/x"], 2, "invalid-input"),
        (["token", "create", "x", "--principal", "bo", "--scope", "everything"], 2, "invalid-input"),
        (["token", "revoke", "nonsense"], 3, "token-not-found"),
        (["deploy", "status", "absent"], 3, "deployment-not-found"),
        (["deploy", "apply", "churn/1"], 2, "invalid-input"),
        (["deploy", "apply", "churn/1", "--region", "mars"], 2, "unknown-region"),
        (["predict", "absent", "--entity", "a=1"], 3, "deployment-not-found"),
        (["place", "{tmp}/absent.yaml"], 2, "invalid-input"),
    ],
)  # fmt: skip
def test_what_does_not_exist_or_makes_no_sense_has_its_own_code(
    fairlead: CommandLine, tmp_path: Path, arguments: list[str], code: int, error: str
) -> None:
    (tmp_path / "model").write_bytes(b"weights")
    filled = [each.replace("{tmp}", str(tmp_path)) for each in arguments]
    problem = fairlead.refused(*filled, code=code)
    assert problem["type"] == f"urn:fairlead:error:{error}", problem


@pytest.mark.parametrize(
    "arguments",
    [["model", "promote", "churn/1"], ["model", "alias", "churn@a", "x"], ["nonsense"],
     ["predict", "churn"], ["model", "rollback", "churn/1", "--reason", "x"], ["audit", "--anchor", "1:2"]],
)  # fmt: skip
def test_a_command_that_is_typed_wrong_is_usage_and_prints_no_data(fairlead: CommandLine, arguments: list[str]) -> None:
    assert fairlead(*arguments, code=2).stdout == ""


@pytest.mark.parametrize(
    "text",
    ["", "gates: [", "&a [*a]", "a: !!python/object/apply:os.system ['touch owned']", "[" * 5000, "\x00",
     "apiVersion: fairlead/v2\nkind: EnvironmentPolicy\nspec: {}",
     "apiVersion: fairlead/v1\nkind: EnvironmentPolicy\nspec: {gates: [{metric: a, comparison: '~', limit: 1}]}",
     "apiVersion: fairlead/v1\nkind: EnvironmentPolicy\nspec: {required_regions: [mars]}",
     "apiVersion: fairlead/v1\nkind: EnvironmentPolicy\nspec: {approvals: 1, surprise: 1}",
     "apiVersion: fairlead/v1\nkind: EnvironmentPolicy\nspec: {gates: [{metric: a, comparison: '>=', limit: .nan}]}"],
)  # fmt: skip
def test_a_document_that_is_none_is_refused(fairlead: CommandLine, tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    problem = fairlead.refused("environment", "policy", "production", file, code=2)
    assert problem["type"] in {"urn:fairlead:error:invalid-input", "urn:fairlead:error:unknown-region"}
    assert not (tmp_path / "owned").exists()
    assert not Path("owned").exists()


def test_numbers_beyond_every_database_are_refused(fairlead: CommandLine) -> None:
    for number in (2**31, 2**63, 2**64, 10**40, -1, 0):
        for path in (f"/models/churn/versions/{number}", f"/resolve?reference=churn/{number}"):
            answer = get(fairlead, f"/api/v1{path}")
            assert answer.status_code in {400, 404}, path
            check_problem(answer)
        check_problem(get(fairlead, f"/api/v1/models?page_size={number}"))
        headers = {"if-match": f'"{number}"'}
        answer = put(fairlead, "/api/v1/models/churn/aliases/a", {"version": number}, headers)
        assert answer.status_code in {400, 404, 412}
        check_problem(answer)
    check_problem(put(fairlead, "/api/v1/models/churn/aliases/a", {"version": 1}, {"if-match": "*"}))
    required = put(fairlead, "/api/v1/models/churn/aliases/a", {"version": 1}, {})
    assert (required.status_code, required.json()["type"]) == (428, "urn:fairlead:error:revision-required")


def test_a_page_token_is_good_for_its_own_list_alone(fairlead: CommandLine) -> None:
    page = get(fairlead, "/api/v1/audit?page_size=1").json()
    token = page["next_page_token"]
    assert get(fairlead, f"/api/v1/audit?page_size=1&page_token={token}").json()["items"] != page["items"]
    for path in (
        f"/models?page_token={token}",
        f"/audit?subject=churn/1&page_token={token}",
        f"/audit?newest_first=true&page_token={token}",
        f"/audit?page_token={token[:-3]}",
        "/audit?page_token=%00",
        "/audit?page_token=" + "A" * 5000,
    ):
        answer = get(fairlead, f"/api/v1{path}")
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:fairlead:error:invalid-page-token"), path


def test_a_body_that_is_no_json_too_deep_or_too_large_is_refused(fairlead: CommandLine) -> None:
    url, headers = f"{fairlead.address['url']}/api/v1/models", {"content-type": "application/json"}
    bodies = [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"name": NaN}', b'"text"', b"null", b" " * (9 * 2**20)]
    for body in bodies:
        answer = httpx2.post(url, content=body, headers=headers | owner(fairlead), trust_env=False, timeout=30)
        assert answer.status_code in {400, 413}, body[:20]
        check_problem(answer)
    deep = {"name": "deep", "labels": {"owner": "a", "team": "b", "cost_centre": "c"}, "surprise": 1}
    check_problem(post(fairlead, "/api/v1/models", deep))


def test_the_same_key_with_another_request_is_refused_and_with_the_same_one_changes_nothing(
    fairlead: CommandLine,
) -> None:
    body: dict[str, Any] = {"name": "ci", "principal": "ci", "scopes": ["read"]}
    headers = {"idempotency-key": "acceptance-1"}
    first = post(fairlead, "/api/v1/tokens", body, headers)
    again = post(fairlead, "/api/v1/tokens", body, headers)
    other = post(fairlead, "/api/v1/tokens", body | {"name": "other"}, headers)
    # A secret is shown once, so the repetition says that it was, and makes no second token.
    assert (first.status_code, again.status_code) == (201, 409)
    assert first.json()["secret"] not in again.text
    tokens = get(fairlead, "/api/v1/tokens").json()["items"]
    assert len([token for token in tokens if token["name"] in {"ci", "other"}]) == 1
    assert (other.status_code, other.json()["type"]) == (422, "urn:fairlead:error:idempotency-key-reused")


def test_a_server_that_does_not_answer_is_told_as_that(fairlead: CommandLine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        problem = fairlead.as_(FAIRLEAD_URL=closed).refused("model", "list", code=1)
    assert problem["type"] == "urn:fairlead:error:server-unavailable"
    assert closed in problem["detail"]
    assert "FAIRLEAD_URL" in problem["hint"]
    for url in ("ftp://host", "http://127.0.0.1:99999"):
        problem = fairlead.as_(FAIRLEAD_URL=url).refused("model", "list", code=2)
        assert problem["type"] == "urn:fairlead:error:invalid-input"
    told = fairlead.as_(FAIRLEAD_URL=closed)("model", "list", code=1)
    assert told.stdout == ""
    assert told.stderr.startswith("error: ")


@pytest.mark.parametrize("token", ["ü", "a b", "fl_" + "A" * 43])
def test_a_wrong_token_is_refused(fairlead: CommandLine, token: str) -> None:
    answer = fairlead.as_(FAIRLEAD_TOKEN=token)("model", "list", "-o", "json", code=2 if not_a_token(token) else 4)
    assert token not in answer.stderr
    assert answer.problem["hint"]


def test_a_home_that_cannot_be_one_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    problem = CommandLine(home=tmp_path / "file").refused("model", "list", code=2)
    assert str(tmp_path / "file") in problem["detail"]
    assert "FAIRLEAD_HOME" in problem["hint"]
    # A folder in which even root may make nothing.
    problem = CommandLine(home=Path("/proc/fairlead")).as_().refused("model", "list", code=2)
    assert "FAIRLEAD_HOME" in problem["hint"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_may_only_be_read_is_told_as_that(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    problem = CommandLine(home=home).refused("model", "list", code=4)
    assert problem["type"] == "urn:fairlead:error:permission-denied"


def test_a_download_that_finds_no_room_leaves_nothing_and_works_where_there_is_some(
    fairlead: CommandLine, model: Path, tmp_path: Path
) -> None:
    script = [FAIRLEAD, "model", "download", "churn/1", str(tmp_path / "copy"), "--output", "json"]

    def with_little_room() -> None:
        # What the disk says when it is full comes as EFBIG here; both end a write half-way.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    finished = subprocess.run(
        script,
        capture_output=True,
        encoding="utf-8",
        env=fairlead.environment,
        preexec_fn=with_little_room,
        check=False,
    )
    assert finished.returncode == 1, finished.stderr
    problem = json.loads(finished.stderr)
    assert problem["type"] == "urn:fairlead:error:storage-full", problem
    assert list(tmp_path.iterdir()) == []
    fairlead("model", "download", "churn/1", tmp_path / "copy")
    assert (tmp_path / "copy" / "MLmodel").read_bytes() == (model / "MLmodel").read_bytes()


def test_a_registration_that_is_killed_leaves_nothing_and_the_next_one_works(
    fairlead: CommandLine, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "large", {"weights.bin": os.urandom(24 * 2**20)})
    doomed = subprocess.Popen(
        [FAIRLEAD, "model", "register", "churn", folder],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=fairlead.environment,
    )
    packs = fairlead.home / "locations"
    before = len(list(packs.rglob("*.pack")))
    while doomed.poll() is None and len(list(packs.rglob("*.pack"))) == before:
        pass
    doomed.kill()
    doomed.wait()
    versions = fairlead.json("model", "show", "churn")["versions"]
    assert [version["reference"] for version in versions] == ["churn/1"]


def test_a_model_with_a_link_or_a_socket_in_it_is_refused(fairlead: CommandLine, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", {"a.bin": b"a"})
    (folder / "secret").symlink_to("/etc/hostname")
    fairlead.refused("model", "register", "churn", folder, code=2)
    (folder / "secret").unlink()
    os.mkfifo(folder / "pipe")
    fairlead.refused("model", "register", "churn", folder, code=2)
    (folder / "pipe").unlink()
    (tmp_path / "empty").mkdir()
    fairlead.refused("model", "register", "churn", tmp_path / "empty", code=2)


def test_a_feature_repository_that_is_broken_says_where(fairlead: CommandLine, tmp_path: Path) -> None:
    broken = write_feast_repository(tmp_path / "broken")
    with (broken / "definitions.py").open("a") as file:
        file.write("\nraise RuntimeError('no luck')\n")
    problem = fairlead.refused("features", "apply", broken, code=2)
    assert problem["type"] == "urn:fairlead:error:feature-definition-invalid"
    assert "no luck" in problem["detail"]


def test_a_home_without_the_servers_packages_says_what_to_install(tmp_path: Path) -> None:
    """A light installation: the module that starts the server finds no web framework."""
    missing = b"raise ModuleNotFoundError(\"No module named 'uvicorn'\", name='uvicorn')\n"
    write_folder(tmp_path / "shadow", {"uvicorn.py": missing})
    light = CommandLine(home=tmp_path / "home", variables={"PYTHONPATH": str(tmp_path / "shadow")})
    try:
        problem = light.refused("model", "list", code=1)
        assert problem["type"] == "urn:fairlead:error:missing-extra"
        assert "pip install" in problem["hint"]
    finally:
        leave_nothing(tmp_path / "home")


def record(fairlead: CommandLine) -> dict[str, Any]:
    """All that could have been half-done."""
    models = get(fairlead, "/api/v1/models").json()["items"]
    return {
        "instance": fairlead.address["instance"],
        "models": [(model["name"], model["last_version"]) for model in models],
        "aliases": get(fairlead, "/api/v1/models/churn/aliases").json()["items"],
        "environments": get(fairlead, "/api/v1/environments").json()["items"],
        "locations": [each["name"] for each in get(fairlead, "/api/v1/locations").json()["items"]],
        "deployments": get(fairlead, "/api/v1/deployments").json()["items"],
        "services": get(fairlead, "/api/v1/features/services").json()["items"],
    }


def owner(fairlead: CommandLine) -> dict[str, str]:
    return {"authorization": f"Bearer {fairlead.token}"}


def get(fairlead: CommandLine, path: str) -> httpx2.Response:
    return httpx2.get(fairlead.address["url"] + path, headers=owner(fairlead), trust_env=False, timeout=30)


def post(
    fairlead: CommandLine, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> httpx2.Response:
    return send(fairlead, "POST", path, body, headers or {})


def put(fairlead: CommandLine, path: str, body: dict[str, Any], headers: dict[str, str]) -> httpx2.Response:
    return send(fairlead, "PUT", path, body, headers)


def send(
    fairlead: CommandLine, method: str, path: str, body: dict[str, Any], headers: dict[str, str]
) -> httpx2.Response:
    # ASCII, as other clients send it: half a surrogate pair is JSON, and no text.
    return httpx2.request(
        method,
        fairlead.address["url"] + path,
        content=json.dumps(body).encode(),
        headers={"content-type": "application/json"} | owner(fairlead) | headers,
        trust_env=False,
        timeout=30,
    )


def check_problem(answer: httpx2.Response) -> None:
    """A typed problem that says what to do next and holds nothing of the server's inside."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["type"].startswith("urn:fairlead:error:")
    assert problem["detail"]
    for leak in ("Traceback", "sqlalchemy", "SELECT ", "site-packages"):
        assert leak not in answer.text


def not_a_token(token: str) -> bool:
    return not token.isascii() or " " in token

"""What is delivered to a folder, to a repository on this machine, and to one over HTTP."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.errors import Conflict, FairleadError, InvalidInput, PermissionDenied, Unavailable
from fairlead.core.outbound import OutboundRules
from fairlead.serving import git_branch
from fairlead.serving.kinds.registry import check_settings
from fairlead.serving.kinds.terraform import KIND
from fairlead.serving.rendered import MARKER, folder_of
from fairlead.serving.repository_target import DELIVERIES, FolderSettings, GitSettings, RepositoryTarget
from fairlead.serving.targets import (
    Delivery,
    EndpointKey,
    EndpointSpec,
    NoLongerWanted,
    RunningEndpoint,
    TargetParts,
    TargetRules,
)
from fairlead.serving.terraform.module import TerraformSettings
from fairlead.serving.workload import Document, TargetKind, Workload
from fairlead.testing.target_conformance import DeployTargetSuite
from tests.servers.git_server import PASSWORD, USER, GitServer, git_server
from tests.serving.workloads import beside_former, workload

SPEC = EndpointSpec(workspace_id="w-1", workload=workload())
PLACE = folder_of(SPEC.key)
ENVIRON = {"FAIRLEAD_CREDENTIALS_FORGE_USERNAME": USER, "FAIRLEAD_CREDENTIALS_FORGE_PASSWORD": PASSWORD}


@dataclass(slots=True, kw_only=True)
class Scene:
    """A place that targets deliver to; `files` are those below it, `edit` is somebody else's change of one."""

    open: Callable[..., RepositoryTarget]
    files: Callable[[], dict[str, str]]
    edit: Callable[[str, str | None], None]
    commits: Callable[[], list[str]] | None = None
    root: Path = field(default_factory=Path)


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Path, GitServer]]:
    root = tmp_path_factory.mktemp("forge")
    with git_server(root) as server:
        yield root, server


@pytest.fixture(params=["folder", "http"])
def scene(request: pytest.FixtureRequest, tmp_path: Path, forge: tuple[Path, GitServer]) -> Scene:
    if request.param == "folder":
        return folder_scene(tmp_path)
    root, server = forge
    bare = root / f"{tmp_path.name}.git"
    return git_scene(tmp_path, bare, f"{server.url}/{bare.name}")


@pytest.fixture
def branch(tmp_path: Path, forge: tuple[Path, GitServer]) -> Scene:
    bare = forge[0] / f"{tmp_path.name}.git"
    return git_scene(tmp_path, bare, f"file://{bare}")


def folder_scene(tmp_path: Path) -> Scene:
    root = tmp_path / "manifests"

    def edit(path: str, text: str | None) -> None:
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True) if text is None else place.write_text(text, encoding="utf-8")

    def files() -> dict[str, str]:
        found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
        return {path: each.read_text() for path, each in found.items() if path != ".fairlead.lock"}

    def start(name: str = "one", **settings: Any) -> RepositoryTarget:
        return open_target("folder", tmp_path / "server" / name, {"path": str(root), **settings}, tmp_path)

    return Scene(open=start, files=files, edit=edit, root=root)


def git_scene(tmp_path: Path, bare: Path, url: str) -> Scene:
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(bare))
    git(bare, "config", "http.receivepack", "true")

    def start(name: str = "one", **settings: Any) -> RepositoryTarget:
        given = {"url": url, **({"credentials": "forge"} if url.startswith("http") else {}), **settings}
        return open_target("git", tmp_path / "server" / name, given, bare.parent)

    def files() -> dict[str, str]:
        listed = git(bare, "ls-tree", "-r", "--name-only", "main").splitlines() if has_commits(bare) else []
        return {path: git(bare, "show", f"main:{path}") for path in listed}

    def edit(path: str, text: str | None) -> None:
        checkout = tmp_path / "somebody"
        if not checkout.exists():
            git(tmp_path, "clone", "-q", str(bare), str(checkout))
        git(checkout, "pull", "-q", "origin", "main") if has_commits(bare) else None
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).unlink(missing_ok=True) if text is None else (checkout / path).write_text(text)
        git(checkout, "add", "-A")
        git(checkout, "-c", "user.name=Ana", "-c", "user.email=ana@example.com", "commit", "-q", "-m", "By hand")
        git(checkout, "push", "-q", "origin", "HEAD:main")

    def commits() -> list[str]:
        return git(bare, "log", "--format=%an <%ae> %s", "main").splitlines() if has_commits(bare) else []

    return Scene(open=start, files=files, edit=edit, commits=commits, root=bare)


def open_target(
    delivery: str, folder: Path, settings: Mapping[str, Any], permitted: Path, environ: Mapping[str, str] = ENVIRON
) -> RepositoryTarget:
    found: Delivery = DELIVERIES[delivery]
    parts = TargetParts(
        workspace_id=SPEC.workspace_id,
        name="manifests",
        kind=KIND,
        settings=TerraformSettings(),
        delivery_settings=check_settings(found.settings, settings, what="delivery_settings"),
        folder=folder,
        rules=TargetRules(
            folders=(permitted,),
            git_hosts=OutboundRules(setting="FAIRLEAD_GIT_HOSTS", hosts=("127.0.0.1",)),
            environ={"PATH": "/usr/local/bin:/usr/bin:/bin", **environ},
        ),
    )
    target = found.open(parts)
    assert isinstance(target, RepositoryTarget)
    return target


def with_workload(**changes: Any) -> EndpointSpec:
    return EndpointSpec(workspace_id=SPEC.workspace_id, workload=replace(SPEC.workload, **changes))


def ensure(target: RepositoryTarget, spec: EndpointSpec = SPEC) -> RunningEndpoint:
    switched: list[RunningEndpoint] = []
    running = target.ensure(spec, switched.append)
    assert switched == [running]
    return running


class TestFolder(DeployTargetSuite):
    @pytest.fixture
    def target(self, reopen: Callable[[], RepositoryTarget]) -> RepositoryTarget:
        return reopen()

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Callable[[], RepositoryTarget]:
        return folder_scene(tmp_path).open


class TestGit(DeployTargetSuite):
    @pytest.fixture
    def target(self, reopen: Callable[[], RepositoryTarget]) -> RepositoryTarget:
        return reopen()

    @pytest.fixture
    def reopen(self, branch: Scene) -> Callable[[], RepositoryTarget]:
        return branch.open


def test_what_is_wanted_is_there_and_is_not_written_twice(scene: Scene) -> None:
    assert scene.open().observe(SPEC) is None
    running = ensure(scene.open())
    assert (running.spec, running.url, running.is_ready, running.differences) == (SPEC, None, True, ())
    files = scene.files()
    assert set(files) == {
        f"{PLACE}/{name}" for name in ("main.tf", "outputs.tf", "variables.tf", "versions.tf", MARKER)
    }
    assert files[f"{PLACE}/main.tf"] == KIND.render(SPEC.workload, TerraformSettings())[2].text
    # Another server, that remembers nothing, finds it right too.
    assert ensure(scene.open("two")) == running
    assert scene.open("two").observe(SPEC) == running
    if scene.commits is not None:
        assert scene.commits() == ["Fairlead <fairlead@localhost> churn in aws:us-east-1: version 8 (production)"]


def test_a_next_version_changes_what_changes_and_what_is_gone_goes(scene: Scene) -> None:
    target = scene.open()
    ensure(target, with_workload(region="azure:northeurope"))
    ensure(target)
    assert {path.split("/")[0] for path in scene.files()} == {"aws-us-east-1", "azure-northeurope"}
    running = ensure(target, EndpointSpec(workspace_id="w-1", workload=beside_former(SPEC.workload)))
    assert running.spec.former is not None
    assert "weight = 10" in scene.files()[f"{PLACE}/main.tf"]
    target.stop(SPEC.key)
    assert target.observe(SPEC) is None
    target.stop(SPEC.key)
    assert {path.split("/")[0] for path in scene.files()} == {"azure-northeurope"}


def test_files_of_others_are_left_alone(scene: Scene) -> None:
    ensure(scene.open())
    scene.edit(f"{PLACE}/.terraform.lock.hcl", "# theirs\n")
    scene.edit(f"{PLACE}/.terraform/state", "# theirs\n")
    scene.edit("README.md", "# theirs\n")
    target = scene.open()
    assert ensure(target, with_workload(version=9)).differences == ()
    target.stop(SPEC.key)
    assert set(scene.files()) == {f"{PLACE}/.terraform.lock.hcl", f"{PLACE}/.terraform/state", "README.md"}


def test_an_edit_is_told_and_is_not_overwritten_unasked(scene: Scene) -> None:
    ensure(scene.open())
    scene.edit(f"{PLACE}/main.tf", "# mended by hand\n")
    scene.edit(f"{PLACE}/outputs.tf", None)
    observed = scene.open("two").observe(SPEC)
    assert observed is not None
    assert observed.differences == ("main.tf was edited", "outputs.tf was removed")
    # What is wanted has not changed, so nothing is lost by leaving it.
    assert ensure(scene.open()).differences == observed.differences
    with pytest.raises(Conflict, match=r"Somebody edited aws-us-east-1/churn/main\.tf"):
        ensure(scene.open(), with_workload(version=9, bundle_digest="sha256:" + "9b" * 32))
    assert scene.files()[f"{PLACE}/main.tf"] == "# mended by hand\n"
    running = ensure(scene.open(overwrite=True), with_workload(version=9))
    assert running.differences == ()
    assert "mended" not in scene.files()[f"{PLACE}/main.tf"]


def test_a_file_that_stood_there_before_is_not_overwritten(scene: Scene) -> None:
    scene.edit(f"{PLACE}/main.tf", "# somebody's own\n")
    with pytest.raises(Conflict):
        ensure(scene.open())
    assert scene.files() == {f"{PLACE}/main.tf": "# somebody's own\n"}


def test_another_workspace_s_files_are_nobody_else_s(scene: Scene) -> None:
    ensure(scene.open())
    other = replace(SPEC, workspace_id="w-2")
    with pytest.raises(Conflict, match="another workspace"):
        scene.open().ensure(other, lambda _: None)
    with pytest.raises(Conflict, match="another workspace"):
        scene.open().stop(other.key)
    assert scene.open().observe(other) is None
    assert scene.open().observe(SPEC) is not None


def test_what_is_wanted_no_more_is_not_written(scene: Scene) -> None:
    with pytest.raises(NoLongerWanted):
        scene.open().ensure(SPEC, lambda _: None, lambda: False)
    assert scene.files() == {}


def test_servers_that_write_at_once_lose_nothing_of_each_other(branch: Scene) -> None:
    assert branch.commits is not None
    specs = [with_workload(deployment=f"model-{number}") for number in range(5)]
    with ThreadPoolExecutor(5) as pool:
        for done in [pool.submit(ensure, branch.open(spec.deployment), spec) for spec in specs]:
            done.result()
    assert {path.split("/")[1] for path in branch.files()} == {spec.deployment for spec in specs}
    assert len(branch.commits()) == len(specs)
    # Each commit has one parent: nobody's was forced over.
    assert git(branch.root, "rev-list", "--count", "--max-parents=1", "main").strip() == str(len(specs))


def test_a_push_that_is_never_taken_is_given_up(branch: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_branch, "_ATTEMPTS", 2)
    target = branch.open()
    ensure(target)
    # Somebody else pushes each time that this server is about to.
    push: Callable[[Any, str], bool] = git_branch.GitBranch.__dict__["_push"]

    def push_later(self: Any, commit: str) -> bool:
        branch.edit("busy.txt", commit)
        return push(self, commit)

    monkeypatch.setattr(git_branch.GitBranch, "_push", push_later)
    with pytest.raises(Unavailable, match="Others pushed"):
        ensure(target, with_workload(version=9))


def test_commits_say_what_by_whose_word_and_have_no_trailers(branch: Scene) -> None:
    target = branch.open(author_name="Fairlead of Acme", author_email="fairlead@acme.example", path="clusters/eu")
    ensure(target, replace(SPEC, note="Revision 3 of the deployment: rolled back by ana."))
    assert git(branch.root, "log", "-1", "--format=%an <%ae>%n%B%(trailers)", "main").splitlines() == [
        "Fairlead of Acme <fairlead@acme.example>",
        "churn in aws:us-east-1: version 8 (production)",
        "",
        "Revision 3 of the deployment: rolled back by ana.",
        "Model churn, version 8; 2 to 6 replicas.",
        f"Bundle {SPEC.bundle_digest}.",
        "Labelled owner ana@example.com, team growth.",
        "",
    ]
    assert all(path.startswith(f"clusters/eu/{PLACE}/") for path in branch.files())


def test_no_hook_of_any_repository_here_is_run(branch: Scene, tmp_path: Path) -> None:
    target = branch.open()
    ensure(target)
    hooks = tmp_path / "server/one/repository.git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("pre-push", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
        (hooks / name).chmod(0o755)
    ensure(target, with_workload(version=9))
    assert not (tmp_path / "ran").exists()


def test_a_password_is_shown_to_the_server_and_kept_nowhere(tmp_path: Path, forge: tuple[Path, GitServer]) -> None:
    root, server = forge
    bare = root / "secrets.git"
    scene = git_scene(tmp_path, bare, f"{server.url}/{bare.name}")
    ensure(scene.open())
    kept = [path for path in (tmp_path / "server").rglob("*") if path.is_file()]
    assert kept
    assert all(PASSWORD.encode() not in path.read_bytes() for path in kept)
    wrong = dict.fromkeys(ENVIRON, "wrong")
    settings = {"url": f"{server.url}/{bare.name}", "credentials": "forge"}
    for environ in (wrong, {}):
        with pytest.raises(PermissionDenied) as refused:
            ensure(open_target("git", tmp_path / "other", settings, root, environ), with_workload(version=9))
        assert "wrong" not in str(refused.value)


def test_a_repository_that_is_not_there_may_come_back(tmp_path: Path) -> None:
    target = open_target("git", tmp_path / "server", {"url": f"file://{tmp_path}/none.git"}, tmp_path)
    with pytest.raises(Unavailable, match="does not answer"):
        ensure(target)
    with pytest.raises(Unavailable):
        target.observe(SPEC)
    git_scene(tmp_path, tmp_path / "none.git", "")
    # Asked every second, it is not asked again at once; whoever writes does ask.
    with pytest.raises(Unavailable):
        target.observe(SPEC)
    assert ensure(target) == target.observe(SPEC)


@pytest.mark.parametrize(
    "url",
    [
        "https://forge.example.com/acme/manifests.git",
        "https://ana:password@127.0.0.1/manifests.git",
        "http://127.0.0.1/manifests.git?x=1",
        "ssh://git@forge.example.com/manifests.git",
        "git@127.0.0.1:manifests.git",
        "file:///etc",
        "file://host/manifests.git",
        "file://{root}/%2e%2e/elsewhere.git",
        "file://{root}/../elsewhere.git",
        "ext::sh -c touch% /tmp/ran",
        "--upload-pack=touch /tmp/ran",
        "/srv/manifests.git",
    ],
)
def test_an_address_that_the_operator_does_not_permit_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises((InvalidInput, PermissionDenied)):
        open_target("git", tmp_path / "server", {"url": url.replace("{root}", str(tmp_path))}, tmp_path)


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (GitSettings, {"url": "https://h/x.git", "path": "../other"}),
        (GitSettings, {"url": "https://h/x.git", "path": ".git/hooks"}),
        (GitSettings, {"url": "https://h/x.git", "branch": "--force"}),
        (GitSettings, {"url": "https://h/x.git", "author_email": "a> b"}),
        (GitSettings, {"url": "https://h/x.git", "credentials": "X_Y"}),
        (FolderSettings, {"path": "/srv", "force": True}),
    ],
)
def test_settings_that_make_no_sense_are_refused(cls: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        check_settings(cls, settings, what="delivery_settings")


@pytest.mark.parametrize("path", ["/etc/fairlead", "manifests", "{root}/../elsewhere"])
def test_a_folder_that_the_operator_does_not_permit_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        open_target("folder", tmp_path / "server", {"path": path.format(root=tmp_path)}, tmp_path)
    assert refused.value.hint is not None


@pytest.mark.parametrize(
    ("delivery", "settings"),
    [("folder", {"path": "/srv"}), ("git", {"url": "file:///srv/x.git"}), ("git", {"url": "https://h.example/x.git"})],
)
def test_a_server_whose_operator_permits_nothing_takes_no_such_target(delivery: str, settings: dict[str, str]) -> None:
    found = DELIVERIES[delivery]
    assert found.check is not None
    with pytest.raises((InvalidInput, PermissionDenied)):
        found.check(check_settings(found.settings, settings, what="delivery_settings"), TargetRules())


def test_a_symbolic_link_leads_nowhere_else(tmp_path: Path) -> None:
    scene = folder_scene(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    scene.root.mkdir()
    (scene.root / "aws-us-east-1").symlink_to(elsewhere)
    with pytest.raises(FairleadError, match="leads out"):
        ensure(scene.open())
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("path", ["../x", "/etc/x", ".git/config", "a/../../x", "a//b", ".fairlead", "a\\b", ""])
def test_a_document_stays_in_its_folder(path: str, tmp_path: Path) -> None:
    def render(_workload: Workload, _settings: TerraformSettings) -> tuple[Document, ...]:
        return (Document(path=path, text="x"),)

    target = folder_scene(tmp_path).open()
    kind = TargetKind(name="hostile", settings=TerraformSettings, render=render)
    object.__setattr__(target, "_parts", replace(target.__dict__["_parts"], kind=kind))
    with pytest.raises(InvalidInput):
        ensure(target)


def test_names_of_deployments_are_safe_and_distinct_folders() -> None:
    keys = [
        EndpointKey("w", name, SPEC.region) for name in ("churn", "Churn", "chürn", "..", ".git", "a b", "a-b", "-rf")
    ]
    folders = [folder_of(key) for key in keys]
    assert len(set(folders)) == len(keys)
    assert all(part.isascii() and part[0].isalpha() for folder in folders for part in folder.split("/"))


def test_a_marker_that_nobody_can_read_is_no_marker(scene: Scene) -> None:
    ensure(scene.open())
    text = scene.files()[f"{PLACE}/{MARKER}"]
    assert json.loads(text)["workload"]["version"] == 8
    scene.edit(f"{PLACE}/{MARKER}", text.replace('"format": 1', '"format": 2'))
    assert scene.open("two").observe(SPEC) is None


def has_commits(bare: Path) -> bool:
    return git(bare, "for-each-ref", "refs/heads/main") != ""


def git(folder: Path, *arguments: str) -> str:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-c", "safe.directory=*", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=True
    ).stdout

"""The deliveries `folder` and `git`: what a kind has written becomes files, for whatever applies them from there.

Nothing is applied here, so an endpoint counts as ready once its files are where they belong, and has no address of its
own. Whoever watches the folder or branch (Argo CD, Flux, a job that runs Terraform) does the rest.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Protocol

from pydantic import Field, field_validator

from fairlead.core.errors import InvalidInput, PermissionDenied, Unavailable
from fairlead.serving.git_branch import GitBranch, GitPlace, check_url
from fairlead.serving.rendered import (
    Change,
    Files,
    Marker,
    change_to,
    differences,
    folder_of,
    is_within,
    may_be_ours,
    removal,
    to_files,
)
from fairlead.serving.targets import (
    Delivery,
    EndpointKey,
    EndpointSpec,
    NoLongerWanted,
    RunningEndpoint,
    TargetParts,
    TargetRules,
)
from fairlead.serving.workload import TargetSettings

FOLDERS_SETTING = "FAIRLEAD_DEPLOY_FOLDERS"
_LOOK_SECONDS = 5.0
"""How long an answer of `observe` may be old: it is asked for every second."""
_AWAY_SECONDS = 20.0
"""How long what did not answer is not asked again by `observe`: asking it may take many seconds."""


class FolderSettings(TargetSettings):
    """Where the files of a target of delivery `folder` go."""

    path: str = Field(description="An absolute path of a folder, below one that the operator permits.")
    overwrite: bool = Field(
        default=False, description="Whether what somebody edited is overwritten when something else is wanted."
    )


class GitSettings(TargetSettings):
    """The branch that the files of a target of delivery `git` are committed to."""

    url: str = Field(
        description="https://HOST/PATH, ssh://USER@HOST/PATH or file:///PATH, without credentials; the operator "
        "permits hosts and folders."
    )
    branch: str = Field(default="main", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}$", description="The branch.")
    path: str = Field(default="", max_length=200, description="A folder in the repository; its root if unset.")
    credentials: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9-]{0,62}$",
        description="Name of a user and password or token in each process's environment, "
        "`FAIRLEAD_CREDENTIALS_<NAME>_USERNAME` and `_PASSWORD`, or `_TOKEN`.",
    )
    author_name: str = Field(
        default="Fairlead", pattern=r"^[^<>\x00-\x1f]{1,100}$", description="Whose commits they are."
    )
    author_email: str = Field(
        default="fairlead@localhost", pattern=r"^[^<>\s\x00-\x1f]{1,200}$", description="That one's address."
    )
    overwrite: bool = Field(
        default=False, description="Whether what somebody edited is overwritten when something else is wanted."
    )

    @field_validator("path")
    @classmethod
    def _stays_within(cls, path: str) -> str:
        if not is_within(path):
            raise ValueError("it must be a path of folders below the root, such as clusters/production")
        return path.strip("/")


class Tree(Protocol):
    """Files below some folder, which others change too."""

    def read(self, folder: str) -> Files:
        """The files below one of its folders now.

        Raises:
            Unavailable: if it cannot be asked.
        """
        ...

    def change(self, folder: str, decide: Callable[[Files], Change], message: str) -> None:
        """Do what `decide` says of the files as they are then; it is asked again when somebody else was faster.

        Raises:
            Unavailable: if it cannot be asked, or others were faster every time.
        """
        ...


class RepositoryTarget:
    """Keeps the files of endpoints in a tree. Implements `DeployTarget`."""

    def __init__(self, tree: Tree, parts: TargetParts, *, overwrite: bool) -> None:
        self._tree = tree
        self._parts = parts
        self._overwrite = overwrite
        self._seen: dict[EndpointKey, tuple[float, RunningEndpoint | None]] = {}
        self._away: tuple[float, Unavailable] | None = None
        self._lock = threading.Lock()

    def ensure(
        self,
        spec: EndpointSpec,
        switch: Callable[[RunningEndpoint], None],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> RunningEndpoint:
        """See `DeployTarget.ensure`; an edit of somebody's is overwritten only where the target says so.

        Raises:
            NoLongerWanted: once `is_wanted` says no.
            Conflict: if somebody edited what would be changed.
            Unavailable, PermissionDenied: if the files cannot be written.
            InvalidInput: if the target's kind has no words for the workload.
        """
        folder = folder_of(spec.key)
        wanted = to_files(spec, self._parts.kind.render(spec.workload, self._parts.settings))

        def decide(current: Files) -> Change:
            if not is_wanted():
                raise NoLongerWanted
            return change_to(wanted, current, workspace_id=spec.workspace_id, overwrite=self._overwrite, place=folder)

        self._tree.change(folder, decide, _message(spec))
        running = self._look(spec.key) or RunningEndpoint(spec=spec, url=None)
        switch(running)
        return running

    def observe(self, spec: EndpointSpec) -> RunningEndpoint | None:
        """See `DeployTarget.observe`; the answer may be some seconds old."""
        with self._lock:
            seen, away = self._seen.get(spec.key), self._away
        if seen is not None and time.monotonic() - seen[0] < _LOOK_SECONDS:
            return seen[1]
        if away is not None and time.monotonic() - away[0] < _AWAY_SECONDS:
            raise Unavailable(away[1].detail, hint=away[1].hint)
        try:
            return self._look(spec.key)
        except Unavailable as error:
            with self._lock:
                self._away = time.monotonic(), error
            raise

    def stop(self, key: EndpointKey) -> None:
        """See `DeployTarget.stop`: what was written goes, and what others put beside it stays."""
        folder = folder_of(key)
        message = f"{key.deployment} in {key.region}: gone\n\nFairlead does not run it here any more.\n"
        self._tree.change(
            folder, lambda current: removal(current, workspace_id=key.workspace_id, place=folder), message
        )
        self._look(key)

    def _look(self, key: EndpointKey) -> RunningEndpoint | None:
        files = self._tree.read(folder_of(key))
        marker = Marker.read(files)
        running = None
        if marker is not None and marker.spec.key == key:
            running = RunningEndpoint(spec=marker.spec, url=None, differences=differences(files))
        with self._lock:
            self._seen[key], self._away = (time.monotonic(), running), None
        return running


class FolderTree:
    """A folder of this machine, or one that it has mounted. No file is ever half written.

    What changes is written first and what is gone is removed last, so that whoever reads meanwhile sees too much rather
    than too little.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, folder: str) -> Files:
        """See `Tree.read`."""
        try:
            return self._read(self._root / folder)
        except OSError as error:
            raise _unreachable(self._root, error) from None

    def change(self, folder: str, decide: Callable[[Files], Change], message: str) -> None:
        """See `Tree.change`; a folder has no messages."""
        del message
        place = self._root / folder
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with _locked(self._root / ".fairlead.lock"):
                change = decide(self._read(place))
                for path, data in sorted(change.written.items(), key=lambda item: item[0].startswith(".")):
                    _write(self._checked(place / path), data)
                for path in change.removed:
                    self._checked(place / path).unlink(missing_ok=True)
                if change.removed:
                    self._remove_empty(place)
        except OSError as error:
            raise _unreachable(self._root, error) from None

    def _read(self, place: Path) -> dict[str, bytes]:
        self._checked(place)
        files: dict[str, bytes] = {}
        for folder, folders, names in os.walk(place):
            # What tools keep beside documents (.terraform, .git) may be large.
            folders[:] = [name for name in folders if not name.startswith(".")]
            for path in (Path(folder) / name for name in names):
                inside = path.relative_to(place).as_posix()
                if may_be_ours(inside) and path.is_file() and not path.is_symlink():
                    files[inside] = path.read_bytes()
        return files

    def _checked(self, path: Path) -> Path:
        """A path that no symbolic link leads out of the root."""
        if not path.parent.resolve().is_relative_to(self._root.resolve()) or path.is_symlink():
            raise PermissionDenied(
                f"{path.relative_to(self._root).as_posix()!r} leads out of the target's folder.",
                hint="Remove the symbolic link.",
            )
        return path

    def _remove_empty(self, place: Path) -> None:
        for path in sorted((each for each in place.rglob("*") if each.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        for path in (place, place.parent):
            with contextlib.suppress(OSError):
                path.rmdir()


def _message(spec: EndpointSpec) -> str:
    """What a commit says: a line, then who wanted it and why, as far as the record says."""
    workload = spec.workload
    environment = "" if workload.environment is None else f" ({workload.environment})"
    share = ""
    if workload.former is not None:
        share = f", with {workload.traffic_percent} % of the requests beside version {workload.former.version}"
    bounds = f"{workload.scaling.min_replicas} to {workload.scaling.max_replicas} replicas"
    labels = ", ".join(f"{name} {value}" for name, value in sorted(workload.labels.items()))
    lines = [
        f"{spec.deployment} in {spec.region}: version {workload.version}{environment}",
        "",
        *([spec.note] if spec.note else []),
        f"Model {workload.model}, version {workload.version}{share}; {bounds}.",
        f"Bundle {spec.bundle_digest}.",
        *([f"Labelled {labels}."] if labels else []),
    ]
    return "".join(f"{line}\n" for line in lines)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _unreachable(root: Path, error: OSError) -> Unavailable:
    return Unavailable(f"The folder {root} cannot be used: {error.strerror}.", hint="See whether it is mounted.")


def check_folder(path: Path, permitted: tuple[Path, ...] | None) -> Path:
    """A folder that the operator permits targets to write to; None permits any.

    Raises:
        InvalidInput: if it is not absolute, or below none of them.
    """
    if not path.is_absolute() or ".." in path.parts:
        raise InvalidInput(f"{str(path)[:200]!r} is no absolute path.", hint="Write it from the root on.")
    roots = permitted if permitted is not None else (Path("/"),)
    if not any(path.resolve().is_relative_to(root.expanduser().resolve()) for root in roots):
        raise InvalidInput(
            f"This server writes no deployments to {str(path)[:200]!r}.",
            hint=f"Whoever runs the server can permit a folder in {FOLDERS_SETTING}.",
        )
    return path


def _check_folder_settings(settings: FolderSettings, rules: TargetRules) -> None:
    check_folder(Path(settings.path), rules.folders)


def _check_git_settings(settings: GitSettings, rules: TargetRules) -> None:
    if check_url(settings.url, rules.git_hosts) == "file":
        check_folder(Path(settings.url.removeprefix("file://")), rules.folders)


def _open_folder(parts: TargetParts) -> RepositoryTarget:
    settings = FolderSettings.model_validate(parts.delivery_settings.model_dump())
    _check_folder_settings(settings, parts.rules)
    return RepositoryTarget(FolderTree(Path(settings.path)), parts, overwrite=settings.overwrite)


def _open_git(parts: TargetParts) -> RepositoryTarget:
    settings = GitSettings.model_validate(parts.delivery_settings.model_dump())
    _check_git_settings(settings, parts.rules)
    place = GitPlace(
        url=settings.url,
        branch=settings.branch,
        path=settings.path,
        author=(settings.author_name, settings.author_email),
        credentials=settings.credentials,
    )
    branch = GitBranch(parts.folder / "repository.git", place, rules=parts.rules.git_hosts, environ=parts.rules.environ)
    return RepositoryTarget(branch, parts, overwrite=settings.overwrite)


DELIVERIES: Mapping[str, Delivery] = {
    "folder": Delivery(name="folder", settings=FolderSettings, open=_open_folder, check=_check_folder_settings),
    "git": Delivery(name="git", settings=GitSettings, open=_open_git, check=_check_git_settings),
}

"""Files on a branch of a git repository, changed by commits that nothing else of the branch is touched by.

There is no checkout: blobs, trees and commits are made in a bare repository of the server's own, and pushed. So no
hook, filter, submodule or symbolic link of the branch has any effect here. A push is refused by the other side when
somebody else was faster; then the change is made again on top of theirs.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fairlead.core.errors import InvalidInput, MissingExtra, PermissionDenied, Unavailable
from fairlead.core.outbound import OutboundRules
from fairlead.serving.rendered import Change, Files, may_be_ours
from fairlead.sync.store.identity import CREDENTIALS_PREFIX

_ATTEMPTS = 12
_COMMAND_SECONDS = 15.0
_LOOK_SECONDS = 2.0
_KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
)
# Whatever a machine's or user's configuration says does not count here.
_CONFIGURATION: Mapping[str, str] = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.attributesFile": os.devnull,
    "credential.helper": "",
    "fastimport.unpackLimit": "1000",
    "gc.autoDetach": "false",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "10",
    "protocol.allow": "never",
}
# Git asks for what it needs; the answer comes from variables that only this one process has.
_HELPER = (
    """!f() { test "$1" = get && printf 'username=%s\\npassword=%s\\n' "$GIT_TARGET_USER" "$GIT_TARGET_SECRET"; }; f"""
)
_REJECTED = re.compile(
    r"\[rejected\]|cannot lock ref|failed to update ref|incorrect old value|stale info", re.IGNORECASE
)
_REFUSED = re.compile(
    r"authentication failed|could not read (username|password)|permission denied|\b40[13]\b|"
    r"access denied|protected branch|hook declined",
    re.IGNORECASE,
)
_NEXT = "refs/fairlead/next"


@dataclass(frozen=True, slots=True, kw_only=True)
class GitPlace:
    """A branch, and a folder in it.

    `author` is a name and an address; `credentials` names those in the environment.
    """

    url: str
    branch: str
    path: str
    author: tuple[str, str]
    credentials: str | None = None


class GitBranch:
    """The files below a folder of a branch (see `fairlead.serving.repository_target.Tree`)."""

    def __init__(self, folder: Path, place: GitPlace, *, rules: OutboundRules, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._place = place
        self._rules = rules
        self._environ = environ
        self._scheme = check_url(place.url, rules)
        self._looked: tuple[float, str | None] | None = None

    def read(self, folder: str) -> Files:
        """See `Tree.read`; as of the branch's head some seconds ago at most."""
        with self._repository():
            return self._files(self._head(), folder)

    def change(self, folder: str, decide: Callable[[Files], Change], message: str) -> None:
        """See `Tree.change`: one commit, or none where there is nothing to do."""
        with self._repository():
            for attempt in range(_ATTEMPTS):
                self._looked = None
                head = self._head()
                change = decide(self._files(head, folder))
                if change.is_empty:
                    return
                commit = self._commit(head, folder, change, message)
                if self._push(commit):
                    self._looked = time.monotonic(), commit
                    return
                # Whoever was faster may have others behind them.
                time.sleep(random.uniform(0.05, 0.2) * (attempt + 1))  # noqa: S311  (no secret)
        raise Unavailable(
            f"Others pushed to {self._place.branch!r} of {self._place.url} every time that this server would have.",
            hint="Wait; it is tried again by itself.",
        )

    def _head(self) -> str | None:
        """The branch's commit on the other side, fetched; None for a branch that is not there yet."""
        if self._looked is not None and time.monotonic() - self._looked[0] < _LOOK_SECONDS:
            return self._looked[1]
        reference = f"refs/heads/{self._place.branch}"
        listed = self._git("ls-remote", "--heads", self._place.url, reference, speaks=True)
        found = next((line.split()[0] for line in listed.splitlines() if line.endswith(f"\t{reference}")), None)
        if found is not None and not self._has(found):
            self._git("fetch", "--quiet", "--no-tags", "--depth=1", self._place.url, reference, speaks=True)
            if not self._has(found):
                found = self._git("rev-parse", "FETCH_HEAD").strip()
        self._looked = time.monotonic(), found
        return found

    def _has(self, commit: str) -> bool:
        return self._run(["cat-file", "-e", f"{commit}^{{tree}}"]).returncode == 0

    def _files(self, head: str | None, folder: str) -> dict[str, bytes]:
        if head is None:
            return {}
        prefix = f"{self._below(folder)}/"
        blobs: dict[str, str] = {}
        listed = self._git("ls-tree", "-r", "-z", "--full-tree", head, "--", prefix)
        for entry in filter(None, listed.split("\0")):
            kind, _, path = entry.partition("\t")
            mode, _, blob = kind.split()
            path = path.removeprefix(prefix)
            # Links and submodules are nobody's documents.
            if mode in {"100644", "100755"} and may_be_ours(path):
                blobs[path] = blob
        asked = "".join(f"{blob}\n" for blob in blobs.values()).encode()
        answer = io.BytesIO(self._run(["cat-file", "--batch"], given=asked, check=True).stdout)
        files: dict[str, bytes] = {}
        for path in blobs:
            size = int(answer.readline().split()[2])
            files[path] = answer.read(size)
            answer.read(1)
        return files

    def _commit(self, head: str | None, folder: str, change: Change, message: str) -> str:
        """A commit on top of the head, made of nothing but objects."""
        prefix, told = self._below(folder), message.encode()
        name, address = self._place.author
        stream = [f"reset {_NEXT}\n".encode()]
        if head is not None:
            stream.append(f"from {head}\n".encode())
        stream.append(
            f"\ncommit {_NEXT}\nmark :1\ncommitter {name} <{address}> now\ndata {len(told)}\n".encode() + told
        )
        stream.append(b"\n")
        stream += [f"D {prefix}/{path}\n".encode() for path in change.removed]
        for path, data in sorted(change.written.items()):
            stream.append(f"M 100644 inline {prefix}/{path}\ndata {len(data)}\n".encode() + data + b"\n")
        stream.append(b"get-mark :1\ndone\n")
        command = ["fast-import", "--quiet", "--force", "--done", "--date-format=now"]
        return self._run(command, given=b"".join(stream), check=True).stdout.decode().strip()

    def _push(self, commit: str) -> bool:
        """Whether the branch is at the commit now; False when somebody else was faster."""
        target = f"{commit}:refs/heads/{self._place.branch}"
        finished = self._run(["push", "--porcelain", "--quiet", self._place.url, target], speaks=True)
        if finished.returncode == 0:
            return True
        said = (finished.stdout + finished.stderr).decode(errors="replace")
        if _REJECTED.search(said) and not _REFUSED.search(said):
            return False
        raise self._failure(said)

    def _below(self, folder: str) -> str:
        return f"{self._place.path}/{folder}" if self._place.path else folder

    @contextlib.contextmanager
    def _repository(self) -> Generator[None]:
        """Hold this server's own bare repository, made where it is not there."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with self._folder.with_suffix(".lock").open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not (self._folder / "HEAD").exists():
                shutil.rmtree(self._folder, ignore_errors=True)
                self._run(["init", "--quiet", "--bare", str(self._folder)], check=True, within=False)
            yield

    def _git(self, *arguments: str, speaks: bool = False) -> str:
        return self._run(arguments, check=True, speaks=speaks).stdout.decode(errors="surrogateescape")

    def _run(
        self,
        arguments: Sequence[str],
        *,
        given: bytes = b"",
        check: bool = False,
        speaks: bool = False,
        within: bool = True,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git; `speaks` for commands that ask the other side, and so may need to say who they are."""
        git = shutil.which("git", path=self._environ.get("PATH"))
        if git is None:
            raise MissingExtra("There is no git on this machine.", hint="Install git where Fairlead runs.")
        environment = self._environment(speaks=speaks)
        repository = ["--git-dir", str(self._folder)] if within else []
        try:
            finished = subprocess.run(
                [git, *repository, *arguments],
                input=given,
                capture_output=True,
                env=environment,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise self._failure("timed out") from None
        if check and finished.returncode != 0:
            raise self._failure(finished.stderr.decode(errors="replace"))
        return finished

    def _environment(self, *, speaks: bool) -> dict[str, str]:
        environment = {name: self._environ[name] for name in _KEPT_VARIABLES if name in self._environ}
        environment |= {
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes",
        }
        configuration = {**_CONFIGURATION, f"protocol.{self._scheme}.allow": "always"}
        if speaks and self._scheme in {"http", "https"}:
            # Where the name leads may have changed since the target was applied.
            self._rules.resolve(self._place.url)
            if self._place.credentials is not None:
                user, secret = self._secret(self._place.credentials)
                environment |= {"GIT_TARGET_USER": user, "GIT_TARGET_SECRET": secret}
                parts = urlsplit(self._place.url)
                configuration[f"credential.{parts.scheme}://{parts.netloc}.helper"] = _HELPER
        for number, (name, value) in enumerate(configuration.items()):
            environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        return environment | {"GIT_CONFIG_COUNT": str(len(configuration))}

    def _secret(self, name: str) -> tuple[str, str]:
        """User and password of this process's environment; forges take a token as the password of any user."""
        prefix = f"{CREDENTIALS_PREFIX}{name.upper().replace('-', '_')}_"
        user, password, token = (self._environ.get(prefix + each) for each in ("USERNAME", "PASSWORD", "TOKEN"))
        secret = password or token
        if not secret or any("\n" in each or "\0" in each for each in (user or "", secret)):
            raise PermissionDenied(
                f"This process has no credentials {name!r} for a git repository.",
                hint=f"Set {prefix}USERNAME and {prefix}PASSWORD, or {prefix}TOKEN, in its environment.",
            )
        return user or "fairlead", secret

    def _failure(self, said: str) -> Unavailable | PermissionDenied:
        """What to say of a command that failed; its own words may come from the other side, so they are not told."""
        if _REFUSED.search(said):
            return PermissionDenied(
                f"{self._place.url} does not let this server push to {self._place.branch!r}.",
                hint="See to it that its credentials are set, and that they may push to the branch.",
            )
        return Unavailable(
            f"The repository {self._place.url} does not answer as one.",
            hint="See whether it is there: git ls-remote URL. It is tried again by itself.",
        )


def check_url(url: str, rules: OutboundRules) -> str:
    """The scheme of a repository's address that may be asked, by what the operator says of hosts.

    Raises:
        InvalidInput: if it is no address of a repository, holds credentials, or its host is not permitted.
        PermissionDenied: if its host is not listed by name.
    """
    try:
        parts = urlsplit(url)
        host, port, user, password = parts.hostname, parts.port, parts.username, parts.password
    except ValueError:
        raise _no_repository(url) from None
    is_plain = all("!" <= character <= "~" and character not in "\\?#" for character in url) and password is None
    if not is_plain or not parts.path.strip("/") or "/../" in f"{parts.path}/":
        raise _no_repository(url)
    # Git decodes what stands for other characters, and then goes elsewhere than was checked.
    if parts.scheme == "file" and not parts.netloc and "%" not in url:
        return "file"
    if parts.scheme == "ssh" and host is not None and re.fullmatch(r"[a-z_][a-z0-9_.-]*", user or "git"):
        rules.require_listed(f"https://{host}:{port or 22}/" if port else f"https://{host}/")
        return "ssh"
    if parts.scheme in {"http", "https"} and user is None:
        rules.require_listed(url)
        return parts.scheme
    raise _no_repository(url)


def _no_repository(url: str) -> InvalidInput:
    return InvalidInput(
        f"{url[:120]!r} is no address of a repository.",
        hint="Write https://HOST/PATH, ssh://USER@HOST/PATH or file:///PATH, without a password.",
    )

"""What a new version is stored as a difference to, from the client's side: which base is cheap to read, and where from.

The server names candidates, the likeliest first. The first one whose bytes are cheap to read is taken:

1. from files on this machine: what was registered from here (if it is still where it was), or lies in the cache;
2. from the location, where that is a folder, or in this client's own region.

Anything else is passed over: reading a base from afar takes longer than the difference saves. Local files are never
believed: each block of them is used only if it has its digest.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fairlead.core.errors import FairleadError
from fairlead.core.ids import Digest, digest_hex

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fairlead.core.ports import ObjectStore
    from fairlead.sdk.transport import JsonObject
    from fairlead.sync.store.bases import Base
    from fairlead.sync.store.domain import DedupDomain
    from fairlead.sync.store.manifest import Content, Manifest


class LocalCopies:
    """Where the files of artifacts are on this machine: notes in the cache, and what the cache itself holds."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def remember(self, digest: Digest, source: Path) -> None:
        """Note that an artifact was made from these files. A note that cannot be written is no loss."""
        note = self._note(digest)
        temporary = note.with_name(f".{note.name}.{secrets.token_hex(6)}")
        with contextlib.suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"path": str(source.absolute())}), encoding="utf-8")
            temporary.replace(note)

    def may_have(self, digest: Digest) -> bool:
        """Whether there is anything on this machine that could be an artifact's files."""
        return any(source.exists() for source in self._candidates(digest))

    def find(self, manifest: Manifest) -> Mapping[str, Content] | None:
        """Files that have the paths and sizes of an artifact's, or None; what they hold was not looked at."""
        for source in self._candidates(manifest.digest):
            with contextlib.suppress(FairleadError, OSError):
                from fairlead.sync.store.manifest import list_files

                files = list_files(source)
                sizes = {path: content.stat().st_size for path, content in files.items() if isinstance(content, Path)}
                if sizes == {entry.path: entry.size for entry in manifest.files}:
                    return files
        return None

    def _candidates(self, digest: Digest) -> list[Path]:
        found = [self._cache / "artifacts" / digest_hex(digest)]
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found.insert(0, Path(json.loads(self._note(digest).read_text(encoding="utf-8"))["path"]))
        return found

    def _note(self, digest: Digest) -> Path:
        return self._cache / "registered" / f"{digest_hex(digest)}.json"


def choose_base(
    candidates: Sequence[JsonObject],
    store: ObjectStore,
    domain: DedupDomain,
    *,
    copies: LocalCopies,
    reads_location: bool,
) -> Base | None:
    """The first candidate that is cheap to read. `reads_location` says whether reading from the location is."""
    from fairlead.sync.store.bases import Base
    from fairlead.sync.store.reader import ArtifactReader

    for candidate in candidates:
        # A candidate that cannot be opened is a saving less, and nothing else; its location looks after it.
        with contextlib.suppress(FairleadError):
            digest, layout_key = Digest(str(candidate["digest"])), cast("str", candidate["layout_key"])
            if not reads_location and not copies.may_have(digest):
                continue
            reader = ArtifactReader.open(store, domain, digest, layout_key)
            files = copies.find(reader.manifest)
            if files is not None or reads_location:
                return Base(reader=reader, files=files, reads_location=reads_location)
    return None


def is_folder(url: str) -> bool:
    """Whether a location's URL is a folder of this machine's file system."""
    return url.startswith("file:") or "://" not in url

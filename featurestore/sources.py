"""Where a view's rows come from: Parquet files in folders of this machine or in a bucket.

A server reads local files only below the folders it was told to (`source_roots`), whatever `..` or link a path goes
through; otherwise a definition could have it read, and hand out, any file it can. Embedded mode runs as the person who
wrote the definition, and reads what they can (`source_roots=None`).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from fairlead.core.errors import FeatureSourceInvalid, MissingExtra, PermissionDenied, Unavailable
from fairlead.featurestore.definitions import SourceDefinition
from fairlead.featurestore.duck import load_arrow, quote_text

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
_MISSING_HINT = "Write the rows there as Parquet, or correct the path of its FileSource, and take another snapshot."


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Finds the files of a source.

    Args:
        roots: local folders that may be read; None is any.
        storage_options: by URL scheme (`s3`, `gs`, `abfs`), what fsspec needs to reach the bucket.
    """

    roots: tuple[Path, ...] | None = None
    storage_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])

    def relation(self, connection: DuckDBPyConnection, source: SourceDefinition, *, view: str) -> str:
        """SQL that stands for all rows of the source, usable on this connection.

        Raises:
            FeatureSourceInvalid: if there is no file, or it cannot be read as Parquet.
            PermissionDenied: if a local path is outside the roots.
            MissingExtra: if the library of the bucket's cloud is not installed.
            Unavailable: if the bucket does not answer.
        """
        uri = source.uri
        scheme, separator, _ = uri.partition("://")
        if not separator or scheme.lower() == "file":
            path = unquote(urlsplit(uri).path) if separator else uri
            files = self._local_files(path, view)
            names = ", ".join(quote_text(str(each)) for each in files)
            return f"read_parquet([{names}], union_by_name = true)"
        scheme = scheme.lower()
        if scheme not in _EXTRAS:
            raise FeatureSourceInvalid(
                f"The source of view {view!r} is a {scheme[:20]} URL, which is not read.",
                hint="Use a path, or a URL of s3://, gs:// or abfs://.",
                view=view,
            )
        return self._bucket(connection, scheme, uri, view)

    def _local_files(self, path: str, view: str) -> list[Path]:
        base = Path(path)
        if self.roots is not None and not base.is_absolute():
            raise FeatureSourceInvalid(
                f"The source of view {view!r} has a relative path.", hint="A server needs an absolute path.", view=view
            )
        if base.is_dir():
            found = sorted(base.rglob("*.parquet"))
        elif glob.has_magic(path):
            found = [Path(each) for each in sorted(glob.glob(path, recursive=True))]  # noqa: PTH207  (any depth, any root)
        else:
            found = [base]
        found = [each.resolve() for each in found]
        if self.roots is not None:
            # Checked before existence: a refusal must not tell which files there are.
            roots = [root.resolve() for root in self.roots]
            if not all(any(each.is_relative_to(root) for root in roots) for each in [base.resolve(), *found]):
                raise PermissionDenied(
                    f"The source of view {view!r} is outside the folders that this server reads.",
                    hint="Put the files below one of the server's source roots, or into a bucket.",
                    view=view,
                )
        if not found or not all(each.is_file() for each in found):
            raise FeatureSourceInvalid(
                f"The source of view {view!r} has no file at {path!r}.", hint=_MISSING_HINT, view=view
            )
        return found

    def _bucket(self, connection: DuckDBPyConnection, scheme: str, uri: str, view: str) -> str:
        arrow = load_arrow()
        open_url: Any = import_module("fsspec.core").url_to_fs
        try:
            filesystem, path = open_url(uri, **self.storage_options.get(scheme, {}))
        except ImportError:
            raise MissingExtra(
                f"Reading {scheme}:// needs a library that is not installed.",
                hint=f"Run: pip install 'fairlead[{_EXTRAS[scheme]}]'",
            ) from None
        try:
            dataset = arrow.dataset.dataset(path, filesystem=filesystem, format="parquet")
        except FileNotFoundError:
            raise FeatureSourceInvalid(
                f"The source of view {view!r} has no object at {uri!r}.", hint=_MISSING_HINT, view=view
            ) from None
        except arrow.ArrowInvalid:
            raise unreadable(view) from None
        except PermissionError:
            raise PermissionDenied(
                f"This worker may not read the source of view {view!r}.",
                hint="Give the worker's identity read access to the bucket.",
                view=view,
            ) from None
        except Exception as error:  # (each cloud's library has errors of its own)
            raise Unavailable(
                f"The source of view {view!r} does not answer ({type(error).__name__}).",
                hint="It is tried again by itself; check the bucket and the worker's credentials.",
            ) from error
        name = f"source_{os.urandom(4).hex()}"
        connection.register(name, dataset)
        return name


def unreadable(view: str) -> FeatureSourceInvalid:
    """The error for a file that is not Parquet."""
    return FeatureSourceInvalid(
        f"The source of view {view!r} holds a file that cannot be read as Parquet.",
        hint="Write it again as Parquet, and take another snapshot.",
        view=view,
    )

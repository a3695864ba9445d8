"""Where a view's rows come from: files in folders of this machine or in a bucket, and databases by named connections.

A server reads local files only below the folders it was told to (`source_roots`), whatever `..` or link a path goes
through; otherwise a definition could have it read, and hand out, any file it can. Embedded mode runs as the person who
wrote the definition, and reads what they can (`source_roots=None`).

A database is reached by no address but those of `connections`, which whoever runs this process configured.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from fairlead.core.errors import FeatureSourceInvalid, MissingExtra, PermissionDenied, Unavailable
from fairlead.featurestore.duck import load_arrow, quote_text
from fairlead.featurestore.source_definitions import (
    DuckDBRows,
    HopsworksRows,
    ParquetFiles,
    PostgresRows,
    SourceDefinition,
)
from fairlead.featurestore.source_duckdb import duckdb_relation, fetch_database
from fairlead.featurestore.source_hopsworks import hopsworks_relation
from fairlead.featurestore.source_postgres import postgres_relation
from fairlead.featurestore.source_queries import Needs

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
_MISSING_HINT = "Write the rows there, or correct the path of the source, and take another snapshot."
_ALL = Needs()
_BATCH_ROWS = 16_384
_BUFFER_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Finds the rows of a source.

    Args:
        roots: local folders that may be read; None is any.
        storage_options: by URL scheme (`s3`, `gs`, `abfs`), what fsspec needs to reach the bucket.
        connections: addresses of databases, with their passwords, by the names that definitions use.
        query_timeout: how long a database may take over its answer.
    """

    roots: tuple[Path, ...] | None = None
    storage_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    connections: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    query_timeout: timedelta = timedelta(hours=1)

    def relation(
        self, connection: DuckDBPyConnection, source: SourceDefinition, *, view: str, needs: Needs = _ALL
    ) -> str:
        """SQL that stands for the rows of the source, usable on this connection: at least those that are needed.

        Raises:
            FeatureSourceInvalid: if there is no such file, table or connection, or it cannot be read.
            PermissionDenied: if a local path is outside the roots, or a database does not let the connection in.
            MissingExtra: if the library of the bucket's cloud or of the database is not installed.
            Unavailable: if the bucket or database does not answer.
        """
        place = source.place
        match place:
            case ParquetFiles():
                return self._files(connection, place.uri, view, needs)
            case PostgresRows():
                return postgres_relation(
                    connection,
                    place,
                    address=self._address(place.connection, view),
                    timestamp_field=source.timestamp_field,
                    needs=needs,
                    timeout=self.query_timeout,
                    view=view,
                )
            case DuckDBRows():
                return duckdb_relation(
                    connection,
                    place,
                    file=self._database(connection, place.database, view),
                    timestamp_field=source.timestamp_field,
                    needs=needs,
                    timeout=self.query_timeout,
                    view=view,
                )
            case HopsworksRows():
                return hopsworks_relation(
                    connection,
                    place,
                    address=self._address(place.connection, view),
                    needs=needs,
                    timeout=self.query_timeout,
                    view=view,
                )

    def _address(self, name: str, view: str) -> str:
        address = self.connections.get(name)
        if address is None:
            raise FeatureSourceInvalid(
                f"The source of view {view!r} is behind the connection {name!r}, which this process does not have.",
                hint="Give its address to the workers and agents of the region: FAIRLEAD_FEATURE_CONNECTIONS.",
                view=view,
                connection=name,
            )
        return address

    def _files(self, connection: DuckDBPyConnection, uri: str, view: str, needs: Needs) -> str:
        scheme, path = _split(uri, view)
        if scheme is None:
            names = ", ".join(quote_text(str(each)) for each in self._local_files(path, view))
            return f"read_parquet([{names}], union_by_name = true)"
        filesystem, path = self._open_bucket(scheme, uri)
        arrow = load_arrow()
        with _bucket_errors(uri, view):
            dataset = arrow.dataset.dataset(path, filesystem=filesystem, format=_streaming_parquet())
        columns = [column for column in dataset.schema.names if needs.columns is None or column in needs.columns]
        if needs.columns is not None and len(columns) < len(needs.columns):
            columns = dataset.schema.names  # Whoever asked sees which there are.
        name = f"source_{os.urandom(4).hex()}"
        # Arrow would read many files and batches ahead, a gigabyte and more, of which DuckDB's limit knows nothing.
        ahead = {"batch_size": _BATCH_ROWS, "batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
        connection.register(name, dataset.scanner(columns=columns, **ahead))
        return name

    def _database(self, connection: DuckDBPyConnection, uri: str, view: str) -> Path:
        scheme, path = _split(uri, view)
        if scheme is None:
            return self._local_files(path, view)[0]
        filesystem, path = self._open_bucket(scheme, uri)
        with _bucket_errors(uri, view):
            return fetch_database(connection, filesystem, path)

    def _local_files(self, path: str, view: str) -> list[Path]:
        base = Path(path)
        if self.roots is not None and not base.is_absolute():
            raise FeatureSourceInvalid(
                f"The source of view {view!r} has a relative path.", hint="A server needs an absolute path.", view=view
            )
        # Before a look at the disk: a refusal must neither tell which files there are nor walk through all of them.
        self._check_roots([base.resolve()], view)
        if base.is_dir():
            found = sorted(base.rglob("*.parquet"))
        elif glob.has_magic(path):
            found = [Path(each) for each in sorted(glob.glob(path, recursive=True))]  # noqa: PTH207  (any depth, any root)
        else:
            found = [base]
        found = [each.resolve() for each in found]
        self._check_roots(found, view)
        if not found or not all(each.is_file() for each in found):
            raise FeatureSourceInvalid(
                f"The source of view {view!r} has no file at {path!r}.", hint=_MISSING_HINT, view=view
            )
        return found

    def _check_roots(self, paths: Sequence[Path], view: str) -> None:
        if self.roots is None:
            return
        roots = [root.resolve() for root in self.roots]
        if not all(any(each.is_relative_to(root) for root in roots) for each in paths):
            raise PermissionDenied(
                f"The source of view {view!r} is outside the folders that this server reads.",
                hint="Put the files below one of the server's source roots, or into a bucket.",
                view=view,
            )

    def _open_bucket(self, scheme: str, uri: str) -> tuple[Any, str]:
        open_url: Any = import_module("fsspec.core").url_to_fs
        try:
            return open_url(uri, **self.storage_options.get(scheme, {}))
        except ImportError:
            raise MissingExtra(
                f"Reading {scheme}:// needs a library that is not installed.",
                hint=f"Run: pip install 'fairlead[{_EXTRAS[scheme]}]'",
            ) from None


def _streaming_parquet() -> Any:
    """Parquet read piece by piece; Arrow would else fetch the whole of a file beforehand."""
    dataset = load_arrow().dataset
    options = dataset.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True, buffer_size=_BUFFER_BYTES)
    return dataset.ParquetFileFormat(default_fragment_scan_options=options)


def _split(uri: str, view: str) -> tuple[str | None, str]:
    """The scheme of a bucket's URL and the URL, or None and a local path.

    Raises:
        FeatureSourceInvalid: if it is a URL of another scheme.
    """
    scheme, separator, _ = uri.partition("://")
    scheme = scheme.lower()
    if not separator or scheme == "file":
        return None, unquote(urlsplit(uri).path) if separator else uri
    if scheme not in _EXTRAS:
        raise FeatureSourceInvalid(
            f"The source of view {view!r} is a {scheme[:20]} URL, which is not read.",
            hint="Use a path, or a URL of s3://, gs:// or abfs://.",
            view=view,
        )
    return scheme, uri


@contextmanager
def _bucket_errors(uri: str, view: str) -> Generator[None]:
    """What a cloud's library says, as errors of ours."""
    try:
        yield
    except FileNotFoundError:
        raise FeatureSourceInvalid(
            f"The source of view {view!r} has no object at {uri!r}.", hint=_MISSING_HINT, view=view
        ) from None
    except load_arrow().ArrowInvalid:
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


def unreadable(view: str) -> FeatureSourceInvalid:
    """The error for a file that is not Parquet."""
    return FeatureSourceInvalid(
        f"The source of view {view!r} holds a file that cannot be read as Parquet.",
        hint="Write it again as Parquet, and take another snapshot.",
        view=view,
    )

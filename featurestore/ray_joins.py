"""Ray as the engine of historical joins: the entity rows in shares by key, each joined by a process of the cluster.

Every node of the cluster has Fairlead installed, and reaches the sources by itself, as this process would; what travels
is the entity rows' keys and times, and the features. All rows of an entity are in one share and each share is joined as
without Ray, so the rows are the same: of several rows with equal times the same one counts.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from fairlead.core.errors import FairleadError, MissingExtra, Unavailable
from fairlead.featurestore.duck import ArrowTable, load_arrow

_SHARE_ROWS = 100_000
_TASKS_PER_CPU = 2
_MOST_SHARES_PER_CPU = 16


def join_on_ray(
    join: Any, rows: ArrowTable, keys: Sequence[str], *, address: str | None, share_rows: int = _SHARE_ROWS
) -> Mapping[str, Any]:
    """What `join(rows)` gives, a column by name, computed by the cluster at `address` in shares of about `share_rows`.

    Without an address it is the cluster of this process, or one of this machine alone. `join` and its result travel
    between processes; nobody but this process says what is run.

    Raises:
        MissingExtra: if Ray is not installed here.
        Unavailable: if the cluster does not answer, or lost a share; it may be tried again.
        FairleadError: what `join` raised.
    """
    ray, cpus = _connect(address)
    count = max(1, min(-(-rows.num_rows // share_rows), cpus * _MOST_SHARES_PER_CPU))
    task = ray.remote(num_cpus=1 / _TASKS_PER_CPU)(_join_share)
    shipped = ray.put(join)

    def run(shares: Sequence[ArrowTable]) -> Sequence[Mapping[str, Any]]:
        try:
            return cast("list[Mapping[str, Any]]", ray.get([task.remote(shipped, share) for share in shares]))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, FairleadError):
                raise error.cause from error
            raise
        except ray.exceptions.RayError as error:
            raise Unavailable(
                f"The Ray cluster lost a share of a join ({type(error).__name__}).", hint="Run the read again."
            ) from error

    return join_in_shares(run, rows, keys, count)


def join_in_shares(
    run: Callable[[Sequence[ArrowTable]], Sequence[Mapping[str, Any]]],
    rows: ArrowTable,
    keys: Sequence[str],
    count: int,
) -> Mapping[str, Any]:
    """The columns that `run` gives for at most `count` shares of the rows, in the order of the rows."""
    arrow = load_arrow()
    places = _shares(rows, keys, count)
    parts = [arrow.table(dict(each)) for each in run([rows.take(place).combine_chunks() for place in places])]
    order = arrow.compute.sort_indices(arrow.concat_arrays(places))
    joined = arrow.concat_tables(parts).take(order)
    return {name: joined.column(name) for name in joined.column_names}


def _join_share(join: Any, rows: ArrowTable) -> Mapping[str, Any]:
    columns: Mapping[str, Any] = join(rows)
    return columns


def _shares(rows: ArrowTable, keys: Sequence[str], count: int) -> list[Any]:
    """The places of the rows of each share; those of one entity are together. No share is empty."""
    arrow = load_arrow()
    compute = arrow.compute
    if not keys or count == 1:
        return [arrow.array(range(rows.num_rows), arrow.int64())]
    # Equal keys have equal text; where they go says nothing else.
    encoded = compute.dictionary_encode(rows.column(keys[0]).cast(arrow.string())).combine_chunks()
    shares = [zlib.crc32((text or "").encode()) % count for text in encoded.dictionary.to_pylist()]
    of_row = compute.fill_null(compute.take(arrow.array(shares, arrow.int64()), encoded.indices), 0)
    found = [compute.indices_nonzero(compute.equal(of_row, number)).cast(arrow.int64()) for number in range(count)]
    return [place for place in found if len(place)]


def _connect(address: str | None) -> tuple[Any, int]:
    try:
        import ray
    except ImportError as error:
        raise MissingExtra(
            "The engine `ray` needs the extra `ray`.", hint="Run: pip install 'fairlead[ray]'"
        ) from error
    connected: Any = ray
    try:
        if not connected.is_initialized():
            connected.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False)
        return connected, max(1, int(connected.cluster_resources().get("CPU", 1)))
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        raise Unavailable(
            f"The Ray cluster does not answer ({type(error).__name__}).", hint="Check ray_address."
        ) from error

"""How online stores in Redis are spoken with: keys, scripts, and commands in bulk that DuckDB writes.

Redis's protocol is text with lengths, so a query can make a column of whole commands, whose bytes go to the server as
they lie in memory: no row becomes a Python object on its way.

Keys, where P is `fairlead:{workspace}:{region}:{service}@{slot}`:

    fairlead:{workspace}:{region}   set of `{service}@{slot}`
    P                               hash: `pointer` (`{build}:{generation}`), `meta` (JSON), `token`, `started`
    P:builds                        hash: build -> JSON list with the number of buckets of each view
    P:{build}:{view}:{bucket}       hash: entity -> versions, newest first, in lines
    P:live:{alias}                  hash: entity -> JSON of a row that was pushed

A version is a JSON list: the generation that it came with, event and created timestamp (microseconds), the features as
they are kept; or the generation alone, where the entity is gone. A reader takes the first version that is not of a
later generation than the pointer's. An entity's bucket is the number that the last eight bytes of its MD5 make
(little-endian), modulo the number of buckets; its name is what `online_reader.key_text` makes of its key.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import InvalidInput, LeaseLost, StorageFull, Unavailable
from fairlead.featurestore.duck import fetch_batches
from fairlead.featurestore.online_engines import StoreName
from fairlead.featurestore.online_reader import StoredView

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ENTITIES_IN_BUCKET = 32
"""So many on average: Redis packs hashes of up to 128 small members."""

_BATCH = 8192
_KEYS_AT_ONCE = 1000
_CRLF = "E'\\r\\n'"

BEGIN = """
if (redis.call('HGET', KEYS[1], 'pointer') or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'started', ARGV[3])
return 1
"""
SWITCH = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'pointer', ARGV[2], 'meta', ARGV[3], 'started', ARGV[4])
redis.call('SADD', KEYS[2], ARGV[5])
return 1
"""
PUT = """
local old = redis.call('HGET', KEYS[1], ARGV[1])
local before = old and string.match(old, '^[^\\n]*')
local was = before and string.find(before, ',', 1, true) and 1 or 0
local is = string.find(ARGV[2], ',', 1, true) and 1 or 0
if before or is == 1 then
    redis.call('HSET', KEYS[1], ARGV[1], before and ARGV[2] .. '\\n' .. before or ARGV[2])
end
return is - was
"""
COMPACT = """
local old = redis.call('HGET', KEYS[1], ARGV[1])
if not old then return 0 end
local kept = {}
for version in string.gmatch(old, '[^\\n]+') do
    kept[#kept + 1] = version
    if tonumber(string.match(version, '%d+')) <= tonumber(ARGV[2]) then break end
end
if #kept == 1 and not string.find(kept[1], ',', 1, true) then return redis.call('HDEL', KEYS[1], ARGV[1]) end
redis.call('HSET', KEYS[1], ARGV[1], table.concat(kept, '\\n'))
return 0
"""
PUSH = """
local function at(row, index)
    local value = row[index]
    if value == nil or value == cjson.null then return -math.huge end
    return value
end
local taken = 0
for index = 1, #ARGV, 2 do
    local old = redis.call('HGET', KEYS[1], ARGV[index])
    local row, is_older = cjson.decode(ARGV[index + 1]), false
    if old then
        local before = cjson.decode(old)
        is_older = row[1] < before[1] or (row[1] == before[1] and at(row, 2) < at(before, 2))
    end
    if not is_older then
        redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1])
        taken = taken + 1
    end
end
return taken
"""
DELETE_EQUAL = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
"""
SET_META = """
if redis.call('HGET', KEYS[1], 'pointer') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'meta', ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a store says of itself. `views` are described as `StoredView` takes it, with what is accepted of pushes."""

    build: str
    generation: int
    meta: dict[str, str]
    views: list[tuple[str, StoredView]]
    described: list[list[Any]]
    buckets: list[int]

    @property
    def pointer(self) -> str:
        """What names this state of the store."""
        return f"{self.build}:{self.generation}"


def prefix(name: StoreName) -> str:
    """What every key of a store begins with."""
    return f"fairlead:{name.workspace_id}:{name.region}:{name.service}@{name.slot}"


def index_key(workspace_id: str, region: str) -> str:
    """The key that lists a region's stores."""
    return f"fairlead:{workspace_id}:{region}"


def bucket_key(head: Head, name: StoreName, position: int, entity: str) -> str:
    """The key of the bucket that an entity of a view is in."""
    number = int.from_bytes(hashlib.md5(entity.encode(), usedforsecurity=False).digest()[8:], "little")
    return f"{prefix(name)}:{head.build}:{position}:{number % head.buckets[position]}"


def live_key(name: StoreName, alias: str) -> str:
    """The key of what was pushed for a view."""
    return f"{prefix(name)}:live:{alias}"


def read_head(pointer: str | None, text: str | None) -> Head | None:
    """The head of a store, of the two members that hold it."""
    if pointer is None or text is None:
        return None
    build, _, generation = pointer.partition(":")
    said: dict[str, Any] = json.loads(text)
    return Head(
        build=build,
        generation=int(generation),
        meta=said["meta"],
        views=[(each[0], StoredView(each[1:])) for each in said["views"]],
        described=said["views"],
        buckets=said["buckets"],
    )


def visible_version(versions: str | None, generation: int) -> list[Any] | None:
    """The version of an entity that counts for a generation; None: there is none, or it is gone."""
    for line in (versions or "").split("\n") if versions else ():
        found: list[Any] = json.loads(line)
        if found[0] <= generation:
            return found if len(found) > 1 else None
    return None


@contextmanager
def speaking() -> Generator[None]:
    """Say what goes wrong with Redis in the words of this package.

    Raises:
        StorageFull: if the server has no memory left.
        Unavailable: if it does not answer, or refuses.
    """
    from redis.exceptions import OutOfMemoryError, RedisError

    try:
        yield
    except OutOfMemoryError as error:
        raise _full() from error
    except RedisError as error:
        raise Unavailable(
            "The Redis server of the online stores does not answer as it should.",
            hint="See that it runs, and that its address and credentials are right; the work is tried again by itself.",
        ) from error


def connect(options: Mapping[str, Any]) -> Any:
    """A client of the server that an engine's options name.

    Raises:
        InvalidInput: if an option is missing or unknown.
    """
    import redis

    known = {"url", "url_file", "socket_timeout"}
    if unknown := sorted(set(options) - known):
        raise InvalidInput(f"The online engine `redis` has no option {unknown[0]!r}.", hint="Leave it out.")
    url = options.get("url")
    if url is None and "url_file" in options:
        with open(options["url_file"], encoding="utf-8") as file:  # noqa: PTH123  (as it was written)
            url = file.read().strip()
    if not isinstance(url, str) or not url.startswith(("redis://", "rediss://", "unix://")):
        raise InvalidInput(
            "The online engine `redis` has no address.",
            hint='Give it one: {"type": "redis", "url": "redis://HOST:6379/0"}',
        )
    timeout = float(options.get("socket_timeout", 10))
    return redis.Redis.from_url(
        url, decode_responses=True, socket_connect_timeout=2, socket_timeout=timeout, protocol=2
    )


def check_keeps_all(client: Any) -> None:
    """See that the server would rather refuse a write than drop what it has, which readers take for not there.

    Raises:
        InvalidInput: if it may drop keys that nobody let expire.
    """
    policy = str(client.info("memory").get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        raise InvalidInput(
            f"The Redis server of the online stores drops keys where memory is short (maxmemory-policy {policy}).",
            hint="Set its maxmemory-policy to noeviction.",
        )


def entity_sql(width: int) -> str:
    """SQL for the name of an entity, of the columns `k0 ...`."""
    texts = [f"CAST(k{index} AS VARCHAR)" for index in range(width)]
    if width == 1:
        return texts[0]
    return " || ".join(f"strlen({text}) || ':' || {text}" for text in texts)


def command_sql(words: Sequence[str]) -> str:
    """SQL for one whole command, of SQL for its words."""
    said = f"'*{len(words)}' || {_CRLF}"
    return said + "".join(f" || '$' || strlen({word}) || {_CRLF} || {word} || {_CRLF}" for word in words)


def send_all(client: Any, connection: DuckDBPyConnection, query: str, *, token_key: str, token: str) -> tuple[int, int]:
    """Send the commands of a query's one column; returns how many there were, and the sum of their answers.

    Raises:
        LeaseLost: if another writer took over (the hash `token_key` says another token).
        StorageFull, Unavailable: if the server refuses.
    """
    count, total = 0, 0
    pool = client.connection_pool
    with speaking():
        wire = pool.get_connection()
    try:
        for batch in fetch_batches(connection, query, _BATCH):
            with speaking():
                _check_token(client, token_key, token)
                total += _exchange(wire, batch.column(0))
            count += batch.num_rows
    except BaseException:
        # Answers may still be on their way.
        wire.disconnect()
        raise
    finally:
        pool.release(wire)
    return count, total


def taken_over() -> LeaseLost:
    """That another writer has begun after this one."""
    return LeaseLost("Another worker writes this online store.", hint="It goes on by itself.")


def _check_token(client: Any, key: str, token: str) -> None:
    if client.hget(key, "token") != token:
        raise taken_over()


def _exchange(wire: Any, commands: Any) -> int:
    from redis.exceptions import ConnectionError as NoConnection
    from redis.exceptions import ResponseError

    _, offsets, data = commands.buffers()
    first, last = (
        int.from_bytes(memoryview(offsets)[4 * at : 4 * at + 4], "little")
        for at in (commands.offset, commands.offset + len(commands))
    )
    # Parsed one by one, the answers would cost more than the commands.
    socket: Any = wire._get_socket()  # noqa: SLF001  (redis-py reads answers as objects only)
    try:
        socket.sendall(memoryview(data)[first:last])
        answers = bytearray()
        while answers.count(b"\r\n") < len(commands):
            received = socket.recv(2**18)
            if not received:
                raise NoConnection("the server closed the connection")
            answers += received
    except OSError as error:
        raise NoConnection(str(error)) from error
    if answers.startswith(b"-") or b"\r\n-" in answers:
        problem = next(line for line in bytes(answers).split(b"\r\n") if line.startswith(b"-")).decode(errors="replace")
        if problem.startswith("-OOM"):
            raise _full()
        raise ResponseError(problem[1:])
    lines = bytes(answers).split(b"\r\n")
    return lines.count(b":1") - lines.count(b":-1")


def new_token() -> str:
    """A name for one attempt at writing."""
    return secrets.token_hex(8)


def unlink_build(client: Any, name: StoreName, build: str, buckets: Sequence[int]) -> None:
    """Take a build's buckets away."""
    begins = f"{prefix(name)}:{build}"
    keys = (f"{begins}:{position}:{number}" for position, count in enumerate(buckets) for number in range(count))
    for some in in_parts(keys, _KEYS_AT_ONCE):
        client.unlink(*some)
    client.hdel(f"{prefix(name)}:builds", build)


def in_parts(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of up to `size` of the items, in their order."""
    part: list[Any] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _full() -> StorageFull:
    return StorageFull(
        "The Redis server has no memory left for an online store.",
        hint="Raise its maxmemory; until the switch, the old and the new snapshot are both there.",
    )

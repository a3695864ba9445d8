from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI, Response
from hypothesis import given
from hypothesis import strategies as st

import fairlead
from fairlead.app.edge_cache import EdgeCache, connect_as, parts_of
from fairlead.app.edge_http import create_edge_app, parse_range
from fairlead.app.http import create_app, listen
from fairlead.app.kept_answers import OFFLINE_SECONDS
from fairlead.app.service import Service
from fairlead.app.settings import ServerSettings
from fairlead.core.clock import SystemClock
from fairlead.core.errors import Conflict, LocationUnavailable, RangeNotSatisfiable, ServerUnavailable
from fairlead.core.ids import Digest, digest_hex
from fairlead.sdk.client import Fairlead
from fairlead.sdk.transport import Transport
from fairlead.sync.store.block_cache import BlockCache
from fairlead.sync.store.blocks import StoredBlock
from tests.acceptance.world import when

# Larger than a block, so that files have several.
LARGE = b"".join(hashlib.sha256(number.to_bytes(4)).digest() for number in range(9 * 2**20 // 32))
FILES = {"config.json": b'{"a": 1}', "weights/large.bin": LARGE, "empty": b""}


@dataclass(slots=True, kw_only=True)
class Edge:
    """A registry with two regions, one artifact that may be cached and one that may not, and caches before them."""

    client: Fairlead
    service: Service
    digest: str
    restricted: str
    token: str

    @contextmanager
    def cache(self, folder: Path, *, name: str = "edge", size_bytes: int = 10**9) -> Generator[Cache]:
        found = EdgeCache(
            self.client,
            location=name,
            blocks=BlockCache(folder, size_bytes=size_bytes),
            connect=connect_as(self.client.settings, self.client.url),
        )
        with _serving(create_edge_app(found)) as url, httpx2.Client(base_url=url, trust_env=False) as http:
            yield Cache(edge=found, http=http, folder=folder, path=f"/artifacts/{self.digest}/files")

    @contextmanager
    def placed(self, name: str, region: str, http: httpx2.Client, *, is_public: bool = True) -> Generator[None]:
        """A cache location at the address of a process."""
        settings = {"is_public": is_public}
        self.client.locations.add(name, region, str(http.base_url).rstrip("/"), kind="cache", settings=settings)
        try:
            yield
        finally:
            self.client.locations.retire(name)

    def reader(self, home: Path, *, region: str | None = None, edge_cache: str | None = None) -> Fairlead:
        """A client somewhere."""
        settings = replace(self.client.settings, home=home / "reader", region=region, edge_cache=edge_cache)
        return Fairlead(Transport(self.client.url, self.token, timeout_seconds=10), settings)


@dataclass(slots=True, kw_only=True)
class Cache:
    edge: EdgeCache
    http: httpx2.Client
    folder: Path
    path: str

    def get(self, name: str, **headers: str) -> httpx2.Response:
        return self.http.get(
            f"{self.path}/{name}", headers={key.replace("_", "-"): each for key, each in headers.items()}
        )


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Generator[Edge]:
    root = tmp_path_factory.mktemp("edge")
    source = root / "source"
    for name, data in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    service = Service.build(ServerSettings.read(home=root / "home"), SystemClock(), is_embedded=True)
    token = service.issue_owner_token()
    service.start()
    with _serving(create_app(service, instance="test")) as url, fairlead.connect(url, token=token) as client:
        for name, region in (("virginia", "aws:us-east-1"), ("amsterdam", "azure:westeurope")):
            client.locations.add(name, region, str(root / name))
        client.locations.add("edge", "aws:us-east-1", "https://edge.example.com", kind="cache")
        public = {"is_public": True}
        client.locations.add("open", "aws:us-east-1", "https://open.example.com", kind="cache", settings=public)
        digest = client.artifacts.upload(source, kind="model").digest
        (source / "config.json").write_bytes(b"{}")
        restricted = client.artifacts.upload(source, kind="model", residency="us").digest
        made = Edge(client=client, service=service, digest=digest, restricted=restricted, token=token)
        when(lambda: (_verified(client, digest) == 2 and _verified(client, restricted) == 1) or None, seconds=30)
        yield made
    service.close()


@pytest.fixture
def cache(edge: Edge, tmp_path: Path) -> Generator[Cache]:
    """A cache that serves whoever asks."""
    with edge.cache(tmp_path / "blocks", name="open") as cache:
        yield cache


def test_a_file_is_served_whole_with_its_digest_and_for_ever(cache: Cache) -> None:
    answer = cache.get("weights/large.bin")
    assert (answer.status_code, answer.content) == (200, LARGE)
    assert answer.headers["etag"] == f'"{hashlib.sha256(LARGE).hexdigest()}"'
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable, no-transform"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert cache.get("config.json").json() == {"a": 1}
    assert cache.get("empty").content == b""


def test_the_second_reader_is_served_from_the_disk(cache: Cache) -> None:
    cache.get("weights/large.bin")
    misses = cache.edge.blocks.misses
    assert cache.get("weights/large.bin").content == LARGE
    assert cache.edge.blocks.misses == misses
    assert cache.http.get("/healthz").json()["hits"] >= 2


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        (f"bytes={2**23 - 5}-{2**23 + 5}", 2**23 - 5, 2**23 + 6),
        (f"bytes={len(LARGE) - 3}-", len(LARGE) - 3, len(LARGE)),
        ("bytes=-7", len(LARGE) - 7, len(LARGE)),
        (f"bytes=5-{10**12}", 5, len(LARGE)),
        (f"bytes=-{10**12}", 0, len(LARGE)),
    ],
)
def test_a_range_is_served_as_206(cache: Cache, wanted: str, start: int, end: int) -> None:
    answer = cache.get("weights/large.bin", range=wanted)
    assert (answer.status_code, answer.content) == (206, LARGE[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(LARGE)}"


def test_the_first_range_of_a_file_reads_the_blocks_that_it_touches_and_no_others(cache: Cache) -> None:
    assert cache.get("weights/large.bin", range=f"bytes={len(LARGE) - 3}-").content == LARGE[-3:]
    assert cache.edge.blocks.misses == 1
    assert sum(path.stat().st_size for path in cache.folder.rglob("*") if path.is_file()) < len(LARGE)


def test_a_range_beyond_the_end_and_several_at_once_are_refused(cache: Cache) -> None:
    for wanted in (f"bytes={len(LARGE)}-", "bytes=-0", "bytes=0-1,4-5"):
        answer = cache.get("weights/large.bin", range=wanted)
        assert answer.status_code == 416
        assert answer.json()["type"] == "urn:fairlead:error:range-not-satisfiable"
        assert "," in wanted or answer.headers["content-range"] == f"bytes */{len(LARGE)}"


@pytest.mark.parametrize(
    "wanted", ["items=0-5", "bytes=", "bytes=-", "bytes=x-y", "bytes=9-3", "0-5", f"bytes={'9' * 5000}-"]
)
def test_a_range_that_means_nothing_is_left_out_of_account(cache: Cache, wanted: str) -> None:
    answer = cache.get("config.json", range=wanted)
    assert (answer.status_code, answer.content) == (200, FILES["config.json"])


def test_conditions_are_kept_to(cache: Cache) -> None:
    etag = cache.get("config.json").headers["etag"]
    assert cache.get("config.json", if_none_match=etag).status_code == 304
    assert cache.get("config.json", if_none_match=f'"x", W/{etag}').status_code == 304
    assert cache.get("config.json", if_none_match='"x"').status_code == 200
    assert cache.get("config.json", range="bytes=0-1", if_range=etag).status_code == 206
    assert cache.get("config.json", range="bytes=0-1", if_range='"x"').status_code == 200


def test_head_says_what_get_would_and_reads_nothing(cache: Cache) -> None:
    answer = cache.http.head(f"{cache.path}/weights/large.bin")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, str(len(LARGE)), b"")
    part = cache.http.head(f"{cache.path}/weights/large.bin", headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.headers["content-length"]) == (200, str(len(LARGE))), "only GET has ranges"
    assert cache.edge.blocks.misses == 0


def test_manifest_and_blocks_are_served_by_digest(edge: Edge, cache: Cache) -> None:
    manifest = cache.http.get(f"/artifacts/{edge.digest}/manifest")
    assert f"sha256:{hashlib.sha256(manifest.content).hexdigest()}" == edge.digest
    block = next(iter(edge.client.artifacts.open(edge.digest).layout.blocks))
    found = cache.http.get(f"/artifacts/{edge.digest}/blocks/{block}")
    assert f"sha256:{hashlib.sha256(found.content).hexdigest()}" == block
    unknown = f"sha256:{'0' * 64}"
    assert cache.http.get(f"/artifacts/{edge.digest}/blocks/{unknown}").status_code == 404


def test_restricted_data_is_barred_with_a_stable_code(edge: Edge, cache: Cache) -> None:
    for path in ("files/config.json", "manifest"):
        answer = cache.http.get(f"/artifacts/{edge.restricted}/{path}")
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:fairlead:error:not-cacheable"
    assert list(cache.folder.rglob("*")) == []


def test_what_is_not_there_is_not_found(edge: Edge, cache: Cache) -> None:
    assert cache.get("no/such/file").json()["type"] == "urn:fairlead:error:not-found"
    unknown = cache.http.get(f"/artifacts/sha256:{'0' * 64}/files/config.json")
    assert unknown.json()["type"] == "urn:fairlead:error:artifact-not-found"
    assert cache.http.get("/artifacts/x/files/config.json").status_code == 400
    assert cache.http.get(f"/artifacts/{edge.digest}/files/..%2f..%2fetc/passwd").status_code == 404
    for answer in (cache.http.post(f"{cache.path}/config.json"), cache.http.get("/nowhere")):
        assert answer.status_code in {404, 405}
        assert "/artifacts/DIGEST/files/PATH" in answer.json()["hint"]
    for path in ("files/no/such/file", f"blocks/sha256:{'0' * 64}"):
        assert f"/artifacts/{edge.digest}/manifest" in cache.http.get(f"/artifacts/{edge.digest}/{path}").json()["hint"]


def test_a_cache_that_is_not_public_serves_those_whom_the_registry_lets_read(edge: Edge, tmp_path: Path) -> None:
    with edge.cache(tmp_path / "blocks") as cache:
        assert cache.get("config.json").status_code == 401
        assert cache.get("config.json").headers["www-authenticate"] == "Bearer"
        assert cache.get("config.json", authorization="Bearer wrong").status_code == 401
        answer = cache.get("config.json", authorization=f"Bearer {edge.token}")
        assert (answer.status_code, answer.content) == (200, FILES["config.json"])
        assert answer.headers["cache-control"].startswith("private, ")


def test_what_the_registry_last_said_of_a_token_stands_for_a_while_only(edge: Edge, tmp_path: Path) -> None:
    now, is_away = [0.0], [False]

    def connect(token: str) -> Fairlead:
        if is_away[0]:
            raise ServerUnavailable("It is away.")
        return connect_as(edge.client.settings, edge.client.url)(token)

    cache = EdgeCache(
        edge.client,
        location="edge",
        blocks=BlockCache(tmp_path, size_bytes=10**9),
        connect=connect,
        monotonic=lambda: now[0],
    )
    cache.admit(edge.digest, edge.token)
    is_away[0] = True
    now[0] += OFFLINE_SECONDS - 1
    cache.admit(edge.digest, edge.token)
    now[0] += 2
    with pytest.raises(ServerUnavailable):
        cache.admit(edge.digest, edge.token)
    edge.client.locations.set("edge", {"offline_seconds": 2 * OFFLINE_SECONDS})
    is_away[0] = False
    now[0] += 10 * OFFLINE_SECONDS
    cache.admit(edge.digest, edge.token)
    is_away[0] = True
    now[0] += OFFLINE_SECONDS + 60
    cache.admit(edge.digest, edge.token)


def test_a_flipped_bit_on_the_cache_s_disk_is_never_served(cache: Cache) -> None:
    cache.get("weights/large.bin")
    for path in cache.folder.rglob("*"):
        if path.is_file():
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    assert cache.get("weights/large.bin").content == LARGE
    assert cache.edge.blocks.damaged >= 2
    assert cache.get("weights/large.bin", range="bytes=10-20").content == LARGE[10:21]


def test_a_damaged_replica_is_passed_over_and_reported(edge: Edge, cache: Cache) -> None:
    # Opened before the damage, so that it is met by a read of a block.
    assert cache.http.get(f"/artifacts/{edge.digest}/manifest").status_code == 200
    nearest = Path(edge.client.locations.get("amsterdam").url.removeprefix("file://"))
    for path in nearest.rglob("*.pack"):
        whole = path.read_bytes()
        path.write_bytes(whole[:20] + bytes(len(whole) - 40) + whole[-20:])
    assert cache.get("weights/large.bin").content == LARGE
    when(lambda: _verified(edge.client, edge.digest) == 2 or None, seconds=30)


def test_a_full_cache_lets_go_of_what_was_used_longest_ago(edge: Edge, tmp_path: Path) -> None:
    with edge.cache(tmp_path / "blocks", name="open", size_bytes=2**23 + 100) as cache:
        assert cache.get("weights/large.bin").content == LARGE
        assert cache.edge.blocks.used_bytes <= 2**23 + 100
        stored = sum(path.stat().st_size for path in cache.folder.rglob("*") if path.is_file())
        assert stored == cache.edge.blocks.used_bytes


def test_readers_at_the_same_time_fetch_each_block_once(cache: Cache) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(cache.get, "weights/large.bin") for _ in range(8)]
        assert all(answer.result().content == LARGE for answer in answers)
    assert cache.edge.blocks.misses == len({path for path in cache.folder.rglob("*") if path.is_file()})


def test_only_a_cache_location_in_service_serves(edge: Edge, tmp_path: Path) -> None:
    with edge.cache(tmp_path / "blocks", name="virginia") as cache, pytest.raises(Conflict, match="no cache"):
        cache.edge.location()
    edge.client.locations.add("gone", "aws:us-east-1", "https://gone.example.com", kind="cache")
    edge.client.locations.retire("gone")
    with edge.cache(tmp_path / "blocks", name="gone") as cache:
        assert cache.get("config.json").json()["type"] == f"urn:fairlead:error:{LocationUnavailable.code}"


def test_a_client_reads_through_a_public_cache_of_its_region_where_no_replica_is(edge: Edge, tmp_path: Path) -> None:
    with edge.cache(tmp_path / "blocks", name="open") as cache, edge.placed("near", "gcp:us-east1", cache.http):
        with edge.reader(tmp_path, region="gcp:us-east1") as client:
            client.artifacts.download(edge.digest, tmp_path / "files")
            assert {name: (tmp_path / "files" / name).read_bytes() for name in FILES} == FILES
            served = cache.edge.blocks.hits + cache.edge.blocks.misses
            assert served == len(client.artifacts.open(edge.digest).layout.blocks)
            assert client.artifacts.open(edge.digest).open_file("weights/large.bin").read(5) == LARGE[:5]
            assert cache.edge.blocks.hits + cache.edge.blocks.misses == served + 1
            served += 1
            # A replica of the region is nearer, and data under a residency rule is in no cache.
            client.artifacts.download(edge.restricted, tmp_path / "restricted")
        with edge.reader(tmp_path, region="azure:westeurope") as client:
            assert client.artifacts.read(edge.digest, lambda reader: reader.read_file("weights/large.bin")) == LARGE
        with edge.reader(tmp_path, region="gcp:us-east1", edge_cache="none") as client:
            assert client.artifacts.read(edge.digest, lambda reader: reader.read_file("weights/large.bin")) == LARGE
        assert cache.edge.blocks.hits + cache.edge.blocks.misses == served


def test_a_client_gives_its_token_to_the_cache_that_it_was_told_to_use_and_to_no_other(
    edge: Edge, tmp_path: Path
) -> None:
    with edge.cache(tmp_path / "blocks") as cache, edge.placed("site", "gcp:us-east1", cache.http, is_public=False):
        with edge.reader(tmp_path, region="gcp:us-east1") as client:
            assert client.artifacts.read(edge.digest, lambda reader: reader.read_file("weights/large.bin")) == LARGE
        assert cache.edge.blocks.misses == 0
        with edge.reader(tmp_path, edge_cache="site") as client:
            assert client.artifacts.read(edge.digest, lambda reader: reader.read_file("weights/large.bin")) == LARGE
        assert cache.edge.blocks.misses > 0


def test_a_cache_that_lies_or_is_away_costs_one_question(edge: Edge, tmp_path: Path) -> None:
    asked: list[str] = []
    liar = FastAPI()

    @liar.get("/{path:path}")
    def lie(path: str) -> Response:
        asked.append(path)
        return Response(b"other bytes")

    with (
        _serving(liar) as url,
        httpx2.Client(base_url=url, trust_env=False) as http,
        edge.placed("liar", "gcp:us-west1", http),
        edge.reader(tmp_path, region="gcp:us-west1") as client,
    ):
        for _ in range(2):
            assert client.artifacts.read(edge.digest, lambda reader: reader.read_file("weights/large.bin")) == LARGE
        assert 0 < len(asked) <= 8
    with edge.placed("gone-away", "gcp:us-west1", http), edge.reader(tmp_path, region="gcp:us-west1") as client:
        assert client.artifacts.read(edge.digest, lambda reader: reader.read_file("weights/large.bin")) == LARGE


def test_a_block_cache_takes_over_what_it_left_and_forgets_half_written_files(tmp_path: Path) -> None:
    data = {_digest(text): text for text in (b"one", b"two", b"three")}
    cache = BlockCache(tmp_path, size_bytes=100)
    for digest, text in data.items():
        cache.get(digest, lambda text=text: text)
    for age, digest in enumerate(data):
        os.utime(tmp_path / digest_hex(digest)[:2] / digest_hex(digest), (age + 1, age + 1))
    (tmp_path / "ab").mkdir(exist_ok=True)
    (tmp_path / "ab" / ".partial-x").write_bytes(b"half")
    again = BlockCache(tmp_path, size_bytes=9)
    assert again.used_bytes == len(b"twothree")
    assert not (tmp_path / "ab" / ".partial-x").exists()
    assert again.get(_digest(b"two"), _never) == b"two"


def test_what_was_fetched_is_compared_with_its_name_and_errors_reach_everybody(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, size_bytes=100)
    with pytest.raises(fairlead.FairleadError, match="not the block"):
        cache.get(_digest(b"one"), lambda: b"other")
    is_asked, may_fail = threading.Event(), threading.Event()

    def fail() -> bytes:
        is_asked.set()
        may_fail.wait(5)
        raise LocationUnavailable("It is away.")

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(cache.get, _digest(b"two"), fail)]
        assert is_asked.wait(5)
        asking.append(pool.submit(cache.get, _digest(b"two"), fail))
        may_fail.set()
        for each in asking:
            with pytest.raises(LocationUnavailable):
                each.result(5)
    assert cache.get(_digest(b"two"), lambda: b"two") == b"two"


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.data())
def test_the_parts_of_a_range_are_exactly_its_bytes(lengths: list[int], data: st.DataObject) -> None:
    content = bytes(range(256))[: sum(lengths)]
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, len(content)))
    blocks, begins, position = list[StoredBlock](), dict[Digest, int](), 0
    for length in lengths:
        block = _block(position, length)
        blocks.append(block)
        begins[block.digest] = position
        position += length
    found = b"".join(
        content[begins[part.block.digest] :][part.start : part.end] for part in parts_of(blocks, start, end)
    )
    assert found == content[start:end]


@given(st.text(max_size=30), st.integers(0, 100))
def test_any_range_header_is_answered(text: str, size: int) -> None:
    try:
        found = parse_range(text, size)
    except RangeNotSatisfiable:
        return
    assert found is None or 0 <= found[0] < found[1] <= size


def _block(position: int, length: int) -> StoredBlock:
    digest = _digest(position.to_bytes(4))
    return StoredBlock(
        digest=digest,
        pack=digest,
        offset=0,
        stored_length=length,
        stored_digest=digest,
        plain_length=length,
        codec=0,
        base=None,
    )


def _digest(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def _never() -> bytes:
    raise AssertionError


def _verified(client: Fairlead, digest: str) -> int:
    try:
        return [replica.state for replica in client.artifacts.get(digest).replicas].count("VERIFIED")
    except fairlead.FairleadError:
        return 0


@contextmanager
def _serving(app: FastAPI) -> Generator[str]:
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()

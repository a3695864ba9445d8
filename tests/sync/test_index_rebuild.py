"""The block index of a location is made again from its packs alone, and only from sound ones."""

from __future__ import annotations

import random
from collections.abc import Generator
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, update

from fairlead.core.ids import digest_hex, sha256_digest
from fairlead.registry.tables_bytes import BlockRow
from fairlead.sync.store.delta import DELTA_CODEC, encode_delta
from fairlead.sync.store.dtype import Dtype
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.pack import PackBuilder
from tests.fleet import Fleet, domain_of_upload, flip_a_byte, open_fleet
from tests.sync.test_collection import GRACE, abandon, run_task

FILES = {"weights.bin": random.Random(7).randbytes(150_000), "config.json": b"{}"}
ONE = ["aws:us-east-1"]

Index = dict[str, tuple[str, int, str | None]]


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url, names=("virginia",)) as fleet:
        fleet.register(FILES, regions=ONE)
        fleet.run()
        yield fleet


def index_of(fleet: Fleet) -> Index:
    with fleet.database.read() as session:
        return {
            row.block_digest: (row.pack, row.pack_offset, row.base_digest) for row in session.scalars(select(BlockRow))
        }


def forget_index(fleet: Fleet) -> None:
    with fleet.database.write() as session:
        session.execute(delete(BlockRow))


def test_an_index_that_was_lost_is_the_same_again(fleet: Fleet) -> None:
    before = index_of(fleet)
    assert len(before) == 2
    forget_index(fleet)
    looked = run_task(fleet, "rebuild-index", is_dry_run=True)
    assert (looked.outcome["missing"], looked.findings[0]["code"]) == (2, "not-in-index")
    assert index_of(fleet) == {}
    run_task(fleet, "rebuild-index")
    assert index_of(fleet) == before
    assert run_task(fleet, "rebuild-index", is_quick=True).outcome["missing"] == 0


def test_differences_come_back_with_their_bases_and_only_if_they_come_out_right(fleet: Fleet) -> None:
    draw = random.Random(3)
    base = draw.randbytes(4_000)
    right, wrong = (base[:number] + draw.randbytes(20) + base[number + 20 :] for number in (100, 900))
    upload = fleet.begin(near="virginia", regions=ONE)
    fleet.write(upload, {"base": base})
    builder = PackBuilder()
    for plain, called in ((right, right), (wrong, b"another thing")):
        builder.add(
            encode_delta(plain, base, Dtype.BYTES),
            digest=sha256_digest(called),
            plain_length=len(plain),
            codec=DELTA_CODEC,
            base=sha256_digest(base),
        )
    pack, data, _ = builder.finish()
    open_store(upload.location.url).write(domain_of_upload(upload).pack_key(pack), data)
    run_task(fleet, "rebuild-index")
    after = index_of(fleet)
    assert after[sha256_digest(right)][::2] == (digest_hex(pack), sha256_digest(base))
    assert sha256_digest(base) in after
    assert sha256_digest(b"another thing") not in after


def test_damaged_and_missing_packs_leave_the_index_and_the_rest_stays(fleet: Fleet) -> None:
    before = index_of(fleet)
    fleet.register({"other.bin": b"o" * 5_000}, regions=ONE)
    fleet.register({"third.bin": b"t" * 5_000}, regions=ONE)
    fleet.run()
    packs = {path.stem: path for path in fleet.packs("virginia")}
    fresh = [path for pack, path in packs.items() if pack not in {pack for pack, _, _ in before.values()}]
    flip_a_byte(fresh[0])
    fresh[1].unlink()
    done = run_task(fleet, "rebuild-index")
    assert {str(finding["code"]) for finding in done.findings} == {"corrupt-pack", "pack-not-there"}
    assert index_of(fleet) == before


def test_a_pack_whose_index_lies_about_a_block_is_not_believed(fleet: Fleet) -> None:
    upload = fleet.begin(near="virginia", regions=ONE)
    domain = domain_of_upload(upload)
    builder = PackBuilder()
    claimed = next(iter(index_of(fleet)))
    builder.add(b"\x00\x01nonsense", digest=claimed, plain_length=9)  # pyright: ignore[reportArgumentType]  (a digest)
    pack, data, _ = builder.finish()
    open_store(upload.location.url).write(domain.pack_key(pack), data)
    before = index_of(fleet)
    forget_index(fleet)
    run_task(fleet, "rebuild-index")
    assert index_of(fleet) == before
    assert digest_hex(pack) not in {place[0] for place in before.values()}


def test_rows_that_point_at_the_wrong_place_are_set_right(fleet: Fleet) -> None:
    before = index_of(fleet)
    with fleet.database.write() as session:
        session.execute(update(BlockRow).values(pack_offset=BlockRow.pack_offset + 1))
    done = run_task(fleet, "rebuild-index")
    assert done.outcome["moved"] == 2
    assert index_of(fleet) == before


def test_what_is_on_its_way_out_does_not_come_back_into_the_index(fleet: Fleet) -> None:
    abandon(fleet, {"left.bin": b"l" * 4_000})
    run_task(fleet, "collect")
    fleet.clock.advance(GRACE * 1.1)
    run_task(fleet, "collect")
    before = index_of(fleet)
    run_task(fleet, "rebuild-index")
    assert index_of(fleet) == before
    with fleet.database.read() as session:
        assert session.scalar(select(func.count()).select_from(BlockRow)) == 2

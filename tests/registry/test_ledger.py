from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from fairlead.catalog import load_catalog
from fairlead.registry import ledger
from fairlead.registry.ledger import Cost, Ledger, LedgerKind, decimal_text, transfer_cost
from fairlead.registry.paging import PageRequest
from tests.record_world import World

US, EU = "aws:us-east-1", "gcp:europe-west4"


def pay(
    world: World,
    cause: str,
    *,
    usd: str = "0.1",
    region: str = EU,
    kind: LedgerKind = "replicate",
    team: str = "churn",
) -> bool:
    cost = Cost(usd=Decimal(usd), gco2=Decimal("0.2"), price_source="a price list", gco2_method="a method")
    with world.database.write() as session:
        return ledger.record(
            session,
            workspace_id=world.owner.workspace_id,
            residency="unrestricted",
            cause=cause,
            kind=kind,
            subject="churn/1",
            source_region=US,
            region=region,
            planned_bytes=100,
            moved_bytes=70,
            planned=cost,
            actual=cost,
            labels={"team": team},
            now=world.clock.now(),
        )


def test_work_that_is_done_twice_is_paid_for_once(world: World) -> None:
    assert pay(world, "replicate x to y") is True
    assert pay(world, "replicate x to y", usd="99") is False
    (entry,) = Ledger(world.database).list(world.owner, PageRequest()).items
    assert entry.actual_usd == Decimal("0.1")
    assert (entry.price_source, entry.gco2_method) == ("a price list", "a method")


def test_sums_are_exact_by_region_kind_and_any_label(world: World) -> None:
    for number in range(10):
        pay(world, f"{number}", region=US if number % 2 else EU, team="churn" if number < 9 else "fraud")
    pay(world, "deployed", kind="deploy", usd="0.000000000001")
    book = Ledger(world.database)
    assert {each.key: each.actual_usd for each in book.summarize(world.owner, by="kind")} == {
        "deploy": Decimal("0.000000000001"),
        "replicate": Decimal("1.0"),
    }
    by_region = book.summarize(world.owner, by="region")
    assert [(each.key, each.entries, each.moved_bytes, each.planned_bytes) for each in by_region] == [
        (US, 5, 350, 500),
        (EU, 6, 420, 600),
    ]
    by_team = {each.key: (each.entries, each.gco2) for each in book.summarize(world.owner, by="team")}
    assert by_team == {"churn": (10, Decimal("2.0")), "fraud": (1, Decimal("0.2"))}
    assert [each.key for each in book.summarize(world.owner, by="no such label")] == [""]


def test_the_ledger_is_filtered_and_read_in_either_order(world: World) -> None:
    for cause in ("first", "second"):
        pay(world, cause)
    pay(world, "third", kind="deploy")
    book = Ledger(world.database)
    assert [each.cause for each in book.list(world.owner, PageRequest(), kind="replicate").items] == ["first", "second"]
    newest = book.list(world.owner, PageRequest(size=1), newest_first=True, subject="churn/1")
    assert [each.cause for each in newest.items] == ["third"]
    assert newest.next_page_token is not None


def test_a_transfer_is_priced_from_the_catalog_with_source_and_method() -> None:
    catalog = load_catalog()
    cost = transfer_cost(catalog, source_region=US, region=EU, size_bytes=3 * 10**9)
    assert cost.usd == 3 * Decimal(str(catalog.egress(US, EU).value))
    assert cost.gco2 > 0
    assert cost.price_source
    assert cost.gco2_method


def test_bytes_that_come_from_outside_cost_nothing_and_say_why() -> None:
    cost = transfer_cost(load_catalog(), source_region=None, region=EU, size_bytes=10**12)
    assert (cost.usd, cost.gco2) == (0, 0)
    assert "come in" in cost.price_source


@given(st.decimals(min_value=0, max_value=10**12, places=12))
def test_an_amount_survives_being_written_as_text(amount: Decimal) -> None:
    text = decimal_text(amount)
    assert Decimal(text) == amount
    assert "e" not in text.lower()
    assert len(text) <= 32

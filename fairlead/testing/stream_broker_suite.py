# ruff: noqa: S101  (tests assert)
"""What every broker of streams promises, as one class of tests.

To check a broker, subclass and give it the fixtures `connect`, which makes one more consumer of one group of an empty
stream, and `produce`, which puts a message at its end:

    class TestMyBroker(StreamBrokerSuite):
        @pytest.fixture
        def connect(self) -> Callable[[], StreamBroker]: ...

        @pytest.fixture
        def produce(self) -> Callable[..., str]: ...
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fairlead.core.ports import StreamBroker

Connect = Callable[[], StreamBroker]
Produce = Callable[..., str]


class StreamBrokerSuite:
    """The conformance tests of `StreamBroker`."""

    @pytest.fixture
    def connect(self) -> Connect:
        """Makes a consumer; subclasses override it."""
        raise NotImplementedError

    @pytest.fixture
    def produce(self) -> Produce:
        """Puts a message (and its `event_id`) into the stream, and answers its position; subclasses override it."""
        raise NotImplementedError

    def test_messages_come_in_order_with_position_and_event(self, connect: Connect, produce: Produce) -> None:
        """Also those that were there before the group."""
        positions = [produce(b"one"), produce(bytes(range(256)), event_id="größe")]
        broker = connect()
        found = broker.read(10, wait_seconds=0.01)
        assert [each.position for each in found] == positions
        assert [each.payload for each in found] == [b"one", bytes(range(256))]
        assert [each.event_id for each in found] == [None, "größe"]
        assert [each.deliveries for each in found] == [1, 1]

    def test_no_more_is_given_than_was_asked_for(self, connect: Connect, produce: Produce) -> None:
        """That is what bounds a consumer's memory."""
        for number in range(5):
            produce(str(number).encode())
        broker = connect()
        assert [each.payload for each in broker.read(2, wait_seconds=0.01)] == [b"0", b"1"]
        assert broker.lag().pending == 2
        assert broker.lag().waiting in {3, None}

    def test_an_empty_stream_gives_nothing_after_the_wait(self, connect: Connect) -> None:
        """Nor does one that does not exist yet."""
        broker = connect()
        assert list(broker.read(1, wait_seconds=0.01)) == []
        assert list(broker.claim(1, idle_seconds=0)) == []
        assert (broker.lag().pending, broker.buried()) == (0, 0)

    def test_a_group_shares_the_messages(self, connect: Connect, produce: Produce) -> None:
        """Each goes to one consumer."""
        one, other = connect(), connect()
        for number in range(4):
            produce(str(number).encode())
        found = [*one.read(2, wait_seconds=0.01), *other.read(4, wait_seconds=0.01)]
        assert [each.payload for each in found] == [b"0", b"1", b"2", b"3"]

    def test_what_a_dead_consumer_held_is_claimed_by_another(self, connect: Connect, produce: Produce) -> None:
        """And is known to come again."""
        produce(b"one")
        produce(b"two")
        dead = connect()
        dead.acknowledge([dead.read(2, wait_seconds=0.01)[0].position])
        other = connect()
        assert list(other.claim(10, idle_seconds=60)) == []
        (claimed,) = other.claim(10, idle_seconds=0)
        assert (claimed.payload, claimed.deliveries) == (b"two", 2)

    def test_what_is_acknowledged_does_not_come_again(self, connect: Connect, produce: Produce) -> None:
        """Acknowledging twice changes nothing."""
        position = produce(b"one")
        broker = connect()
        broker.read(1, wait_seconds=0.01)
        broker.acknowledge([position])
        broker.acknowledge([position])
        broker.acknowledge([])
        assert broker.lag().pending == 0
        assert list(connect().claim(1, idle_seconds=0)) == []

    def test_what_is_buried_is_acknowledged_and_counted(self, connect: Connect, produce: Produce) -> None:
        """Nobody is given it again."""
        produce(b"poison", event_id="a")
        broker = connect()
        (message,) = broker.read(1, wait_seconds=0.01)
        broker.bury(message, "It is no JSON.")
        assert (broker.buried(), broker.lag().pending) == (1, 0)

    def test_closing_keeps_what_is_pending(self, connect: Connect, produce: Produce) -> None:
        """For the next consumer."""
        produce(b"one")
        broker = connect()
        broker.read(1, wait_seconds=0.01)
        broker.close()
        assert [each.payload for each in connect().claim(1, idle_seconds=0)] == [b"one"]

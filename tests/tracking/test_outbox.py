import pytest

from medseg.tracking.outbox import Outbox, Record


class Server:
    """A server that can be away, and a clock that can be turned."""

    def __init__(self):
        self.away = False
        self.now = 0.0
        self.cost = 0.0
        self.got, self.refused, self.told = [], [], []
        self.outbox = Outbox(
            is_refusal=lambda error: isinstance(error, ValueError),
            on_refused=lambda record, error: self.refused.append(record.what),
            on_outage=lambda error: self.told.append("away"),
            on_return=lambda waiting: self.told.append("back"),
            clock=lambda: self.now,
        )

    def put(self, what, error=None):
        def send():
            self.now += self.cost
            if self.away:
                raise ConnectionError("nobody answers")
            if error is not None:
                raise error
            self.got.append(what)

        self.outbox.put(Record(what, send))


@pytest.fixture
def server():
    return Server()


def test_records_arrive_in_order_and_once_after_an_outage(server):
    server.away = True
    for i in range(5):
        server.put(i)
        server.outbox.flush(10)
    server.away = False
    server.now = 1000
    server.outbox.flush(10)

    assert server.got == [0, 1, 2, 3, 4]
    assert server.told == ["away", "back"]


def test_while_resting_nothing_is_tried_unless_insisted(server):
    server.away = True
    server.put("a")
    server.outbox.flush(10)
    server.away = False
    server.outbox.flush(10)
    assert server.got == []

    server.outbox.flush(10, insist=True)
    assert server.got == ["a"]


def test_a_server_that_swallows_requests_costs_at_most_a_sixth_of_the_time(server):
    server.away, server.cost = True, 20.0
    lost = 0.0
    for _ in range(1000):
        before = server.now
        server.put("metrics")
        server.outbox.flush(10)
        lost += server.now - before
        server.now += 10  # training

    assert lost <= server.now / 6


def test_a_refused_record_does_not_hold_up_the_next(server):
    server.put("bad", ValueError("no"))
    server.put("good")
    server.outbox.flush(10)

    assert server.refused == ["bad"]
    assert server.got == ["good"]


def test_a_slow_server_holds_a_call_up_for_its_time_limit_only(server):
    server.cost = 3.0
    for i in range(100):
        server.put(i)
    server.outbox.flush(10)

    assert server.now <= 10 + 3
    assert len(server.outbox) == 100 - len(server.got) > 0

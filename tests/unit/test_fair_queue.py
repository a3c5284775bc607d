"""Requests that wait are taken in turn from all keys, by their tokens."""

from serve.generation.fair_queue import FairQueue
from serve.openai.quotas import TokenQuotas


def drain(queue):
    items = []
    while (item := queue.pop()) is not None:
        items.append(item)
    return items


def test_a_key_with_many_requests_does_not_keep_others_waiting():
    queue = FairQueue(quantum=100)
    for number in range(50):
        queue.push("many", f"many{number}", 100)
    queue.push("one", "one", 100)
    assert drain(queue).index("one") <= 2 and len(queue) == 0


def test_tokens_are_shared_and_not_requests():
    queue = FairQueue(quantum=100)
    for number in range(10):
        queue.push("long", f"long{number}", 1000)
        queue.push("short", f"short{number}", 100)
    order = drain(queue)
    assert order.index("long1") > order.index("short9")
    assert len(order) == 20


def test_what_a_request_did_not_use_is_given_back():
    queue = FairQueue(quantum=100)
    for number in range(4):
        queue.push("a", f"a{number}", 300)
        queue.push("b", f"b{number}", 300)
    assert queue.pop() == "a0"
    queue.settle("a", 300)  # it used nothing
    assert drain(queue)[:2] == ["a1", "b0"]


def test_items_are_removed_and_put_back():
    queue = FairQueue()
    items = [["x"], ["y"]]
    for item in items:
        queue.push("a", item, 10)
    assert queue.remove(items[0]) and not queue.remove(items[0]) and len(queue) == 1
    assert queue.pop() is items[1] and queue.pop() is None
    queue.push("a", items[1], 10)
    first = queue.pop()
    queue.push("a", items[0], 10)
    queue.push_back("a", first, 10)
    assert drain(queue) == [items[1], items[0]]


def test_a_quota_is_refilled_with_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("serve.openai.quotas.time.monotonic", lambda: now[0])
    quotas = TokenQuotas([{"name": "a", "tokens_per_minute": 600}, {"name": "b"}], replicas=2)
    quotas.check("a")
    quotas.charge("a", 310)
    quotas.charge("b", 10**9)
    quotas.check("b")
    try:
        quotas.check("a")
        raise AssertionError("the quota is used up")
    except Exception as error:
        assert error.code == "quota_exceeded" and error.retry_after_s == 2
    now[0] = 2.1
    quotas.check("a")

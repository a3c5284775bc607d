"""The streams of one request in the event loop: slow readers, deadlines, several answers."""

import asyncio

import pytest

from serve.generation.streams import AnswerReader, AnswerStream, Deadlines, LateToken, hand_over
from trainer.generation.engine import GenerationEvent, GenerationRequest, SamplingParams


def run(first_s, between_s, n_streams, scenario):
    async def start():
        reader = AnswerReader(asyncio.get_running_loop(), Deadlines(first_s, between_s))
        requests = [GenerationRequest(str(number), [1], SamplingParams()) for number in range(n_streams)]
        streams = [AnswerStream(request, "", hand_over, reader) for request in requests]
        return await scenario(reader, streams)

    return asyncio.run(start())


def test_what_a_slow_reader_has_not_read_is_joined():
    async def scenario(reader, streams):
        for number in range(1000):
            hand_over([(streams[0], GenerationEvent("0", [number], "x"))])
        hand_over([(streams[0], GenerationEvent("0", [1000], "y", finish_reason="stop"))])
        (delta,) = await reader.read()
        return delta, await reader.read()

    delta, rest = run(10, 10, 1, scenario)
    assert delta.text == "x" * 1000 + "y" and len(delta.token_ids) == 1001 and delta.finish_reason == "stop"
    assert rest == []


def test_each_answer_has_its_own_deadline():
    async def scenario(reader, streams):
        hand_over([(streams[0], GenerationEvent("0", [1], "a"))])
        assert [delta.index for delta in await reader.read()] == [0]
        with pytest.raises(LateToken) as caught:
            await reader.read()
        return caught.value, reader.close()

    late, unfinished = run(0.05, 10, 2, scenario)
    assert late.is_first and late.within_s == 0.05 and len(unfinished) == 2


def test_an_error_ends_reading_and_later_events_are_thrown_away():
    async def scenario(reader, streams):
        waiting = asyncio.ensure_future(reader.read())
        await asyncio.sleep(0)
        reader.fail(ValueError("gone"))
        hand_over([(streams[0], GenerationEvent("0", [1], "a"))])
        with pytest.raises(ValueError, match="gone"):
            await waiting

    run(10, 10, 1, scenario)

"""The OpenAI API with OpenAI's own client, over an engine that answers a given text."""

import asyncio
import json
import time

import httpx
import openai
import pytest

from support.counting_engine import CountingEngine
from support.generation_app import GenerationApp, TinyPrompts
from support.timing import wait_until
from support.tiny_causal import write_tiny_tokenizer

MESSAGES = [{"role": "user", "content": "How do I reset my password?"}]
TEXT = "Open the settings, choose security, and press reset. \u00e4\u20ac\U0001f600"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CALLS = 'I look. <tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder)
    return TinyPrompts(folder)


@pytest.fixture
def make(prompts):
    """Return a function that makes an application and a client for it; engines are closed at the end."""
    apps = []

    def build(text=TEXT, **settings):
        engine_settings = {name: settings.pop(name) for name in ("step_s", "max_length") if name in settings}
        app = GenerationApp(CountingEngine(prompts.tokenizer, text, **engine_settings), prompts, **settings)
        apps.append(app)
        return app

    yield build
    for app in apps:
        app.host.engine.failing = False
        app.host.close()


def client_of(app, key="unused"):
    transport = httpx.ASGITransport(app.app)
    return openai.AsyncOpenAI(
        base_url="http://x/v1", api_key=key, http_client=httpx.AsyncClient(transport=transport), max_retries=0
    )


def ask(app, path="chat.completions", **parameters):
    """Send one request with OpenAI's client; return its answer, or the chunks of a stream."""

    async def send():
        endpoint = client_of(app)
        for part in path.split("."):
            endpoint = getattr(endpoint, part)
        answer = await endpoint.create(model="tiny", **parameters)
        return [chunk async for chunk in answer] if parameters.get("stream") else answer

    return asyncio.run(send())


def refused(app, path="chat.completions", **parameters):
    with pytest.raises(openai.APIStatusError) as caught:
        ask(app, path, **parameters)
    return caught.value


@pytest.mark.slow
def test_a_chat_whole_and_streamed(make):
    app = make()
    whole = ask(app, messages=MESSAGES)
    assert whole.choices[0].message.content == TEXT and whole.choices[0].finish_reason == "stop"
    chunks = ask(app, messages=MESSAGES, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert whole.usage.completion_tokens > 10 and whole.usage.prompt_tokens > 10
    assert len({chunk.id for chunk in chunks}) == 1 and whole.system_fingerprint == chunks[0].system_fingerprint
    prompt = app.host.engine.tokenizer.decode(
        next(iter(app.host.engine.requests.values())).prompt_ids, skip_special_tokens=False
    )
    assert prompt.endswith("password?<|im_end|>\n<|im_start|>assistant\n")


def test_several_answers_stops_lengths_and_log_probabilities(make):
    app = make()
    answer = ask(app, messages=MESSAGES, n=3, stop=["secu", "zzz"], logprobs=True, top_logprobs=2, seed=5)
    assert [choice.message.content for choice in answer.choices] == ["Open the settings, choose "] * 3
    assert [request.params.seed for request in app.host.engine.requests.values()] == [5, 6, 7]
    first = answer.choices[0].logprobs.content[0]
    assert first.logprob == -0.5 and len(first.top_logprobs) == 2 and bytes(first.bytes).decode() == first.token
    short = ask(app, messages=MESSAGES, max_completion_tokens=2)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 2
    chunks = ask(app, messages=MESSAGES, n=2, stream=True)
    assert {chunk.choices[0].index for chunk in chunks} == {0, 1}


def test_completions_with_echo_and_log_probabilities(make):
    app = make(text=None)
    answer = ask(app, "completions", prompt=["abc", "hello"], echo=True, logprobs=1, max_tokens=1)
    assert [choice.text for choice in answer.choices] == ["abca", "hellohe"]
    logprobs = answer.choices[0].logprobs
    assert logprobs.tokens == ["a", "b", "c", "a"] and logprobs.token_logprobs == [None, -1.0, -1.0, -0.5]
    assert logprobs.text_offset == [0, 1, 2, 3] and logprobs.top_logprobs[0] is None
    assert logprobs.top_logprobs[1] == {"b": -1.0}
    only = ask(app, "completions", prompt="abc", echo=True, logprobs=0, max_tokens=0)
    assert only.choices[0].text == "abc" and only.choices[0].logprobs.token_logprobs == [None, -1.0, -1.0]
    plain = ask(app, "completions", prompt="abc", echo=True, max_tokens=0)
    assert plain.choices[0].text == "abc" and plain.choices[0].finish_reason == "length"
    ids = app.host.engine.tokenizer.encode("abc").ids
    streamed = ask(app, "completions", prompt=ids, stream=True, max_tokens=50)
    assert "".join(chunk.choices[0].text for chunk in streamed) == "abc"


def test_tool_calls_whole_and_streamed(make):
    app = make(text=CALLS)
    answer = ask(app, messages=MESSAGES, tools=[WEATHER])
    call = answer.choices[0].message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls" and answer.choices[0].message.content == "I look."
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Paris"}
    request = next(iter(app.host.engine.requests.values()))
    assert "get_weather" in request.params.grammar
    assert "get_weather" in app.host.engine.tokenizer.decode(request.prompt_ids)
    chunks = [chunk.choices[0].delta for chunk in ask(app, messages=MESSAGES, tools=[WEATHER], stream=True)]
    pieces = [piece for delta in chunks for piece in delta.tool_calls or []]
    assert pieces[0].id.startswith("call_") and pieces[0].function.name == "get_weather"
    assert all(piece.id is None for piece in pieces[1:]) and len(pieces) > 1
    assert json.loads("".join(piece.function.arguments for piece in pieces)) == {"city": "Paris"}
    assert "".join(delta.content or "" for delta in chunks) == "I look."
    history = [
        *MESSAGES,
        answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "17 degrees"},
    ]
    assert ask(app, messages=history, tools=[WEATHER], tool_choice="none").choices[0].message.tool_calls is None


@pytest.mark.slow
def test_responses_whole_and_streamed(make):
    app = make()
    answer = ask(app, "responses", input="How do I reset my password?", instructions="Be brief.")
    assert answer.output_text == TEXT and answer.status == "completed" and answer.usage.output_tokens > 10
    events = ask(app, "responses", input=MESSAGES, stream=True)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[-1].type == "response.completed" and events[-1].response.output_text == TEXT
    tool = {"type": "function", **WEATHER["function"]}
    called = ask(make(text=CALLS), "responses", input="Weather?", tools=[tool], stream=True)
    item = called[-1].response.output[1]
    assert item.type == "function_call" and json.loads(item.arguments) == {"city": "Paris"}
    items = [*MESSAGES, item.model_dump(exclude_none=True)]
    items.append({"type": "function_call_output", "call_id": item.call_id, "output": "17"})
    assert ask(app, "responses", input=items, max_output_tokens=2).status == "incomplete"


@pytest.mark.parametrize(
    ("parameters", "status", "param", "message"),
    [
        ({"temperature": 3}, 400, "temperature", "less than or equal to 2"),
        ({"audio": {"voice": "x", "format": "wav"}}, 400, "audio", "not supported"),
        ({"service_tier": "flex"}, 400, "service_tier", "not supported"),
        ({"extra_body": {"temprature": 1}}, 400, "temprature", "did you mean 'temperature'"),
        ({"max_tokens": 5000}, 400, "max_tokens", "at most "),
        ({"messages": [{"role": "user", "content": "a b c d " * 400}]}, 400, "messages", "takes 512"),
        ({"messages": []}, 400, "messages", "at least 1"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, 400,
         "messages[0].content[0].type", "should be 'text'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].tool_call_id", "missing"),
        ({"tool_choice": "required"}, 400, "tool_choice", "only allowed with 'tools'"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, 400, "tool_choice", "get_weather"),
        ({"logit_bias": {"9999": 1}}, 400, "logit_bias", "no token id below 395"),
        ({"top_logprobs": 3}, 400, "top_logprobs", "needs 'logprobs'"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", "with 'stream'"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}}, 400,
         "response_format", "cannot be followed"),
        ({"extra_body": {"model": "tony"}}, 404, "model", "did you mean 'tiny'"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_by_name(make, parameters, status, param, message):
    app = make()
    error = refused(app, **{"messages": MESSAGES, **parameters})
    assert (error.status_code, error.body["param"]) == (status, param) and message in error.body["message"]
    assert not app.host.engine.added


def test_models_embeddings_and_errors_in_openais_form(make):
    app = make(adapters=["other"])

    async def send():
        client = client_of(app)
        models = [model async for model in await client.models.list()]
        one = await client.models.retrieve("other")
        with pytest.raises(openai.NotFoundError) as caught:
            await client.embeddings.create(model="tiny", input="x")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app.app), base_url="http://x") as plain:
            pages = [await plain.get(path) for path in ("/", "/docs", "/openapi.json", "/readyz", "/metrics", "/v1/x")]
            wrong = await plain.post("/v1/chat/completions", content=b"{")
        return models, one, caught.value, pages, wrong

    models, one, error, pages, wrong = asyncio.run(send())
    assert [model.id for model in models] == ["tiny", "other"] and one.adapter_of == "tiny"
    assert "no model here makes embeddings" in error.body["message"]
    assert [page.status_code for page in pages] == [200, 200, 200, 200, 200, 404]
    assert wrong.json()["error"]["type"] == "invalid_request_error" and wrong.status_code == 400


def test_keys_quotas_and_adapters(make):
    import hashlib

    keys = [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "rate": None, "tokens_per_minute": quota}
        for name, quota in (("big", None), ("small", 30))
    ]
    app = make(keys=keys, adapters=["other"])

    async def send(key):
        return await client_of(app, key).chat.completions.create(model="other", messages=MESSAGES)

    with pytest.raises(openai.AuthenticationError):
        asyncio.run(send("nobody"))
    asyncio.run(send("small"))
    with pytest.raises(openai.RateLimitError) as caught:
        asyncio.run(send("small"))
    assert caught.value.code == "quota_exceeded" and int(caught.value.response.headers["retry-after"]) > 10
    asyncio.run(send("big"))
    assert {request.adapter for request in app.host.engine.requests.values()} == {"other"}
    page = app.metrics.text()
    assert 'raymill_generated_tokens_total{model="tiny",version="3"} 0.0' in page
    assert 'raymill_answers_total{finish_reason="stop",model="other",version="3"} 2.0' in page
    assert 'raymill_first_token_seconds_count{model="other",version="3"} 2.0' in page


def test_overload_is_refused_at_once_and_the_rest_is_answered(make):
    app = make(step_s=0.005, slots=2, waiting=3)

    async def send():
        client = client_of(app)
        asks = [client.chat.completions.create(model="tiny", messages=MESSAGES) for _ in range(9)]
        return await asyncio.gather(*asks, return_exceptions=True)

    answers = asyncio.run(send())
    errors = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    assert len(errors) == 4 and all(error.code == "overloaded" for error in errors)
    assert all(answer.choices[0].message.content == TEXT for answer in answers if answer not in errors)


@pytest.mark.slow
def test_tokens_that_come_too_late(make):
    app = make(first_s=0.1, between_s=0.2)
    app.host.engine.stalled = True
    error = refused(app, messages=MESSAGES)
    assert (error.status_code, error.body["code"]) == (504, "first_token_timeout")
    wait_until(lambda: app.host.engine.cancelled)

    app.host.engine.stalled = False
    app.host.engine.step_s = 0.01
    with app.served() as url, openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        stream = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
        next(stream)
        app.host.engine.stalled = True
        with pytest.raises(openai.APIError, match="no further token within 0.2 s"):
            list(stream)
    app.host.engine.stalled = False
    assert refused(make(step_s=0.05, timeout_s=0.1), messages=MESSAGES).body["code"] == "timeout"


@pytest.mark.slow
def test_a_client_that_hangs_up_frees_its_slot(make):
    app = make(step_s=0.01)
    with app.served() as url:
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json={"model": "tiny", "messages": MESSAGES, "stream": True}
        ) as reply:
            next(reply.iter_lines())
        steps = app.host.engine.steps
        wait_until(lambda: app.host.engine.cancelled)
        assert app.host.engine.steps - steps < 5
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/chat/completions", json={"model": "tiny", "messages": MESSAGES}, timeout=0.1)
        wait_until(lambda: len(app.host.engine.cancelled) == 2)
        wait_until(lambda: app.app.n_active == 0)
    assert 'reason="client_gone"' in app.metrics.text()


def test_a_failing_engine_gives_500_and_recovers_or_stops(make):
    app = make(step_s=0.001)
    app.host.engine.failing = True
    assert refused(app, messages=MESSAGES).body["code"] == "engine_error"
    app.host.engine.failing = False
    assert ask(app, messages=MESSAGES).choices[0].message.content == TEXT
    app.host.engine.failing = True
    for _ in range(3):
        assert refused(app, messages=MESSAGES).status_code == 500
    wait_until(lambda: not app.host.thread.is_alive)
    assert refused(app, messages=MESSAGES).status_code == 503


@pytest.mark.slow
def test_an_endpoint_that_stops_finishes_its_streams(make):
    app = make(step_s=0.01)

    with app.served() as url, openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        stream = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
        pieces = [next(stream)]
        app.app.drain()
        pieces += stream
        assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == TEXT
        time.sleep(0.5)
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="tiny", messages=MESSAGES)
        assert caught.value.status_code == 503

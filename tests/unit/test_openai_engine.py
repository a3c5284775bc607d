"""The OpenAI API over the torch engine with a tiny language model: what clients of several libraries get from it."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from support.generation_app import GenerationApp, TinyPrompts
from support.tiny_causal import write_tiny_causal

pytestmark = pytest.mark.slow
CITY = {"type": "string", "maxLength": 8}
WEATHER = {
    "type": "object",
    "properties": {"city": CITY, "days": {"type": "integer", "maximum": 9, "minimum": 0}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": WEATHER}}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    from trainer.generation.load import load_engine
    from trainer.generation.torch_engine import EngineOptions

    folder = write_tiny_causal(tmp_path_factory.mktemp("tiny"))
    engine = load_engine(folder, EngineOptions(slots=8, cache_tokens=8192))
    app = GenerationApp(engine, TinyPrompts(folder), slots=8, waiting=64)
    yield app
    app.host.close()


@pytest.fixture(scope="module")
def url(app):
    with app.served() as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def chat(number):
    return [{"role": "user", "content": f"Question {number}: where is my order?"}]


def test_greedy_answers_under_load_equal_those_alone(client, url):
    settings = {"model": "tiny", "temperature": 0, "max_tokens": 24}
    alone = [client.chat.completions.create(messages=chat(number), **settings) for number in range(12)]

    async def all_at_once():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as many:

            async def stream(number):
                chunks = await many.chat.completions.create(messages=chat(number), stream=True, **settings)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

            return await asyncio.gather(*[stream(number) for number in range(12)])

    assert asyncio.run(all_at_once()) == [answer.choices[0].message.content for answer in alone]


def test_a_seed_repeats_an_answer(client):
    settings = {"model": "tiny", "messages": chat(1), "max_tokens": 16, "seed": 7}
    answers = [client.chat.completions.create(**settings).choices[0].message.content for _ in range(2)]
    assert answers[0] == answers[1]
    assert client.chat.completions.create(**{**settings, "seed": 8}).choices[0].message.content != answers[0]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_arguments_of_tools_always_parse(client, choice):
    for seed in range(3):
        answer = client.chat.completions.create(
            model="tiny", messages=chat(1), tools=[TOOL], tool_choice=choice, parallel_tool_calls=False, seed=seed,
            max_tokens=200,
        )  # fmt: skip
        (call,) = answer.choices[0].message.tool_calls
        arguments = json.loads(call.function.arguments)
        assert answer.choices[0].finish_reason == "tool_calls" and set(arguments) == {"city", "days"}
        assert 0 <= arguments["days"] <= 9 and len(arguments["city"]) <= 8


def test_an_answer_follows_a_schema(client):
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER, "strict": True}}
    answer = client.chat.completions.create(
        model="tiny", messages=chat(1), response_format=form, temperature=1.5, seed=1
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"city", "days"}
    response = client.responses.create(
        model="tiny", input="Weather?", text={"format": {"type": "json_schema", "name": "weather", "schema": WEATHER}}
    )
    assert set(json.loads(response.output_text)) == {"city", "days"}


def test_log_probabilities_of_a_prompt_are_those_of_the_model(app, client):
    answer = client.completions.create(model="tiny", prompt="The parcel arrives", echo=True, logprobs=2, max_tokens=0)
    logprobs = answer.choices[0].logprobs
    ids = app.models["tiny"].prompts.text_ids("The parcel arrives")
    (expected,) = app.host.thread.call(lambda engine: engine.score([ids])).result(20)
    assert logprobs.token_logprobs[0] is None
    assert logprobs.token_logprobs[1:] == pytest.approx(expected.tolist(), abs=1e-4)
    assert "".join(logprobs.tokens) == "The parcel arrives" == answer.choices[0].text


def test_clients_of_langchain(url):
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(base_url=f"{url}/v1", api_key="unused", model="tiny", temperature=0, max_completion_tokens=40)
    whole = model.invoke("Where is my order?")
    assert "".join(chunk.content for chunk in model.stream("Where is my order?")) == whole.content
    called = model.bind_tools([TOOL], tool_choice="any", parallel_tool_calls=False).invoke(
        "Weather?", max_completion_tokens=200
    )
    assert called.tool_calls[0]["name"] == "get_weather" and "city" in called.tool_calls[0]["args"]
    structured = model.with_structured_output({"title": "weather", **WEATHER}, method="json_schema")
    assert set(structured.invoke("Weather?", max_completion_tokens=200)) == {"city", "days"}


def test_the_endpoint_keeps_to_its_schema(url, tmp_path):
    """schemathesis sends valid and invalid requests. It may not judge valid ones: a chat may be too long, for example."""
    program = Path(sys.executable).with_name("st")
    command = [
        program,
        "run",
        f"{url}/openapi.json",
        "--max-examples=4",
        "--phases=examples,fuzzing",
        "--seed=1",
        "--no-color",
        "--workers=1",
        "--request-timeout=60",
    ]
    command += ["--checks=all", "--exclude-checks=positive_data_acceptance", "--include-path-regex=^/v1"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, timeout=500)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]

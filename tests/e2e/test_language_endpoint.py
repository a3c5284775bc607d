"""Endpoints of a registered language model: one process and Ray Serve behind HAProxy, as clients see them."""

import json
import subprocess
import sys
import time

import httpx
import openai
import pytest

from cluster.ports import free_port
from support.commands import RunningCommand, run_raymill
from support.tiny_causal import write_tiny_causal
from support.tiny_text import write_spec

CHAT = [{"role": "user", "content": "Question 1: where is my parcel?"}]
ASK = {"model": "tiny-chat", "messages": CHAT, "temperature": 0, "max_tokens": 20}


@pytest.fixture(scope="module")
def chat_storage(tmp_path_factory):
    """A storage folder with the registered model `tiny-chat`."""
    folder = tmp_path_factory.mktemp("language")
    base = write_tiny_causal(folder / "base")
    rows = [
        {"messages": [{"role": "user", "content": f"Question {n}: where is my parcel?"},
                      {"role": "assistant", "content": f"It arrives on Monday, order {n}."}]}
        for n in range(40)
    ]  # fmt: skip
    for name, part in (("train", rows[:30]), ("test", rows[30:])):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    spec = {
        "task": "text-generation",
        "name": "tiny-chat",
        "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")},
        "model": {"base": str(base)},
        "train": {"epochs": 2},
        "serve": {"engine": "native"},
        "storage": str(folder / "store"),
    }
    done = run_raymill("run", write_spec(folder / "spec.yaml", spec), "--json")
    assert done.code == 0, done
    return folder / "store"


def serve(storage, *options):
    return RunningCommand("-m", "raymill", "serve", "tiny-chat", "--storage", storage, "--port", free_port(), *options)


@pytest.fixture(scope="module")
def url(chat_storage):
    server = serve(chat_storage)
    try:
        yield server.wait_for_line("listening on").split()[-1]
    finally:
        server.terminate()


def streamed(url):
    """Return the text of a streamed answer, and when its pieces came."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        text, times = "", []
        for chunk in client.chat.completions.create(stream=True, **ASK):
            text += chunk.choices[0].delta.content or ""
            times.append(time.perf_counter())
        return text, times, client.chat.completions.create(**ASK).choices[0].message.content


def test_a_registered_model_answers(url):
    text, times, whole = streamed(url)
    assert text == whole and len(times) > 5
    ready = httpx.get(f"{url}/readyz").json()
    assert ready["golden_rows"] > 0 and ready["model"]["engine"] == "native"
    assert 'raymill_first_token_seconds_count{replica="' in httpx.get(f"{url}/metrics").text


def test_chat_in_the_terminal(url, chat_storage):
    for arguments in ([url], ["tiny-chat", "--storage", str(chat_storage)]):
        command = [sys.executable, "-m", "raymill", "chat", *arguments, "--temperature", "0", "--max-tokens", "20"]
        done = subprocess.run(
            command,
            input="Question 1: where is my parcel?\n/new\nHello\n/exit\n",
            text=True,
            capture_output=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert len(done.stdout.strip()) > 20


@pytest.mark.long
def test_streams_pass_haproxy_on_ray_serve(chat_storage):
    server = serve(chat_storage, "--replicas", 2)
    try:
        url = server.wait_for_line("listening on").split()[-1]
        text, times, whole = streamed(url)
        assert text == whole and times[-1] - times[0] > 0.01  # the pieces did not come all at once
    finally:
        server.terminate()

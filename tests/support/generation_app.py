"""Models that write text behind HTTP, over an engine of the tests: the application, and a server of it in a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from tokenizers import Tokenizer

from serve.asgi.app import HttpApp
from serve.asgi.auth import ApiKeyAuth
from serve.asgi.uvicorn_patch import patch_uvicorn
from serve.generation.engine_thread import ThreadLimits
from serve.generation.generation_model import EngineHost, GenerationModel
from serve.generation.metrics import GenerationMetrics
from serve.generation.streams import Deadlines
from serve.model.metrics import ReplicaMetrics
from serve.openai.quotas import TokenQuotas
from serve.openai.routes import OpenAiService
from serve.openai.session import Sessions
from support.tiny_causal import CHAT_TEMPLATE
from trainer.chat.template import ChatTemplate


class TinyPrompts:
    """The prompts of `support.tiny_causal`'s tokenizer and template."""

    def __init__(self, folder: Path, template: str = CHAT_TEMPLATE) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._template = ChatTemplate(template, {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"})

    def chat_text(self, messages: Sequence[Any], tools: Sequence[Any], add_generation_prompt: bool) -> str:
        return self._template.render(messages, tools, add_generation_prompt=add_generation_prompt)

    def chat_ids(self, messages: Sequence[Any], tools: Sequence[Any]) -> list[int]:
        return self.text_ids(self.chat_text(messages, tools, True))

    def text_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


class GenerationApp:
    """An application with one model named `tiny`, or with `adapters` of it."""

    def __init__(
        self,
        engine: Any,
        prompts: Any,
        *,
        slots: int = 4,
        waiting: int = 8,
        first_s: float = 20,
        between_s: float = 20,
        timeout_s: float = 20,
        keys: Sequence[dict[str, Any]] = (),
        adapters: Sequence[str] = (),
    ) -> None:
        self.metrics = ReplicaMetrics()
        self.host = EngineHost(engine, ThreadLimits(slots, waiting))
        metrics = GenerationMetrics(self.metrics)
        self.models: dict[str, GenerationModel] = {}
        for name in ("tiny", *adapters):
            identity = {"name": name, "version": 3, "fingerprint": "f" * 64, "checkpoint": "c" * 64, "engine": "native"}
            adapter = name if name != "tiny" else None
            base = "tiny" if adapter else None
            self.models[name] = GenerationModel(identity, self.host, prompts, metrics, adapter=adapter, base_name=base)
        sessions = Sessions(Deadlines(first_s, between_s), TokenQuotas(list(keys)), timeout_s)
        self.app = HttpApp(
            [],
            services=[lambda intake: OpenAiService(self.models, intake, sessions)],
            auth=ApiKeyAuth(list(keys)),
            timeout_s=timeout_s,
            metrics_page=self.page,
        )

    async def page(self) -> str:
        return self.metrics.text()

    @contextlib.contextmanager
    def served(self, client_timeout_s: float = 30.0) -> Iterator[str]:
        """Serve the application with uvicorn in a thread; yield its URL."""
        patch_uvicorn(client_timeout_s)
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(self.app, lifespan="off", log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)

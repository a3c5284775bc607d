"""Chat with a model that writes text: a registered version in this process, or a model of an endpoint."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from raymill.session import STORAGE, find_version

if TYPE_CHECKING:
    from serve.generation.generation_model import GenerationModel

_TIMEOUT_S = 600.0


class ChatModel(Protocol):
    """Something that answers a chat."""

    name: str

    def answer(
        self, messages: Sequence[Mapping[str, Any]], max_tokens: int | None, temperature: float
    ) -> Iterator[str]:
        """Yield the answer piece by piece. Closing the iterator stops it. Raises `UserError`."""

    def close(self) -> None:
        """Free the model."""


def open_chat(model: str, *, storage: str | Path = STORAGE, key: str = "", name: str = "") -> ChatModel:
    """Return the registered version `model`, loaded into this process, or the model of the endpoint at the URL `model`.

    `name` chooses one of the endpoint's models; the default is its first. `key` is its API key. Raises `ModelError` for
    an unknown or damaged version, or one that writes no text, and `ResourceError` for an endpoint that does not answer.
    """
    if model.startswith(("http://", "https://")):
        return EndpointChat(model, key, name)
    return RegisteredChat(model, storage)


class EndpointChat:
    """A model of an endpoint."""

    def __init__(self, url: str, key: str, name: str) -> None:
        """`url` is the endpoint's, with or without /v1."""
        self._url = url.rstrip("/").removesuffix("/v1") + "/v1"
        self._headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
        self.name = name or self._first_model()

    def answer(
        self, messages: Sequence[Mapping[str, Any]], max_tokens: int | None, temperature: float
    ) -> Iterator[str]:
        body = {
            "model": self.name,
            "messages": messages,
            "temperature": temperature,
            "max_completion_tokens": max_tokens,
            "stream": True,
        }
        with self._open("/chat/completions", json.dumps(body).encode()) as reply:
            for line in reply:
                data = line.decode("utf-8").strip().removeprefix("data: ")
                if data and data != "[DONE]":
                    yield _text_of(json.loads(data), self._url)

    def close(self) -> None:
        """Do nothing: the endpoint goes on."""

    def _first_model(self) -> str:
        with self._open("/models") as reply:
            return str(json.load(reply)["data"][0]["id"])

    def _open(self, path: str, body: bytes | None = None) -> Any:
        from cluster.errors import ResourceError

        request = urllib.request.Request(self._url + path, body, self._headers)
        try:
            return urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            raise ResourceError(f"{self._url} answers {error.code}: {_problem(error)}", "change the request") from error
        except (OSError, ValueError) as error:
            raise ResourceError(f"{self._url} does not answer: {error}", "check the URL, and that it serves") from error


class RegisteredChat:
    """A registered version in this process."""

    def __init__(self, ref: str, storage: str | Path) -> None:
        from cluster.errors import ModelError
        from serve.engines.selection import GENERATION, service_of
        from serve.generation.load import load_model
        from serve.generation.metrics import GenerationMetrics
        from serve.model.metrics import ReplicaMetrics
        from serve.model.settings import ModelSettings

        version = find_version(ref, storage)
        if service_of(version) != GENERATION:
            raise ModelError(f"{version.ref} writes no text", f"use `raymill predict {version.ref} --text ...`")
        settings = ModelSettings(name=version.name, version=version.number, folder=str(version.folder))
        self._model: GenerationModel = load_model(settings, GenerationMetrics(ReplicaMetrics()))
        self.name = version.ref

    def answer(
        self, messages: Sequence[Mapping[str, Any]], max_tokens: int | None, temperature: float
    ) -> Iterator[str]:
        import queue
        import secrets

        from cluster.errors import DataError
        from serve.generation.streams import AnswerStream, Delivery
        from trainer.generation.engine import GenerationRequest, SamplingParams

        model = self._model
        prompt = model.prompts.chat_ids(messages, None)
        room = model.max_length - len(prompt)
        if room <= 0:
            raise DataError(
                f"the chat has {len(prompt)} tokens; the model takes {model.max_length}", "start a new chat"
            )
        params = SamplingParams(
            max_tokens=min(max_tokens or room, room), temperature=temperature, seed=secrets.randbits(62)
        )
        deliveries: queue.Queue[list[Delivery]] = queue.Queue()
        stream = AnswerStream(GenerationRequest(secrets.token_hex(8), prompt, params), "", deliveries.put)
        model.submit([stream])
        try:
            while True:
                for _, event in deliveries.get():
                    yield event.text
                    if event.error:
                        raise DataError(event.error, "start a new chat")
                    if event.finish_reason:
                        return
        finally:
            if not stream.finished:
                model.cancel([stream])

    def close(self) -> None:
        """Free the engine."""
        self._model.host.close()


def _text_of(chunk: Mapping[str, Any], url: str) -> str:
    from cluster.errors import ResourceError

    if "error" in chunk:
        raise ResourceError(f"{url}: {chunk['error']['message']}", "try again")
    choices = chunk["choices"]
    return str(choices[0]["delta"].get("content") or "") if choices else ""


def _problem(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)

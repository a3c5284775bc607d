"""Run one of the other servers of benchmarks/serve_latency.py: python serve_peers.py SIDE MODEL PORT.

Each server takes {"inputs": [text]} like raymill and answers with the label, its score and all scores. SIDE is one
of:

- fastapi: FastAPI around transformers' pipeline
- ray: Ray Serve with its defaults, @serve.batch of 32
- litserve, bentoml: batches of 32
- litserve-engine: LitServe with the engine that raymill chose, to separate the effects of engine and server
- infinity: infinity-emb's own server, with its own request format {"model": "model", "input": [text]}
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

_BATCH = 32
# Environment variable with the model's folder, for servers whose workers do not get this script's arguments.
_FOLDER = "RAYMILL_PEER_MODEL"


class Texts:
    """A transformers classifier in fp32, one batch at a time, as in its documentation."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self._torch = torch

    def __call__(self, texts: list[str]) -> list[dict[str, Any]]:
        batch = self._tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        with self._torch.inference_mode():
            rows = self._model(**batch).logits.softmax(-1).tolist()
        names = self._model.config.id2label
        answers = []
        for row in rows:
            best = max(range(len(row)), key=row.__getitem__)
            answers.append(
                {"label": names[best], "score": row[best], "scores": dict(zip(names.values(), row, strict=True))}
            )
        return answers


class Engine:
    """The engine that raymill chose for a version, without raymill's server."""

    def __init__(self, folder: str) -> None:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from serve.app import model_settings
        from serve.model.metrics import ReplicaMetrics
        from serve.model.served_model import ServedModel
        from trainer.registry.registry import Version
        from trainer.spec.serve import ServeSpec

        path = Path(folder)
        version = Version(path.parents[1].name, int(path.name), path)
        self._served = ServedModel(model_settings(version, ServeSpec(), None, print), ReplicaMetrics())

    def __call__(self, texts: list[str]) -> list[dict[str, Any]]:
        inputs: Any = self._served.prepare([(text,) for text in texts])
        return self._served.format_answers(self._served.compute(inputs))


def fastapi(folder: str, port: int) -> None:
    """Serve a pipeline with FastAPI, one request per thread."""
    import uvicorn
    from fastapi import FastAPI
    from transformers import pipeline

    classify = pipeline("text-classification", model=folder, top_k=None)
    app = FastAPI()

    @app.post("/predict")
    def predict(body: dict[str, Any]) -> Any:
        return {"predictions": classify(body["inputs"])}

    uvicorn.run(app, port=port, log_level="warning")


def ray(folder: str, port: int) -> None:
    """Serve with Ray ServeSpec, as in its documentation."""
    import ray as ray_itself
    import ray.serve as ray_serve

    @ray_serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
    class Model:
        def __init__(self) -> None:
            self._texts = Texts(folder)

        @ray_serve.batch(max_batch_size=_BATCH, batch_wait_timeout_s=0.005)
        async def _batch(self, texts: list[str]) -> list[dict[str, Any]]:
            return self._texts(texts)

        async def __call__(self, request: Any) -> Any:
            body = await request.json()
            return {"predictions": [await self._batch(body["inputs"][0])]}

    ray_itself.init(include_dashboard=False, log_to_driver=False)
    ray_serve.start(http_options={"host": "127.0.0.1", "port": port})
    ray_serve.run(Model.bind(), blocking=True)


if sys.argv[1:2] and sys.argv[1].startswith("litserve"):  # its workers import this file again to find the class
    import litserve as ls

    class Api(ls.LitAPI):  # type: ignore[misc, name-defined]
        """A LitServe API for one model."""

        def setup(self, device: str) -> None:
            """Load the model."""
            self._texts = Engine(sys.argv[2]) if sys.argv[1] == "litserve-engine" else Texts(sys.argv[2])

        # No annotation: LitServe evaluates it, and in this file annotations are strings.
        def decode_request(self, request):  # type: ignore[no-untyped-def]
            """Return the text of a request."""
            return str(request["inputs"][0])

        def predict(self, texts: list[str]) -> list[dict[str, Any]]:
            """Return the predictions for a batch."""
            return self._texts(texts)

        def unbatch(self, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
            """Return the predictions of a batch as a list, one per request."""
            return answers

        def encode_response(self, answer):  # type: ignore[no-untyped-def]
            """Return the body of an answer."""
            return {"predictions": [answer]}


def litserve(folder: str, port: int) -> None:
    """Serve with LitServe in batches of up to 32, collected for 5 ms.

    One worker uses all cores; with raymill's engine there is one worker per core.
    """
    workers = (os.cpu_count() or 1) if sys.argv[1] == "litserve-engine" else 1
    api = Api(max_batch_size=_BATCH, batch_timeout=0.005)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=workers, track_requests=False)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


def bentoml(folder: str, port: int) -> None:
    """Serve with BentoML: one worker, adaptive batches of up to 32. The worker imports `Bento` from this file."""
    os.environ[_FOLDER] = folder
    words = ["serve", f"{Path(__file__).stem}:Bento", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--working-dir", str(Path(__file__).parent)]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *words])


if _FOLDER in os.environ:
    import bentoml as bento

    @bento.service(workers=1, traffic={"timeout": 120})
    class Bento:
        """A BentoML service for one model."""

        def __init__(self) -> None:
            self._texts = Texts(os.environ[_FOLDER])

        @bento.api(batchable=True, max_batch_size=_BATCH, max_latency_ms=60_000)
        def predict(self, inputs: list[str]) -> list[dict[str, Any]]:
            """Return the predictions for a batch."""
            return self._texts(inputs)


def infinity(folder: str, port: int) -> None:
    """Serve with infinity-emb and torch, in batches of up to 32, without its warm-up benchmark."""
    words = ["v2", "--model-id", folder, "--served-model-name", "model", "--engine", "torch", "--device", "cpu"]
    words += ["--batch-size", str(_BATCH), "--host", "127.0.0.1", "--port", str(port), "--no-model-warmup"]
    program = Path(sys.executable).parent / "infinity_emb"
    os.execv(program, [str(program), *words])


def main() -> None:
    side, folder, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sides = {"fastapi": fastapi, "ray": ray, "bentoml": bentoml, "infinity": infinity}
    sides.get(side, litserve)(folder, port)


if __name__ == "__main__":
    print(json.dumps({"side": sys.argv[1]}), file=sys.stderr)
    main()

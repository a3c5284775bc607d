"""The OpenAPI schema of an endpoint, made of pydantic models: what /openapi.json and /docs show."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from serve.model.served_model import Served


class PredictRequest(BaseModel):
    """The body of POST /predict; what an input must be depends on the task, /docs shows one."""

    model_config = ConfigDict(extra="forbid")

    inputs: list[Any]


class ModelOut(BaseModel):
    """Which model answered."""

    name: str
    version: int
    fingerprint: str
    """Of the contract: how inputs are prepared."""
    checkpoint: str
    """SHA-256 of the version's manifest: of every file it has."""
    engine: str
    """What computes."""


class TimingOut(BaseModel):
    """Where a request's time went, in milliseconds."""

    queue: float
    tokenize: float
    inference: float
    total: float


class PredictResponse(BaseModel):
    """The answer of POST /predict, in the order of the inputs."""

    predictions: list[dict[str, Any]]
    model: ModelOut
    timing_ms: TimingOut


class ReadyResponse(BaseModel):
    """The answer of GET /readyz."""

    status: str
    model: ModelOut
    golden_rows: int
    models: list[ModelOut]


class ErrorBody(BaseModel):
    """What was wrong."""

    code: str
    message: str


class ErrorResponse(BaseModel):
    """The body of every refusal."""

    error: ErrorBody


class Tensor(BaseModel):
    """A tensor of the Open Inference Protocol, its elements as JSON, flat or nested as `shape` is."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    datatype: str
    data: list[Any]


class InferRequest(BaseModel):
    """The body of POST /v2/models/NAME/infer: a tensor for each role, or one called `inputs`."""

    inputs: Annotated[list[Tensor], Field(min_length=1)]


class ProtocolError(BaseModel):
    """The body of every refusal on the Open Inference Protocol's paths."""

    error: str


_REFUSALS = {
    "400": "the body is not JSON, or not UTF-8",
    "401": "the endpoint needs an API key",
    "404": "there is no such path, model or version",
    "405": "the path takes another method",
    "413": "the body or the number of inputs is over the limit",
    "422": "the JSON is not what it should be; the message names the place",
    "429": "too much waits already, or the key asks too often; Retry-After says when to ask again",
    "500": "the server failed",
    "504": "no answer within the time limit",
}
_TYPES: dict[type, dict[str, str]] = {str: {"type": "string"}, list: {"type": "array"}, dict: {"type": "object"}}
_OF_EVERY = ("401", "405", "429", "500")
_MODELS = (PredictRequest, PredictResponse, ReadyResponse, ErrorResponse, InferRequest, ProtocolError)


def openapi(served: Served, *, alone: bool = True) -> dict[str, Any]:
    """Return the schema of an endpoint whose first model is `served`; the inputs of several models may be of several kinds."""
    _, defined = models_json_schema(
        [(model, "serialization") for model in _MODELS], ref_template="#/components/schemas/{model}"
    )
    schemas = defined["$defs"]
    schemas["PredictRequest"]["properties"]["inputs"] |= {
        "items": _TYPES.get(type(served.example["input"]), {}) if alone else {},
        "minItems": 1,
        "description": f"At most {served.settings.max_inputs}.",
    }
    predict = {
        "description": "Answer inputs with the model's predictions.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _ref(PredictRequest), "example": {"inputs": [served.example["input"]]}}
            },
        },
        "responses": {
            "200": _json("the predictions, in the order of the inputs", PredictResponse),
            **_refused(*_REFUSALS),
        },
    }
    named = {"parameters": [_name(served)]}
    paths: dict[str, Any] = {
        "/predict": {"post": {**predict, "operationId": "predict"}},
        "/healthz": {"get": _get("The process is alive.")},
        "/readyz": {"get": _get("The models are loaded and their golden rows came out as recorded.", ReadyResponse)},
        "/metrics": {"get": _text("Prometheus metrics of all replicas, added up.", "text/plain")},
        "/docs": {"get": _text("This page.", "text/html")},
        "/": {"get": _text("A page to try the model by hand.", "text/html")},
        "/models/{name}/predict": {"post": {**predict, "operationId": "predict_of", **named}},
        "/v2": {"get": _get("Open Inference Protocol: the server.", error=ProtocolError)},
        "/v2/health/live": {"get": _text("Open Inference Protocol: alive.", "text/plain", ProtocolError)},
        "/v2/health/ready": {"get": _text("Open Inference Protocol: ready.", "text/plain", ProtocolError)},
        "/v2/models/{name}": {"get": {**_get("Open Inference Protocol: a model.", error=ProtocolError), **named}},
        "/v2/models/{name}/ready": {"get": {**_get("Open Inference Protocol: ready.", error=ProtocolError), **named}},
        "/v2/models/{name}/infer": {
            "post": {
                "description": "Open Inference Protocol: predictions of tensors.",
                **named,
                "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(InferRequest)}}},
                "responses": {
                    "200": {"description": "tensors", "content": {"application/json": {"schema": {"type": "object"}}}},
                    **_refused(*_REFUSALS, error=ProtocolError),
                },
            }
        },
    }
    title = f"{served.model['name']} v{served.model['version']}"
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": str(served.model["version"])},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _json(description: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(model)}}}


def _refused(*statuses: str, error: type[BaseModel] = ErrorResponse) -> dict[str, Any]:
    return {status: _json(_REFUSALS[status], error) for status in statuses}


def _get(
    description: str, model: type[BaseModel] | None = None, error: type[BaseModel] = ErrorResponse
) -> dict[str, Any]:
    schema = _ref(model) if model else {"type": "object"}
    found = {"description": "JSON", "content": {"application/json": {"schema": schema}}}
    return {"description": description, "responses": {"200": found, **_refused(*_OF_EVERY, "404", error=error)}}


def _text(description: str, content_type: str, error: type[BaseModel] = ErrorResponse) -> dict[str, Any]:
    found = {"description": content_type, "content": {content_type: {"schema": {"type": "string"}}}}
    return {"description": description, "responses": {"200": found, **_refused(*_OF_EVERY, error=error)}}


def _name(served: Served) -> dict[str, Any]:
    return {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1},
            "example": served.model["name"]}  # fmt: skip

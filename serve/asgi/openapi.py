"""The OpenAPI schema of an endpoint, built from pydantic models, for /openapi.json and /docs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from serve.model.served_model import ServedModel


class ApiModel(BaseModel):
    """An object of the API. The docstrings of its fields become their descriptions in the schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class PredictRequest(ApiModel):
    """The body of POST /predict. The form of an input depends on the task; /docs shows an example."""

    model_config = ConfigDict(extra="forbid")

    inputs: list[Any]


class ModelOut(ApiModel):
    """The model that answered."""

    name: str
    """Its name in the registry."""
    version: int
    """Its version in the registry."""
    fingerprint: str
    """The contract's fingerprint, which identifies how inputs are prepared."""
    checkpoint: str
    """SHA-256 of the version's manifest, which lists the digests of all files."""
    engine: str
    """The engine that computes the forward pass."""


class TimingOut(ApiModel):
    """The time of each stage of a request, in milliseconds."""

    queue: float
    """The request waited for its batches."""
    preprocess: float
    """Its inputs were prepared."""
    inference: float
    """Its batches were computed; the full time of each batch."""
    total: float
    """From the arrival of the request to its answer."""


class PredictResponse(ApiModel):
    """The response of POST /predict, in the order of the inputs."""

    predictions: list[dict[str, Any]]
    """One answer per input. Its form depends on the task."""
    model: ModelOut
    """The model that answered."""
    timing_ms: TimingOut
    """The time of each stage."""


class ReadyResponse(ApiModel):
    """The response of GET /readyz."""

    status: str
    """`ready`."""
    model: ModelOut
    """The first model, which /predict uses."""
    golden_rows: int
    """How many golden rows that model reproduced."""
    models: list[ModelOut]
    """All models of the endpoint."""


class ErrorBody(ApiModel):
    """An error: a stable code and a message."""

    code: str
    """A word that stays the same between versions."""
    message: str
    """What is wrong, and what to change."""


class ErrorResponse(ApiModel):
    """The body of every error response."""

    error: ErrorBody


class Tensor(ApiModel):
    """A tensor of the Open Inference Protocol. `data` holds the elements, in a flat list or nested as in `shape`."""

    name: str
    """A role of the task, for example `text`; or `inputs`."""
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    """The number of inputs comes first."""
    datatype: str
    """`BYTES` for texts, or a type of numbers such as `FP32`."""
    data: list[Any]
    """The elements, row by row."""


class InferRequest(ApiModel):
    """The body of POST /v2/models/NAME/infer: a tensor for each role, or one tensor called `inputs`."""

    inputs: Annotated[list[Tensor], Field(min_length=1)]


class ProtocolError(ApiModel):
    """The body of every error response on the Open Inference Protocol's paths."""

    error: str


_ERRORS = {
    "400": "The request is not valid HTTP, or its body is not JSON: damaged, cut short, not in its charset, or with a key that occurs twice.",
    "401": "The endpoint needs an API key.",
    "403": "The endpoint does not allow pages of this origin: a preflight of a browser.",
    "404": "The path, the model or the version does not exist.",
    "405": "The path does not accept this method.",
    "408": "The client did not send the request in time.",
    "413": "The body is too large, or unpacks to too much, or has too many inputs.",
    "414": "The path with its query is too long.",
    "415": "The content encoding or the charset is unknown; the message says what is accepted.",
    "422": "The JSON is not a valid request; the message names the invalid value.",
    "429": "Too many inputs are waiting, or the key is over its rate limit; Retry-After says when to retry.",
    "431": "The headers are too large or too many.",
    "500": "The server failed.",
    "503": "The endpoint is being stopped, or no replica runs; Retry-After says when to retry.",
    "504": "There was no answer within the time limit.",
}
_TYPES: dict[type, dict[str, str]] = {str: {"type": "string"}, list: {"type": "array"}, dict: {"type": "object"}}
_COMMON_ERRORS = ("400", "401", "405", "408", "414", "429", "431", "500", "503")
_MODELS = (PredictRequest, PredictResponse, ReadyResponse, ErrorResponse, InferRequest, ProtocolError)


def build_openapi(served: ServedModel, *, alone: bool = True) -> dict[str, Any]:
    """Return the schema of an endpoint whose first model is `served`.

    `alone` says whether it is the only model. If not, the schema leaves the type of inputs open.
    """
    name, version = served.identity["name"], served.identity["version"]
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{name} v{version}", "version": str(version)},
        "paths": _paths(served),
        "components": {"schemas": _schemas(served, alone)},
    }


def _schemas(served: ServedModel, alone: bool) -> dict[str, Any]:
    _, definitions = models_json_schema(
        [(model, "serialization") for model in _MODELS], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = definitions["$defs"]
    schemas["PredictRequest"]["properties"]["inputs"] |= {
        "items": _TYPES.get(type(served.example["input"]), {}) if alone else {},
        "minItems": 1,
        "description": f"At most {served.settings.max_inputs} inputs.",
    }
    return schemas


def _paths(served: ServedModel) -> dict[str, Any]:
    predict, name = _predict_operation(served), {"parameters": [_name_parameter(served)]}
    return {
        "/predict": {"post": {**predict, "operationId": "predict"}},
        "/healthz": {"get": _get_json("Whether the process is alive.")},
        "/readyz": {"get": _get_json("Whether the models are loaded and reproduce their golden rows.", ReadyResponse)},
        "/metrics": {"get": _get_text("Prometheus metrics of all replicas.", "text/plain")},
        "/docs": {"get": _get_text("This page.", "text/html")},
        "/": {"get": _get_text("A page to try the model in the browser.", "text/html")},
        "/models/{name}/predict": {"post": {**predict, "operationId": "predict_of", **name}},
        "/v2": {"get": _get_json("Open Inference Protocol: server metadata.", error=ProtocolError)},
        "/v2/health/live": {"get": _get_text("Open Inference Protocol: server liveness.", "text/plain", ProtocolError)},
        "/v2/health/ready": {
            "get": _get_text("Open Inference Protocol: server readiness.", "text/plain", ProtocolError)
        },
        "/v2/models/{name}": {
            "get": {**_get_json("Open Inference Protocol: model metadata.", error=ProtocolError), **name}
        },
        "/v2/models/{name}/ready": {
            "get": {**_get_json("Open Inference Protocol: model readiness.", error=ProtocolError), **name}
        },
        "/v2/models/{name}/infer": {"post": {**_infer_operation(), **name}},
    }


def _predict_operation(served: ServedModel) -> dict[str, Any]:
    example = {"inputs": [served.example["input"]]}
    return {
        "description": "Return the model's prediction for each input.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref(PredictRequest), "example": example}},
        },
        "responses": {
            "200": _json_response("The predictions, in the order of the inputs.", PredictResponse),
            **_error_responses(*_ERRORS),
        },
    }


def _infer_operation() -> dict[str, Any]:
    return {
        "description": "Open Inference Protocol: predictions for tensors.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(InferRequest)}}},
        "responses": {
            "200": {"description": "Tensors.", "content": {"application/json": {"schema": {"type": "object"}}}},
            **_error_responses(*_ERRORS, error=ProtocolError),
        },
    }


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _json_response(description: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(model)}}}


def _error_responses(*statuses: str, error: type[BaseModel] = ErrorResponse) -> dict[str, Any]:
    return {status: _json_response(_ERRORS[status], error) for status in statuses}


def _get_json(
    description: str, model: type[BaseModel] | None = None, error: type[BaseModel] = ErrorResponse
) -> dict[str, Any]:
    schema = _ref(model) if model else {"type": "object"}
    success = {"description": "JSON", "content": {"application/json": {"schema": schema}}}
    errors = _error_responses(*_COMMON_ERRORS, "404", error=error)
    return {"description": description, "responses": {"200": success, **errors}}


def _get_text(description: str, content_type: str, error: type[BaseModel] = ErrorResponse) -> dict[str, Any]:
    success = {"description": content_type, "content": {content_type: {"schema": {"type": "string"}}}}
    errors = _error_responses(*_COMMON_ERRORS, error=error)
    return {"description": description, "responses": {"200": success, **errors}}


def _name_parameter(served: ServedModel) -> dict[str, Any]:
    return {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
        "example": served.identity["name"],
    }

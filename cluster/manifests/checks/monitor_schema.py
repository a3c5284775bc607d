"""The objects of Prometheus' operator that raymill writes: PodMonitor and ScrapeConfig, with the fields it uses."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|[smhdwy]))+$"}
_LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
_SELECTOR = {
    "type": "object",
    "properties": {"matchLabels": {**_LABELS, "minProperties": 1}},
    "required": ["matchLabels"],
    "additionalProperties": False,
}
_RELABELING = {
    "type": "object",
    "properties": {
        "sourceLabels": {"type": "array", "items": _TEXT},
        "targetLabel": {"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"},
        "regex": _TEXT,
        "replacement": {"type": "string"},
        "separator": {"type": "string"},
        "action": {"enum": ["replace", "keep", "drop", "labelmap", "labeldrop", "labelkeep", "hashmod"]},
    },
    "additionalProperties": False,
}
_KEY = {
    "type": "object",
    "properties": {"name": _TEXT, "key": _TEXT},
    "required": ["name", "key"],
    "additionalProperties": False,
}


def _object(api_version: str, kind: str, spec: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "apiVersion": {"const": api_version},
            "kind": {"const": kind},
            "metadata": {
                "type": "object",
                "properties": {"name": _TEXT, "namespace": _TEXT, "labels": _LABELS, "annotations": _LABELS},
                "required": ["name"],
                "additionalProperties": False,
            },
            "spec": {"type": "object", "properties": spec, "required": required, "additionalProperties": False},
        },
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
    }


#: (apiVersion, kind) -> JSON schema.
MONITOR_SCHEMAS = {
    ("monitoring.coreos.com/v1", "PodMonitor"): _object(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        {
            "jobLabel": _TEXT,
            "selector": _SELECTOR,
            "namespaceSelector": {
                "type": "object",
                "properties": {"matchNames": {"type": "array", "items": _TEXT}, "any": {"type": "boolean"}},
                "additionalProperties": False,
            },
            "podMetricsEndpoints": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "port": _TEXT,
                        "path": {"type": "string", "pattern": "^/"},
                        "interval": _DURATION,
                        "scrapeTimeout": _DURATION,
                        "scheme": {"enum": ["http", "https"]},
                        "relabelings": {"type": "array", "items": _RELABELING},
                        "metricRelabelings": {"type": "array", "items": _RELABELING},
                    },
                    "required": ["port"],
                    "additionalProperties": False,
                },
            },
        },
        ["selector", "podMetricsEndpoints"],
    ),
    ("monitoring.coreos.com/v1alpha1", "ScrapeConfig"): _object(
        "monitoring.coreos.com/v1alpha1",
        "ScrapeConfig",
        {
            "staticConfigs": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "targets": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "pattern": r"^[a-z0-9.-]+:\d+$"},
                        },
                        "labels": _LABELS,
                    },
                    "required": ["targets"],
                    "additionalProperties": False,
                },
            },
            "metricsPath": {"type": "string", "pattern": "^/"},
            "scrapeInterval": _DURATION,
            "authorization": {
                "type": "object",
                "properties": {"type": _TEXT, "credentials": _KEY},
                "required": ["credentials"],
                "additionalProperties": False,
            },
        },
        ["staticConfigs"],
    ),
}

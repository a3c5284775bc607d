"""What Prometheus' operator scrapes: Ray's metrics of every pod, and the endpoint's own."""

from __future__ import annotations

from typing import Any

from cluster.manifests.documents import Document
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.kubernetes_groups import instance_selector
from cluster.manifests.kubernetes_objects import metadata

_CLUSTER = {"sourceLabels": ["__meta_kubernetes_pod_label_ray_io_cluster"], "targetLabel": "ray_io_cluster"}
# The dashboards and rules of cluster/monitoring use raymill's names without Ray's prefix. An endpoint's metrics come under
# these names from the endpoint itself, and must not count twice.
_RUN_NAMES = {
    "sourceLabels": ["__name__"],
    "regex": "ray_(raymill_(prepare|run|search|train)_.+)",
    "targetLabel": "__name__",
    "replacement": "$1",
}


def monitors(inputs: ManifestInputs, instance: str, *, serves: bool) -> dict[str, list[Document]]:
    """Return the file with the monitors, or no file if the spec has no section `monitoring`."""
    monitoring = inputs.deploy.kubernetes.monitoring
    if monitoring is None:
        return {}
    interval = f"{monitoring.interval_s}s"
    documents = [
        _monitor(inputs, instance, "head", _endpoints(interval, "metrics", "as-metrics", "dash-metrics")),
        _monitor(inputs, instance, "worker", _endpoints(interval, "metrics")),
    ]
    if serves:
        documents.append(_endpoint_scrape(inputs, instance, interval))
    return {"monitoring.yaml": documents}


def _monitor(inputs: ManifestInputs, instance: str, node_type: str, endpoints: list[dict[str, Any]]) -> Document:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata(inputs, f"{instance}-{node_type}", instance, labels=_labels(inputs)),
        "spec": {
            "selector": instance_selector(instance, node_type),
            "namespaceSelector": {"matchNames": [inputs.deploy.kubernetes.namespace]},
            "podMetricsEndpoints": endpoints,
        },
    }


def _endpoints(interval: str, *ports: str) -> list[dict[str, Any]]:
    return [
        {"port": port, "interval": interval, "relabelings": [_CLUSTER], "metricRelabelings": [_RUN_NAMES]}
        for port in ports
    ]


def _endpoint_scrape(inputs: ManifestInputs, instance: str, interval: str) -> Document:
    """Return the scrape of the endpoint, by the address of its service.

    An answer has the samples of all replicas. A ServiceMonitor would ask each pod of the service, and Prometheus would
    count all of them once for each pod.
    """
    monitoring = inputs.deploy.kubernetes.monitoring
    key = monitoring.key_secret if monitoring else None
    address = f"{instance}-serve-svc.{inputs.deploy.kubernetes.namespace}.svc:{inputs.spec.serve.port}"
    return {
        "apiVersion": "monitoring.coreos.com/v1alpha1",
        "kind": "ScrapeConfig",
        "metadata": metadata(inputs, f"{instance}-endpoint", instance, labels=_labels(inputs)),
        "spec": {
            "staticConfigs": [{"targets": [address], "labels": {"job": "raymill"}}],
            "metricsPath": "/metrics",
            "scrapeInterval": interval,
            "authorization": {"credentials": {"name": key, "key": "key"}} if key else None,
        },
    }


def _labels(inputs: ManifestInputs) -> dict[str, str]:
    monitoring = inputs.deploy.kubernetes.monitoring
    return dict(monitoring.labels) if monitoring else {}

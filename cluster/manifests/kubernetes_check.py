"""Check the files of a Kubernetes manifest without a cluster: schemas, rules of KubeRay's operator, platform rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cluster.errors import UserError, first_line
from cluster.manifests.checks.custom_resources import API_VERSION, check_custom_resource
from cluster.manifests.checks.monitor_schema import MONITOR_SCHEMAS
from cluster.manifests.checks.operator_rules import check_operator_rules
from cluster.manifests.checks.pod_rules import Pod, check_pod, resource_problems, security_context_problems
from cluster.manifests.checks.references import check_references
from cluster.manifests.documents import Document, parse_yaml
from cluster.manifests.serve_config import check_config

#: Version of Kubernetes whose schemas the core kinds are checked with.
KUBERNETES = "1.34"
# What raymill writes beside KubeRay's kinds. A kind without a schema would pass unread.
_CORE = {"ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "PodDisruptionBudget"}


def check(files: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the YAML files of a manifest, one sentence each."""
    problems: list[str] = []
    documents: list[Document] = []
    for file, text in files.items():
        if not file.endswith((".yaml", ".yml")):
            continue
        try:
            parsed = list(parse_yaml(text))
        except Exception as error:  # of the YAML reader: many classes
            problems.append(f"{file}: it is not YAML: {first_line(error)}")
            continue
        for document in parsed:
            schema_problems = list(_schema_problems(document))
            problems += [f"{file}: {problem}" for problem in schema_problems]
            if not schema_problems:
                documents.append(document)
    if not problems:  # the rules read objects of known forms
        problems = [*_rule_problems(documents)]
    if not documents and not problems:
        problems.append("there is no YAML file with an object")
    return problems


def _schema_problems(document: Any) -> Iterator[str]:
    if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
        yield "a document is no object with metadata"
        return
    api_version, kind = str(document.get("apiVersion")), str(document.get("kind"))
    if api_version.startswith("ray.io/"):
        yield from check_custom_resource(document)
    elif (api_version, kind) in MONITOR_SCHEMAS:
        import jsonschema

        validator = jsonschema.Draft202012Validator(MONITOR_SCHEMAS[api_version, kind])
        for error in validator.iter_errors(document):
            yield f"{kind}.{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
    elif kind in _CORE:
        yield from _core_problems(document, kind)
    else:
        yield f"apiVersion={api_version}, kind={kind}: raymill writes no such object, so nothing checks it"


def _core_problems(document: Document, kind: str) -> Iterator[str]:
    """Yield what Kubernetes' own schema refuses. Without the package `kubernetes-validate` nothing is checked."""
    try:
        import kubernetes_validate
    except ImportError:
        return
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError as error:
        yield f"{kind}: {error.message}"
    except kubernetes_validate.ValidationError as error:
        yield f"{kind}.{'.'.join(map(str, error.path))}: {error.message[:200]}"


def _rule_problems(documents: list[Document]) -> Iterator[str]:
    pods: list[Pod] = []
    for document in documents:
        name = f"{document['kind']} {document['metadata'].get('name')}"
        if document["apiVersion"] == API_VERSION:
            yield from (f"{name}: {problem}" for problem in check_operator_rules(document))
            for cluster in _clusters(document):
                pods += _cluster_pods(name, cluster)
                yield from _autoscaler_problems(name, cluster)
            pods += _submitter_pods(name, document)
            yield from (f"{name}.serveConfigV2: {problem}" for problem in _serve_problems(document))
        elif document["kind"] == "ConfigMap":
            yield from (f"{name}: {problem}" for problem in _spec_problems(document))
    for pod in pods:
        yield from check_pod(pod)
    yield from check_references(documents, pods)


def _clusters(document: Document) -> Iterator[dict[str, Any]]:
    """Yield the `RayClusterSpec` of an object of KubeRay."""
    spec = document["spec"]
    job = spec.get("jobTemplate", {}) if document["kind"] == "RayCronJob" else spec
    cluster = spec if document["kind"] == "RayCluster" else job.get("rayClusterSpec") or spec.get("rayClusterConfig")
    if cluster:
        yield cluster


def _cluster_pods(name: str, cluster: dict[str, Any]) -> Iterator[Pod]:
    yield Pod(f"{name}.headGroupSpec", cluster["headGroupSpec"]["template"], runs_ray=True)
    for group in cluster.get("workerGroupSpecs") or []:
        yield Pod(f"{name}.{group['groupName']}", group["template"], runs_ray=True)


def _submitter_pods(name: str, document: Document) -> Iterator[Pod]:
    spec = document["spec"]
    template = (spec.get("jobTemplate") or spec).get("submitterPodTemplate")
    if template:
        yield Pod(f"{name}.submitterPodTemplate", template, runs_ray=False)


def _autoscaler_problems(name: str, cluster: dict[str, Any]) -> Iterator[str]:
    """Yield the rights and resources of the autoscaler, which is a container of the head without an image of its own."""
    where = f"{name}.autoscalerOptions"
    if cluster.get("enableInTreeAutoscaling"):
        options = cluster.get("autoscalerOptions") or {}
        yield from security_context_problems(where, options.get("securityContext") or {})
        yield from resource_problems(where, options.get("resources") or {})
    if (cluster.get("authOptions") or {}).get("mode") != "token":
        yield f"{name}.authOptions.mode is not token: everybody who reaches the dashboard would run code"


def _serve_problems(document: Document) -> Iterator[str]:
    text = document["spec"].get("serveConfigV2")
    if document["kind"] == "RayService":
        configs = list(parse_yaml(text or ""))
        if len(configs) != 1:
            yield "it is not one YAML document"
        for config in configs:
            yield from check_config(config)


def _spec_problems(document: Document) -> Iterator[str]:
    """Yield what raymill would refuse in the spec that a ConfigMap holds."""
    from trainer.tasks.load_spec import validate_spec

    for key, text in (document.get("data") or {}).items():
        try:
            validate_spec(next(parse_yaml(text), {}))
        except UserError as error:
            yield f"{key}: {error.problem}"

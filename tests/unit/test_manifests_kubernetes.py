"""Manifests for Kubernetes: the examples are what the command writes, and wrong edits are refused."""

import copy
import functools
import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate.utils
import pytest
import yaml

import raymill
from cluster.errors import SpecError
from cluster.manifests.checks.pack_schemas import PACKED, pack
from cluster.manifests.documents import parse_yaml
from cluster.manifests.inputs import build_inputs
from cluster.manifests.kinds import KINDS
from cluster.manifests.kubernetes_groups import pod_size
from cluster.plan import Demand
from support.cluster_examples import EXAMPLES, load_renderer, read_files
from trainer.tasks.load_spec import load_spec

KINDS_HERE = ("kubernetes-storage", "raycluster", "rayjob", "rayservice", "raycronjob")
CRDS = Path(__file__).parents[3] / "shared" / "schemas" / "kuberay"
renderer = load_renderer()
FOLDERS = [folder for folder, (kind, _) in renderer.RENDERED.items() if kind in KINDS_HERE]
GONE = object()
IMAGE = f"registry.example.com/raymill@sha256:{'0' * 64}"


@pytest.fixture(autouse=True, scope="module")
def read_schemas_once():
    """Kubernetes' schemas, 1.5 MB, are read once and not for each object."""
    with pytest.MonkeyPatch.context() as patch:
        utils = kubernetes_validate.utils
        patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
        yield


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_examples_are_what_the_command_writes(folder):
    # `python examples/cluster/render.py` writes them again.
    assert read_files(folder) == renderer.render(folder)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_command_checks_a_folder(folder, tmp_path):
    shutil.copytree(EXAMPLES / folder, tmp_path / "copy")
    kind, _ = renderer.RENDERED[folder]
    assert len(raymill.check_manifest(tmp_path / "copy", kind)) == len(read_files(folder))


@pytest.mark.slow
@pytest.mark.skipif(not CRDS.is_dir(), reason=f"KubeRay's CRDs are not at {CRDS}")
def test_the_packed_schemas_are_those_of_the_crds():
    assert gzip.decompress(pack(CRDS)) == gzip.decompress(PACKED.read_bytes())


JOB = ("rayjob", "rayjob.yaml")
ENDPOINT = ("rayservice-ha", "rayservice.yaml")
NIGHTLY = ("raycronjob", "raycronjob.yaml")
CLUSTER = "spec.rayClusterSpec"
HEAD = f"{CLUSTER}.headGroupSpec.template.spec"
WORKER = f"{CLUSTER}.workerGroupSpecs.0.template.spec"
SERVED = "spec.rayClusterConfig"
RULES = [
    {"policy": "DeleteCluster", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 60}},
    {"policy": "DeleteSelf", "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 10}},
]

# Folder and file, the key to change, its wrong value, and a word of the problem that is found.
WRONG_EDITS = [
    # KubeRay's schema: unknown fields, types, enums, lists with keys
    (JOB, f"{HEAD}.containers.0.ports.0.contianerPort", 1, "contianerPort"),
    (JOB, f"{CLUSTER}.workerGroupSpec", [], "workerGroupSpec"),
    (JOB, f"{CLUSTER}.workerGroupSpecs.0.minReplica", 1, "minReplica"),
    (JOB, f"{CLUSTER}.workerGroupSpecs.0.maxReplicas", "4", "maxReplicas"),
    (JOB, f"{CLUSTER}.authOptions.mode", "tokens", "tokens"),
    (JOB, "spec.backoffLimit", 2**31, "backoffLimit"),
    (JOB, f"{HEAD}.containers.0.env.0.name", "RAY_AUTH_MODE", "occurs twice"),
    (JOB, f"{HEAD}.containers.0.resources.limits.memory", "8 GB", "memory"),
    (JOB, "apiVersion", "ray.io/v2", "ray.io/v1"),
    (JOB, "kind", "RayJobs", "RayJobs"),
    (JOB, f"{CLUSTER}.headGroupSpec", GONE, "headGroupSpec"),
    # KubeRay's rules in CEL
    (JOB, "spec.deletionStrategy", {"onSuccess": {"policy": "DeleteCluster"}}, "BOTH onSuccess and onFailure"),
    (JOB, "spec.deletionStrategy", {"deletionRules": RULES, "onSuccess": {"policy": "DeleteSelf"}}, "legacy policies"),
    (JOB, "spec.deletionStrategy", {"deletionRules": [{"policy": "DeleteSelf", "condition": {}}]}, "JobStatus"),
    (JOB, "spec.managedBy", "argo", "managedBy"),
    # the operator's rules
    (JOB, "metadata.name", "1st-job", "DNS-1035"),
    (JOB, "metadata.name", "a" * 48, "48 characters"),
    (JOB, "spec.deletionStrategy", {"deletionRules": RULES}, "exclude each other"),
    (JOB, "spec.shutdownAfterJobFinishes", False, "ttlSecondsAfterFinished"),
    (JOB, "spec.activeDeadlineSeconds", 0, "activeDeadlineSeconds=0"),
    (JOB, "spec.submissionMode", "Sidecar", "submissionMode=Sidecar"),
    (JOB, "spec.submissionMode", "SidecarMode", "submitterPodTemplate"),
    (JOB, "spec.entrypoint", "cd /storage && raymill run /etc/raymill/run.yaml", "&&"),
    (JOB, "spec.entrypoint", "raymill run 'x", "entrypoint"),
    (JOB, f"{CLUSTER}.rayVersion", "2.51.0", "2.52.0"),
    (JOB, f"{CLUSTER}.rayVersion", GONE, "2.52.0"),
    (JOB, f"{CLUSTER}.authOptions.mode", "disabled", "not token"),
    (JOB, f"{CLUSTER}.workerGroupSpecs.1.minReplicas", 9, "minReplicas=9"),
    (JOB, f"{CLUSTER}.workerGroupSpecs.1.replicas", 7, "replicas=7"),
    (JOB, f"{CLUSTER}.workerGroupSpecs.1.groupName", "train", "occurs twice"),
    (JOB, f"{CLUSTER}.workerGroupSpecs.0.rayStartParams", {"labels": "a=b"}, "rayStartParams.labels"),
    (JOB, f"{CLUSTER}.headGroupSpec.resources", {"CPU": "0"}, "one of the two"),
    (JOB, f"{WORKER}.restartPolicy", "Always", "autoscaler v2"),
    (JOB, f"{CLUSTER}.enableInTreeAutoscaling", False, "no effect"),
    (ENDPOINT, "spec.upgradeStrategy.type", "Rolling", "upgradeStrategy.type=Rolling"),
    (ENDPOINT, "spec.upgradeStrategy.type", "NewClusterWithIncrementalUpgrade", "gatewayClassName"),
    (ENDPOINT, f"{SERVED}.gcsFaultToleranceOptions.redisAddress", GONE, "redisAddress"),
    (ENDPOINT, f"{SERVED}.gcsFaultToleranceOptions.backend", "rocksdb", "redisAddress"),
    (
        ENDPOINT,
        f"{SERVED}.headGroupSpec.template.spec.containers.0.env.0",
        {"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"},
        "RAY_REDIS_ADDRESS",
    ),
    (ENDPOINT, f"{SERVED}.headGroupSpec.rayStartParams.redis-password", "x", "redis-password"),
    (ENDPOINT, "spec.serveConfigV2", "applications: [{name: a, import_path: other.app:build}]", "raymill.deploy:build"),
    (ENDPOINT, "spec.serveConfigV2", "applications: [{nam: a}]", "serveConfigV2"),
    (NIGHTLY, "spec.schedule", "0 25 * * *", "25"),
    (NIGHTLY, "spec.schedule", "0 2 * *", "4 fields"),
    (NIGHTLY, "spec.schedule", "TZ=UTC 0 2 * * *", "timeZone"),
    (NIGHTLY, "spec.timeZone", "Europe/Wien", "Europe/Wien"),
    (NIGHTLY, "spec.concurrencyPolicy", "Forbid", "concurrencyPolicy"),
    (NIGHTLY, "metadata.name", "a" * 37, "37 characters"),
    (NIGHTLY, "spec.jobTemplate.rayClusterSpec.rayVersion", "2.40.0", "2.52.0"),
    # a platform team's rules
    (JOB, f"{WORKER}.containers.0.image", "raymill:latest", "no digest"),
    (JOB, f"{WORKER}.containers.0.resources.limits", GONE, "limits.cpu is missing"),
    (JOB, f"{WORKER}.containers.0.resources.requests.cpu", "64", "over the limit"),
    (JOB, f"{WORKER}.containers.0.resources.requests", {"cpu": "8", "memory": "32Gi"}, "nvidia.com/gpu"),
    (JOB, f"{WORKER}.containers.0.securityContext.readOnlyRootFilesystem", False, "readOnlyRootFilesystem"),
    (JOB, f"{WORKER}.containers.0.securityContext.privileged", True, "privileged"),
    (JOB, f"{WORKER}.containers.0.securityContext.capabilities", {"drop": ["NET_RAW"]}, "drop: [ALL]"),
    (JOB, f"{WORKER}.securityContext.runAsUser", 0, "runAsUser"),
    (JOB, f"{WORKER}.hostNetwork", True, "hostNetwork"),
    (JOB, f"{WORKER}.automountServiceAccountToken", GONE, "automountServiceAccountToken"),
    (JOB, f"{WORKER}.volumes.0", {"name": "tmp", "hostPath": {"path": "/tmp"}}, "hostPath"),
    (JOB, f"{WORKER}.containers.0.volumeMounts.0.mountPath", "/temp", "/tmp is missing"),
    (JOB, f"{WORKER}.containers.0.volumeMounts.0.name", "temp", "the volume temp"),
    (JOB, f"{WORKER}.containers.0.livenessProbe", GONE, "livenessProbe"),
    (JOB, f"{HEAD}.containers.0.env.0", {"name": "AWS_SECRET_ACCESS_KEY", "value": "abc"}, "AWS_SECRET_ACCESS_KEY"),
    (JOB, f"{CLUSTER}.autoscalerOptions.securityContext", GONE, "autoscalerOptions"),
    (JOB, "spec.submitterPodTemplate.spec.containers.0.securityContext", GONE, "submitterPodTemplate"),
    # objects that do not fit together
    (JOB, "metadata.namespace", "other", "2 namespaces"),
    (JOB, f"{HEAD}.volumes.4.configMap.name", "other-spec", "no ConfigMap other-spec"),
    (("rayjob", "network.yaml"), "spec.podSelector.matchLabels", {"app": "x"}, "selects no pod"),
    (("rayjob", "network.yaml"), "spec.podSelector", {}, "every pod of the namespace"),
    (("rayjob", "network.yaml"), "spec.ingres", [], "ingres"),
    (("rayjob", "network.yaml"), "spec.policyTypes", ["ingress"], "ingress"),
    (("rayjob", "disruption.yaml"), "spec", {"maxUnavailable": 1, "selector": {"matchLabels": {}}}, "minAvailable"),
    (("rayjob", "disruption.yaml"), "spec.minAvailabel", 1, "minAvailabel"),
    (("rayjob", "monitoring.yaml"), "spec.podMetricsEndpoints.0.port", "metric", "called metric"),
    (("rayjob", "monitoring.yaml"), "spec.podMetricsEndpoints.0.intervall", "1s", "intervall"),
    (("rayjob", "monitoring.yaml"), "spec.podMetricsEndpoints.0.interval", "15", "interval"),
    (("kubernetes-storage", "storage.yaml"), "spec.accessModes", "ReadWriteMany", "accessModes"),
    (("kubernetes-storage", "storage.yaml"), "spec.resources.request", {}, "request"),
    (("kubernetes-storage", "storage.yaml"), "kind", "StatefulSet", "StatefulSet"),
    (("rayjob", "config.yaml"), "data", {"run.yaml": "name: x\ndata: {train: a.csv}\ntrain: {epoch: 1}\n"}, "epoch"),
    (("rayservice-ha", "monitoring.yaml"), "metadata.name", "support-tickets-worker", "occurs twice"),
]


def change(document, path, value):
    """Set or remove what a dotted path names in a document; numbers are indexes."""
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        document = document[part]
    if value is GONE:
        del document[last]
    else:
        document[last] = copy.deepcopy(value)


@pytest.mark.parametrize(("where", "path", "value", "word"), WRONG_EDITS)
def test_a_wrong_edit_is_refused(where, path, value, word):
    folder, file = where
    files = read_files(folder)
    documents = list(parse_yaml(files[file]))
    change(documents[0], path, value)
    files[file] = yaml.dump_all(documents, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    kind, _ = renderer.RENDERED[folder]
    problems = KINDS[kind].check(files)
    assert any(word in problem for problem in problems), problems


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "kind: RayJob"])
def test_a_file_that_is_no_object_is_refused(text):
    assert KINDS["rayjob"].check({"a.yaml": text})


def render(kind, *overrides, ha=False, spec=None):
    """Return the parsed documents of a kind by name of the file's object: (kind, name) -> document."""
    files = raymill.manifest(spec or renderer.SPEC, kind, overrides=overrides, ha=ha)
    documents = [document for text in files.values() for document in parse_yaml(text)]
    return {document["kind"]: document for document in documents}


def groups_of(cluster):
    return {group["groupName"]: group for group in cluster["workerGroupSpecs"]}


def test_an_elastic_training_gets_spot_pods_beyond_its_minimum():
    cluster = render("rayjob", "cluster.workers=[2,6]")["RayJob"]["spec"]["rayClusterSpec"]
    groups = groups_of(cluster)
    assert (groups["train"]["minReplicas"], groups["train"]["maxReplicas"]) == (2, 2)
    assert (groups["spot"]["minReplicas"], groups["spot"]["maxReplicas"]) == (0, 4)
    spot = groups["spot"]["template"]["spec"]
    assert spot["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}
    assert {toleration["key"] for toleration in spot["tolerations"]} == {"nvidia.com/gpu", "spot"}
    assert cluster["enableInTreeAutoscaling"] and cluster["autoscalerOptions"]["version"] == "v2"


def test_pods_have_the_gpus_of_their_type_and_enough_memory():
    group = groups_of(render("rayjob")["RayJob"]["spec"]["rayClusterSpec"])["train"]["template"]["spec"]
    limits = group["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}
    terms = group["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms[0]["matchExpressions"][0]["values"] == ["NVIDIA-L4"]


def test_a_pod_has_the_memory_that_the_plan_knows():
    spec = load_spec(renderer.SPEC)
    inputs = build_inputs(spec, EXAMPLES)
    demand = Demand("train", "workers", 4, 8, 1, "cluster.workers", memory_each=40 << 30)
    assert pod_size(inputs, demand, 1).memory_gb == 59  # (40 GiB + 1 GiB for Ray) / 0.7
    assert pod_size(inputs, demand._replace(memory_each=0), 1).memory_gb == 32  # 4 GiB for each core


@pytest.mark.parametrize(
    ("search", "pods"), [("trials: 100", 4), ("trials: 100, max_concurrent: 10", 10), ("trials: 2", 2)]
)
def test_a_search_gets_pods_for_its_trials(search, pods):
    overrides = ["cluster.workers=1", f"tune={{{search}, space: {{train.epochs: {{choice: [1, 2]}}}}}}"]
    group = groups_of(render("rayjob", *overrides)["RayJob"]["spec"]["rayClusterSpec"])["train"]
    assert group["minReplicas"] == group["maxReplicas"] == pods


def test_workers_that_share_a_gpu_share_a_pod():
    overrides = ["cluster.gpus_per_worker=0.5", "cluster.cpus_per_worker=3", "cluster.workers=4"]
    group = groups_of(render("rayjob", *overrides)["RayJob"]["spec"]["rayClusterSpec"])["train"]
    assert group["maxReplicas"] == 2
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "6"


def test_ha_keeps_the_heads_state_and_spreads_replicas():
    service = render("rayservice", ha=True)["RayService"]["spec"]
    cluster = service["rayClusterConfig"]
    assert cluster["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]["name"] == "redis-password"
    spread = cluster["workerGroupSpecs"][0]["template"]["spec"]["topologySpreadConstraints"]
    assert [constraint["whenUnsatisfiable"] for constraint in spread] == ["DoNotSchedule", "ScheduleAnyway"]
    application = yaml.safe_load(service["serveConfigV2"])["applications"][0]
    assert application["args"]["serve"]["replicas"] == [2, 3]
    assert application["deployments"] == [{"name": "EndpointReplica", "max_replicas_per_node": 1}]
    assert "gcsFaultToleranceOptions" not in render("rayservice")["RayService"]["spec"]["rayClusterConfig"]


def test_ha_with_one_replica_serves_with_two():
    service = render("rayservice", "serve.replicas=1", ha=True)["RayService"]["spec"]
    assert yaml.safe_load(service["serveConfigV2"])["applications"][0]["args"]["serve"]["replicas"] == 2
    assert service["rayClusterConfig"]["workerGroupSpecs"][0]["minReplicas"] == 2


def test_the_heads_state_may_be_on_a_volume():
    overrides = ["deploy.kubernetes.head_state={backend: rocksdb}"]
    cluster = render("rayservice", *overrides)["RayService"]["spec"]["rayClusterConfig"]
    assert cluster["gcsFaultToleranceOptions"] == {"backend": "rocksdb", "storage": {"size": "1Gi"}}


def test_a_new_version_may_take_over_in_steps():
    service = render("rayservice", "deploy.kubernetes.gateway_class=istio")["RayService"]["spec"]
    assert service["upgradeStrategy"]["type"] == "NewClusterWithIncrementalUpgrade"
    assert service["upgradeStrategy"]["clusterUpgradeOptions"]["gatewayClassName"] == "istio"


QUEUED = ["cluster.workers=4", "deploy.kubernetes.data_pods=0"]


def test_a_queue_is_named_by_labels():
    kueue = render("rayjob", *QUEUED, "deploy.kubernetes.queue={kueue: gpus}")["RayJob"]["metadata"]["labels"]
    assert kueue["kueue.x-k8s.io/queue-name"] == "gpus"
    volcano = render("raycluster", *QUEUED, "deploy.kubernetes.queue={volcano: gpus}")["RayCluster"]["metadata"][
        "labels"
    ]
    assert volcano["ray.io/scheduler-name"] == "volcano" and volcano["volcano.sh/queue-name"] == "gpus"
    render("raycronjob", *QUEUED, "deploy.kubernetes.queue={kueue: default}")


def test_the_nightly_pipeline_holds_a_lock_and_rolls_out():
    job = render("raycronjob")["RayCronJob"]["spec"]
    assert job["schedule"] == "0 2 * * *" and job["timeZone"] == "UTC"
    entrypoint = job["jobTemplate"]["entrypoint"]
    assert (
        "raymill run /etc/raymill/run.yaml --continue --lock support_tickets --if-changed && raymill rollout"
        in entrypoint
    )
    assert entrypoint.startswith("bash -c '") and entrypoint.endswith("'")


def test_secrets_are_named_and_never_written():
    job = render("rayjob")["RayJob"]["spec"]["rayClusterSpec"]
    head = job["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["envFrom"] == [{"secretRef": {"name": "s3-access"}}]
    assert job["authOptions"] == {"mode": "token", "secretName": "ray-token"}


def test_a_claim_that_exists_is_used_and_not_written():
    files = raymill.manifest(renderer.SPEC, "rayjob", overrides=["deploy.kubernetes.claim=team-storage"])
    assert "claimName: team-storage" in files["rayjob.yaml"]
    with pytest.raises(SpecError, match="team-storage is the storage already"):
        raymill.manifest(renderer.SPEC, "kubernetes-storage", overrides=["deploy.kubernetes.claim=team-storage"])


def test_networks_that_pods_may_reach():
    policy = render("rayjob", "deploy.kubernetes.egress=[10.0.0.0/8]")["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]} in policy["egress"]
    assert "NetworkPolicy" not in render("rayjob", "deploy.kubernetes.network_policy=false")


def test_a_long_name_is_cut_with_a_digest():
    long, other = "a" * 60, "a" * 59 + "b"
    names = {render("raycronjob", f"name={name}")["RayCronJob"]["metadata"]["name"] for name in (long, other)}
    assert len(names) == 2 and all(len(name) == 36 and name.endswith("-nightly") for name in names)


@pytest.mark.parametrize(
    ("kind", "overrides", "problem", "fix"),
    [
        ("rayjob", ["deploy.image=null"], "deploy.image", "build.sh"),
        ("rayjob", ["deploy.image=raymill:1"], "digest", "sha256"),
        ("rayjob", ["deploy.gpu_type=L5"], "L5", "gpu.labels"),
        ("rayjob", ["data.train=/home/me/train.csv"], "/home/me/train.csv", "shared storage"),
        ("rayjob", ["cluster.workers=auto"], "auto", "a number"),
        ("rayjob", ["deploy.kubernetes.queue={kueue: a}"], "autoscaler", "one number"),
        ("rayjob", ["deploy.kubernetes.queue={kueue: a, volcano: b}"], "exactly one", ""),
        ("raycronjob", [*QUEUED, "deploy.kubernetes.queue={kueue: a}"], "RayCronJob", "default"),
        ("raycronjob", ["deploy.kubernetes.token_secret=null"], "token of its own", "token_secret"),
        ("rayservice", ["deploy.kubernetes.api_keys_secret=null", "serve.keys=null", "serve.host=127.0.0.1"], "API keys", "kubectl"),
    ],
)  # fmt: skip
def test_a_spec_without_what_a_kind_needs_is_refused_with_the_fix(kind, overrides, problem, fix):
    with pytest.raises(SpecError) as caught:
        raymill.manifest(renderer.SPEC, kind, overrides=overrides)
    assert problem in caught.value.problem and fix in caught.value.fix


def test_a_small_spec_needs_only_an_image(tmp_path):
    spec = tmp_path / "run.yaml"
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    spec.write_text(
        f"name: tickets\ndata: {{train: train.csv}}\nmodel: {{base: org/name}}\ndeploy: {{image: '{IMAGE}'}}\n"
    )
    documents = render("rayjob", spec=spec)
    remote = yaml.safe_load(documents["ConfigMap"]["data"]["run.yaml"])
    assert remote["data"]["train"] == "/storage/project/train.csv" and remote["storage"] == "/storage/raymill"
    assert remote["cluster"] == {"address": "auto", "cpus_per_worker": 4} and "deploy" not in remote
    assert "PodMonitor" not in documents


@pytest.mark.slow
def test_the_command_writes_and_checks(tmp_path):
    def manifest(*arguments):
        command = [sys.executable, "-m", "raymill", "manifest", "--kind", "rayjob", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert manifest(renderer.SPEC, "-o", tmp_path).returncode == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == read_files("rayjob")
    assert "5 files are valid" in manifest("--check", tmp_path).stdout
    network = tmp_path / "network.yaml"
    network.write_text(network.read_text().replace("policyTypes", "policyType"))
    done = manifest("--check", tmp_path)
    assert done.returncode == 2 and "network.yaml" in done.stderr and "policyType" in done.stderr

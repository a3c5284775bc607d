"""An engine that is replaced while requests arrive: every request is answered by one engine, and none fails."""

import asyncio
import shutil
import threading
import time

import httpx
import pytest

from cluster.errors import ModelError
from cluster.files import write_bytes, write_json
from serve.asgi.app import HttpApp
from serve.asgi.auth import ApiKeyAuth
from serve.engines import engine_store
from serve.engines.choose import optimize_engine
from serve.engines.selection import awaited_engine, hardware_of
from serve.model.batcher import BatcherClosed
from serve.model.engine_watcher import EngineWatcher
from serve.model.loaded_model import LoadedModel
from serve.model.metrics import ReplicaMetrics
from serve.model.served_model import ServedModel
from serve.model.settings import ReplicaSettings
from serve.replica import Replica
from serve.replica_settings import build_replica_settings
from support.timing import wait_until
from support.tiny_text import make_text_rows
from trainer.spec.serve import ServeSpec

ROWS = [(row[0],) for row in make_text_rows(40, seed=9)]
# Each test thread sends this many requests after the engine was replaced.
MORE = 20


@pytest.fixture(scope="module")
def version(tiny_version, tmp_path_factory):
    """The tiny model in a registry of its own, so that its choices are not those of other tests."""
    folder = tmp_path_factory.mktemp("swap") / "models" / "tiny" / "versions" / "1"
    shutil.copytree(tiny_version.folder, folder)
    return tiny_version._replace(folder=folder)


@pytest.fixture(scope="module")
def choice(version):
    """A stored choice of torch-packed."""
    return optimize_engine(version, ServeSpec(engine="torch-packed"), None, lambda line: None, timing_s=0.05)


@pytest.fixture
def settings(version):
    """The settings of a model that answers with the model itself until a choice is stored."""
    spec = ServeSpec()
    return build_replica_settings([version], spec, [awaited_engine(version, spec, 0.3)]).models[0]


@pytest.fixture
def replaced(settings, choice):
    return settings.model_copy(update={"engine": "torch-packed", "choice": choice})


@pytest.fixture
def metrics():
    return ReplicaMetrics()


@pytest.fixture
def served(settings, metrics):
    model = ServedModel(settings, metrics)
    yield model
    model.close()


def store(settings, choice, **changes):
    """Store a choice where the model's settings expect it; it is removed with the version's folder."""
    content = {**choice, "tolerance": 0.3, **changes}
    path = engine_store.Path(settings.awaited_choice)
    write_json(path, content)
    return path


def compute(served, rows):
    """Submit rows and return the finished job."""
    finished = threading.Event()
    job = served.submit(rows, lambda jobs: finished.set())
    assert finished.wait(60)
    return job


@pytest.mark.slow
def test_no_request_fails_or_mixes_engines_while_the_engine_is_replaced(served, replaced, metrics, monkeypatch):
    format_answers = LoadedModel.format_answers

    def signed(self, scores):
        return [{**answer, "by": self.settings.engine} for answer in format_answers(self, scores)]

    monkeypatch.setattr(LoadedModel, "format_answers", signed)
    jobs, errors = [], []
    is_replaced = threading.Event()

    def client(n_rows):
        left = MORE
        while left:
            left -= is_replaced.is_set()
            try:
                jobs.append(compute(served, ROWS[:n_rows]))
            except Exception as error:
                errors.append(error)

    clients = [threading.Thread(target=client, args=[n_rows]) for n_rows in (1, 3, 40)]
    for thread in clients:
        thread.start()
    wait_until(lambda: len(jobs) > 20, what="requests are answered")
    served.replace_engine(replaced)
    is_replaced.set()
    for thread in clients:
        thread.join(60)
    assert not errors and not [job.error for job in jobs if job.error]
    assert {job.identity["engine"] for job in jobs} == {"native", "torch-packed"}
    for job in jobs:
        assert {answer["by"] for answer in job.answers} == {job.identity["engine"]}
    assert jobs[-1].identity["engine"] == served.identity["engine"] == "torch-packed"
    assert served.waiting == 0 and served.is_alive


def test_a_request_in_flight_is_finished_by_the_engine_before(served, replaced, monkeypatch):
    gate, old = threading.Event(), served.loaded
    own = old.compute
    monkeypatch.setattr(old, "compute", lambda inputs: gate.wait(60) and own(inputs))
    finished = []
    running = served.submit(ROWS[:2], finished.extend)
    queued = served.submit(ROWS[2:5], finished.extend)
    swap = threading.Thread(target=served.replace_engine, args=[replaced])
    swap.start()
    wait_until(lambda: served.identity["engine"] == "torch-packed", what="the new engine is loaded")
    assert compute(served, ROWS[:1]).identity["engine"] == "torch-packed"
    assert swap.is_alive() and served.waiting == 5  # both jobs of the engine before
    gate.set()
    swap.join(60)
    assert finished == [running, queued] and not swap.is_alive() and served.waiting == 0
    assert running.identity["engine"] == queued.identity["engine"] == "native"
    assert all(running.answers) and all(queued.answers)


def test_metrics_go_on_and_show_the_engine_in_use(served, replaced, metrics):
    def samples(name):
        return [line for line in metrics.text().splitlines() if line.startswith(name + "{")]

    served.metrics.count_predictions(compute(served, ROWS[:3]), [["animal"]] * 3)
    names = {line.split("{")[0] for line in metrics.text().splitlines() if not line.startswith("#")}
    assert 'engine="native"' in samples("raymill_model_info")[0]
    served.replace_engine(replaced)
    served.metrics.count_predictions(compute(served, ROWS[:2]), [["animal"]] * 2)
    (info,) = samples("raymill_model_info")
    assert 'engine="torch-packed"' in info and info.endswith(" 1.0")
    assert samples("raymill_inputs_total")[0].endswith(" 5.0")
    assert samples("raymill_batch_inputs_count")[0].endswith(" 2.0")
    assert samples("raymill_queue_inputs")[0].endswith(" 0.0")
    assert {line.split("{")[0] for line in metrics.text().splitlines() if not line.startswith("#")} == names


def test_an_engine_that_fails_its_checks_changes_nothing(served, replaced):
    choice = replaced.choice
    claimed = [{**entry, "largest_move": -1.0} for entry in choice["candidates"]]
    damaged = {**choice, "candidates": claimed, "built": {"other": "digest"}}
    with pytest.raises(ModelError, match="have changed since the engine was measured"):
        served.replace_engine(replaced.model_copy(update={"choice": damaged}))
    assert served.identity["engine"] == "native" and compute(served, ROWS[:1]).identity["engine"] == "native"


def test_a_closed_model_takes_no_request(settings, metrics):
    model = ServedModel(settings, metrics)
    model.close()
    with pytest.raises(BatcherClosed):
        model.submit(ROWS[:1], lambda jobs: None)


def test_answers_name_the_engine_that_computed_them(served, replaced):
    async def page():
        return ""

    def engines():
        app = HttpApp([served], auth=ApiKeyAuth([]), timeout_s=20, metrics_page=page, sends_request_id=True)

        async def send():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
                plain = await client.post("/predict", json={"inputs": ["my dog"]}, headers={"x-request-id": "r-7"})
                tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["my dog"]}
                infer = await client.post("/v2/models/tiny/infer", json={"inputs": [tensor]})
                return plain, infer, await client.get("/readyz")

        plain, infer, ready = asyncio.run(send())
        assert plain.headers["x-request-id"] == "r-7"
        return [plain.json()["model"]["engine"], infer.json()["parameters"]["engine"], ready.json()["model"]["engine"]]

    assert engines() == ["native"] * 3
    served.replace_engine(replaced)
    assert engines() == ["torch-packed"] * 3


# -- the watcher


@pytest.fixture
def watched(served):
    """A watcher of the model and the lines that it reports."""
    lines = []
    watcher = EngineWatcher([served], lambda name, text: lines.append(text), interval_s=0.05)
    yield watcher, lines
    watcher.close()
    engine_store.Path(served.settings.awaited_choice).unlink(missing_ok=True)


@pytest.mark.slow
def test_a_choice_is_taken_over_once_it_is_stored(served, settings, choice, watched):
    _, lines = watched
    # Choices of other endpoints, releases and versions.
    for changes in ({"tolerance": 5}, {"format": engine_store.FORMAT - 1}, {"checkpoint": "of another version"}):
        store(settings, choice, **changes)
        time.sleep(0.2)  # the watcher looks a few times
    assert served.identity["engine"] == "native" and not lines
    store(settings, choice)
    wait_until(lambda: lines, what="the engine is taken over")
    assert served.identity["engine"] == "torch-packed"
    assert lines == ["tiny now answers with the engine torch-packed"]


def test_the_model_itself_may_be_the_choice(served, settings, choice, watched):
    watcher, lines = watched
    before = served.loaded
    store(settings, choice, engine="native")
    wait_until(lambda: lines, what="the choice is read")
    assert served.loaded is before and "stays with the model itself" in lines[0]
    wait_until(lambda: not watcher._thread.is_alive(), what="the watcher ends")


@pytest.mark.parametrize(("built", "engine"), [({}, "torch-packed"), ({"built": {"other": "digest"}}, "native")])
def test_a_replica_that_starts_later_has_the_chosen_engine_if_it_can_be_loaded(settings, choice, built, engine):
    path = store(settings, choice, **built)
    try:
        replica = Replica(ReplicaSettings(models=[settings]), "r1")
        assert [model.identity["engine"] for model in replica.models] == [engine]
        replica.close()
    finally:
        path.unlink()


@pytest.mark.parametrize("content", ['{"engine": "torch-packed"', '{"engine": "torch-packed"}', "[]"])
def test_a_damaged_choice_is_reported_and_the_model_goes_on(served, settings, watched, content, version):
    _, lines = watched
    write_bytes(engine_store.Path(settings.awaited_choice), content.encode())
    wait_until(lambda: lines, what="the damage is reported")
    assert "tiny still answers with native" in lines[0]
    assert compute(served, ROWS[:1]).identity["engine"] == "native"


def test_the_awaited_file_is_the_one_that_the_choice_is_stored_in(settings, version):
    hardware = hardware_of(ServeSpec())
    assert settings.awaited_choice == str(engine_store.choice_path(version, hardware, "auto"))
    assert settings.awaited_tolerance == 0.3

"""The options of a training, each on the tiny model: the loop without Ray."""

import json
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.errors import SpecError, UserError
from support.local_training import train_in_process
from support.tiny_text import tiny_spec
from trainer.data.prepare import prepare as preparing
from trainer.inference.predictor import Predictor
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.targets.classes import Classes
from trainer.tasks import catalog as task_catalog
from trainer.tasks.load_spec import load_spec
from trainer.training.callbacks import EpochCallback
from trainer.training.context import TrainContext
from trainer.training.run import run_training

TRAIN = {"epochs": 2, "batch_size": 8, "learning_rate": 5e-3, "precision": "fp32"}


@pytest.fixture(scope="module")
def spec_of(tiny_base, tiny_data, tmp_path_factory):
    storage = tmp_path_factory.mktemp("storage")

    def make(train=None, **sections):
        train = {**TRAIN, **(train or {})}
        return tiny_spec(tiny_base, tiny_data, storage, train=train, track={"every_steps": 1}, **sections)

    return make


@pytest.fixture(scope="module")
def plain(spec_of, tmp_path_factory):
    return train_in_process(spec_of(), tmp_path_factory.mktemp("plain"))


def test_a_step_of_several_passes_is_the_same_step(spec_of, plain, tmp_path):
    training = train_in_process(spec_of({"micro_batch_size": 3}), tmp_path)
    assert training.losses == pytest.approx(plain.losses, abs=2e-6)


def test_gradient_checkpointing_gives_the_same_steps(spec_of, plain, tmp_path):
    training = train_in_process(spec_of({"gradient_checkpointing": True}), tmp_path)
    assert training.losses == pytest.approx(plain.losses, abs=2e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_learn_the_same(spec_of, plain, tmp_path, precision):
    training = train_in_process(spec_of({"precision": precision}), tmp_path)
    assert training.losses == pytest.approx(plain.losses, abs=0.05)
    assert json.loads((tmp_path / "hardware.json").read_text())["precision"] == precision


def test_metrics_by_step(plain):
    first, last = plain.steps[0], plain.steps[-1]
    assert [line["step"] for line in plain.steps] == list(range(1, len(plain.steps) + 1))
    assert last["loss"] < first["loss"] and last["epoch"] == 2 and last["learning_rate"] < 5e-3
    for name in ("grad_norm", "step_time_s", "rows_per_s", "tokens_per_s", "memory_bytes"):
        assert last[name] > 0
    assert plain.epochs[0]["train_loss"] == pytest.approx(np.average(plain.losses[: len(plain.losses) // 2]), rel=0.05)


def test_freezing_and_layer_rates(spec_of, tiny_base, tmp_path):
    training = train_in_process(spec_of({"freeze": ["bert.embeddings.*"], "layerwise_lr_decay": 0.8}), tmp_path)
    saved, base = load_file(training.best / "model.safetensors"), load_file(tiny_base / "model.safetensors")
    assert torch.equal(saved["bert.embeddings.word_embeddings.weight"], base["embeddings.word_embeddings.weight"])
    name = "encoder.layer.1.output.dense.weight"
    assert not torch.equal(saved[f"bert.{name}"], base[name])


def test_ema_weights_are_saved(spec_of, plain, tmp_path):
    training = train_in_process(spec_of({"ema_decay": 0.9}), tmp_path)
    assert training.losses == plain.losses
    mean, last = (load_file(run.best / "model.safetensors")["classifier.weight"] for run in (training, plain))
    assert not torch.equal(mean, last) and torch.allclose(mean, last, atol=0.02)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("train", [{}, {"ema_decay": 0.9}])
def test_unused_embedding_rows_are_saved_with_the_rest(spec_of, tiny_base, tmp_path, precision, train):
    from transformers import AutoModel

    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    model = AutoModel.from_pretrained(base)
    model.resize_token_embeddings(2000)
    model.save_pretrained(base)
    training = train_in_process(spec_of({"precision": precision, **train}, model={"base": str(base)}), tmp_path / "run")
    saved = load_file(training.best / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    before = load_file(base / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert saved.shape == before.shape and saved.dtype == torch.float32
    assert torch.allclose(saved[-500:], before[-500:], rtol=0.01) and not torch.equal(saved[:256], before[:256])
    assert len(Predictor(training.best, device="cpu", threads=1).predict(["a good apple"])) == 1


@pytest.fixture(scope="module")
def without_pooler(tiny_base, tmp_path_factory):
    """A base model without a pooler's weights, such as many on the hub."""
    folder = tmp_path_factory.mktemp("without") / "base"
    shutil.copytree(tiny_base, folder)
    weights = load_file(folder / "model.safetensors")
    saved = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(saved) == len(weights) - 2
    save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_new_parameters_learn_and_are_saved_beside_lora(spec_of, without_pooler, tmp_path):
    lora = {"rank": 4, "targets": ["query", "value"], "save": "adapter"}
    training = train_in_process(spec_of({"epochs": 3}, model={"base": str(without_pooler), "lora": lora}), tmp_path)
    inputs = [training.prepared.part("validation").inputs(row) for row in range(20)]
    torch.manual_seed(1)
    first = Predictor(training.best).scores(inputs)
    torch.manual_seed(2)
    assert np.array_equal(Predictor(training.best).scores(inputs), first)


def test_lora_needs_a_pre_trained_model(spec_of, tiny_base, tmp_path):
    model = {"base": str(tiny_base), "factory": "my_module:build", "lora": {"rank": 4}}
    with pytest.raises(SpecError, match=r"or `model.factory`"):
        train_in_process(spec_of(model=model), tmp_path)


@pytest.mark.parametrize(("save", "epochs", "loss"), [("merged", 4, 1.0), ("adapter", 20, 0.3)])
def test_lora_learns_beside_the_weights(spec_of, tiny_base, tmp_path, save, epochs, loss):
    """How the weights are saved does not change the training, so only one of them trains for long."""
    lora = {"rank": 8, "targets": ["query", "key", "value", "dense"], "save": save}
    spec = spec_of({"epochs": epochs}, model={"base": str(tiny_base), "lora": lora})
    training = train_in_process(spec, tmp_path)
    assert min(training.losses[-5:]) < loss
    files = {path.name for path in training.best.iterdir()}
    assert ("adapter_model.safetensors" in files) == (save == "adapter")
    assert ("model.safetensors" in files) == (save == "merged")
    ours = Predictor(training.best)
    rows = training.prepared.part("validation")
    scores = ours.scores([rows.inputs(row) for row in range(len(rows))])
    reached = max(training.epochs, key=lambda epoch: epoch["macro_f1"])
    assert Classes().metrics(scores, rows.targets, 15)["log_loss"] == pytest.approx(reached["log_loss"], abs=1e-5)
    weights, base = dict(ours.model.named_parameters()), load_file(tiny_base / "model.safetensors")
    assert torch.equal(weights["bert.embeddings.word_embeddings.weight"], base["embeddings.word_embeddings.weight"])
    query = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(weights[f"bert.{query}"], base[query])


def test_lora_for_unknown_layers_is_an_error(spec_of, tiny_base, tmp_path):
    model = {"base": str(tiny_base), "lora": {"targets": ["nothing"]}}
    with pytest.raises(SpecError, match=r"model.lora.targets=\['nothing'\] matches no layer"):
        train_in_process(spec_of(model=model), tmp_path)


def test_it_ends_after_max_steps(spec_of, tmp_path):
    training = train_in_process(spec_of({"max_steps": 20}), tmp_path)
    assert len(training.steps) == 20 and len(training.epochs) == 1
    assert training.steps[-1]["learning_rate"] < 0.1 * max(line["learning_rate"] for line in training.steps)
    assert training.best is not None


def test_it_ends_when_time_is_up_and_counts_the_time_before_an_interruption(spec_of, tmp_path):
    train = {"epochs": 10_000, "max_time_s": 2, "checkpoint": {"every_steps": 5}}
    started = time.monotonic()
    training = train_in_process(spec_of(train), tmp_path)
    assert 1.5 < time.monotonic() - started < 30
    n_steps = len(training.steps)
    # The resumed training has only the time since the last checkpoint left; without counting, the steps would double.
    again = train_in_process(spec_of(train), tmp_path)
    assert len(again.steps) <= 1.5 * n_steps


def test_class_weights_and_label_smoothing_change_the_loss(spec_of, plain, tmp_path):
    smooth = train_in_process(spec_of({"loss": {"label_smoothing": 0.2}}), tmp_path / "smooth")
    focal = train_in_process(spec_of({"loss": {"kind": "focal"}}), tmp_path / "focal")
    assert smooth.losses[-1] > plain.losses[-1] > focal.losses[-1]
    assert smooth.epochs[-1]["accuracy"] > 0.5 and focal.epochs[-1]["accuracy"] > 0.5


MY_MODEL = '''
from types import SimpleNamespace

import torch
from transformers import AutoConfig, AutoModel


class Mean(torch.nn.Module):
    """The mean of the base's token outputs, and a head."""

    def __init__(self, base, n_outputs):
        super().__init__()
        self.encoder = AutoModel.from_config(AutoConfig.from_pretrained(base))
        self.head = torch.nn.Linear(self.encoder.config.hidden_size, n_outputs)

    def forward(self, input_ids, attention_mask):
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        shown = attention_mask.unsqueeze(-1)
        return SimpleNamespace(logits=self.head((hidden * shown).sum(1) / shown.sum(1)))


def build(base, n_outputs):
    return Mean(base, n_outputs)


def nothing(base, n_outputs):
    return None
'''


def test_a_users_own_model(spec_of, tiny_base, tmp_path, monkeypatch):
    (tmp_path / "my_model_of_test.py").write_text(MY_MODEL)
    monkeypatch.chdir(tmp_path)
    model = {"base": str(tiny_base), "factory": "my_model_of_test:build"}
    training = train_in_process(spec_of({"epochs": 4}, model=model), tmp_path / "run")
    assert training.epochs[-1]["accuracy"] > 0.8
    rows = training.prepared.part("validation")
    inputs = [rows.inputs(row) for row in range(len(rows))]
    before = Predictor(training.best).scores(inputs)
    copy = tmp_path / "elsewhere"
    shutil.copytree(training.best, copy)
    assert np.array_equal(Predictor(copy).scores(inputs), before)
    with pytest.raises(SpecError, match="returned NoneType, not a torch module"):
        train_in_process(spec_of(model={**model, "factory": "my_model_of_test:nothing"}), tmp_path / "nothing")
    (tmp_path / "my_model_of_test.py").write_text(MY_MODEL + "\n# changed\n")
    with pytest.raises(UserError, match="is not the source of my_model_of_test:build that the model was trained with"):
        Predictor(copy)


def test_a_loss_that_is_not_finite_names_step_and_rows(spec_of, tmp_path, monkeypatch):
    (tmp_path / "bad_loss_of_test.py").write_text(
        "import torch\ncalls = []\n"
        "def bad(logits, targets, weights):\n"
        "    calls.append(1)\n"
        "    loss = torch.nn.functional.cross_entropy(logits, targets, reduction='sum')\n"
        "    return loss * (float('nan') if len(calls) == 7 else 1.0)\n"
    )
    monkeypatch.chdir(tmp_path)
    spec = spec_of({"loss": {"function": "bad_loss_of_test:bad"}})
    spec["track"] = {"every_steps": 10}
    with pytest.raises(
        UserError, match=r"the loss is nan at step 7 \(epoch 1\), in the rows (train.csv, row \d+(; )?){8}"
    ):
        train_in_process(spec, tmp_path / "run")


def test_a_run_resumes_in_the_middle_of_an_epoch(spec_of, plain, tmp_path):
    train = {"checkpoint": {"every_steps": 4, "keep": 1}}
    train_in_process(spec_of({**train, "max_steps": 9}), tmp_path)  # the schedule does not end here
    shutil.rmtree(tmp_path / "tensorboard")
    saved = json.loads(next(tmp_path.glob("checkpoints/step-*/state.json")).read_text())["position"]
    assert (saved["step"], saved["epoch"]) == (8, 1)
    training = train_in_process(spec_of(train), tmp_path)
    assert [line["step"] for line in training.steps] == [line["step"] for line in plain.steps]
    assert len(training.epochs) == 2 and [epoch["epoch"] for epoch in training.epochs] == [1, 2]


def test_a_checkpoint_of_another_model_is_an_error(spec_of, tmp_path):
    train_in_process(spec_of({"checkpoint": {"every_steps": 4}, "max_steps": 8}), tmp_path)
    with pytest.raises(UserError, match="checkpoint of step 8 .* another model or spec"):
        train_in_process(spec_of({"freeze": ["bert.*"]}), tmp_path)


class _Member(EpochCallback):
    """A member of a population, which has its own best model. It writes its state after the second epoch."""

    def __init__(self, folder, best):
        self.folder, self.own, self.saved = folder, best, []

    def on_begin(self, state):
        state.best, state.since_best = self.own, 0

    def __call__(self, metrics, save, write_state):
        if save is not None:
            self.saved.append(metrics["epoch"])
        if metrics["epoch"] == 2:
            write_state(self.folder)


@pytest.mark.parametrize(("own", "saved"), [(0.0, [3]), (None, [3]), (2.0, [])])
def test_a_member_that_takes_over_weights_keeps_its_own_best_metric(spec_of, tmp_path, own, saved):
    def train(folder, member, **changes):
        loaded = load_spec(spec_of({"epochs": 3, **changes}))
        prepared = preparing.prepare_rows(loaded, lambda progress: None, tmp_path / "quarantine.parquet")
        folder.mkdir()
        shutil.copytree(tmp_path / "handover", folder, dirs_exist_ok=True)
        task, worker = task_catalog.get_task(loaded.task), WorkerContext(0, 1, "cpu", 1)
        run_training(TrainContext(task, loaded, prepared, worker, member, folder))

    (tmp_path / "handover").mkdir()
    train(tmp_path / "donor", _Member(tmp_path / "handover", None))
    taker = _Member(tmp_path, own)
    train(tmp_path / "taker", taker, learning_rate=1e-12)  # no epoch is better than the donor's second one
    assert taker.saved == saved


def test_a_tasks_own_loop_gets_the_context(tmp_path):
    contexts = []
    task = SimpleNamespace(train=contexts.append)
    context = TrainContext(task, None, None, WorkerContext(0, 1, "cpu", 1), None, tmp_path)
    run_training(context)
    assert contexts == [context]

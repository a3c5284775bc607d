"""The plan's memory: closed formulas against traced passes, what fits, what is refused, and what would fit instead."""

import pytest

from cluster.console import Console
from cluster.errors import ResourceError
from cluster.plan import Node, check_fits
from support.model_headers import BERT_BASE, BERT_LARGE, MINILM, write_bert_headers
from support.tiny_text import tiny_spec
from trainer.data.prepare.prepare import prepare_rows
from trainer.defaults.resolve import resolve_spec
from trainer.pipeline.resources import check_training_fits, list_demands, plan_resources
from trainer.pipeline.run import Run
from trainer.planning.encoder_activations import EncoderOptions, PassSize, encoder_activations
from trainer.planning.encoder_shape import EncoderShape
from trainer.planning.remedies import list_remedies
from trainer.planning.row_facts import RowFacts, facts_of_prepared, facts_of_spec
from trainer.planning.run_memory import run_memory
from trainer.planning.traced_activations import traced_activations
from trainer.planning.training_memory import worker_memory
from trainer.tasks.load_spec import load_spec, override_spec

GIB = 1 << 30
KNOWN = RowFacts(128, 5, rows=10_000, validation_rows=100, used_tokens=4_000)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_bert_headers(tmp_path_factory.mktemp("base"))


def spec(base, **sections):
    train = {"batch_size": 32, "epochs": 3, "learning_rate": 1e-4, "precision": "fp32", **sections.pop("train", {})}
    model = {"base": str(base), **sections.pop("model", {})}
    return load_spec({"name": "a", "data": {"train": "t.csv"}, "model": model, "train": train, **sections})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "rows", "tokens", "sections"),
    [
        (MINILM, 16, 128, {}),
        (MINILM, 3, 400, {}),
        (BERT_BASE, 8, 64, {}),
        (BERT_BASE, 8, 128, {"model": {"lora": {"rank": 16}}}),
        (MINILM, 16, 64, {"train": {"gradient_checkpointing": True}}),
    ],
)
def test_the_closed_formula_gives_what_a_traced_pass_keeps(tmp_path, sizes, rows, tokens, sections):
    # The trace runs transformers' own layers, in which the last one is computed whole; raymill's computes one token.
    run_spec = spec(write_bert_headers(tmp_path, sizes), **sections)
    size = PassSize(rows, tokens)
    traced = traced_activations(run_spec, KNOWN._replace(longest=tokens, used_tokens=None), size, on_gpu=False)
    layers, *rest = sizes
    is_lora, is_checkpointed = "model" in sections, "train" in sections
    options = EncoderOptions(
        checkpointed=is_checkpointed, embeddings_learn=not is_lora, adapter_outputs=6 * 16 if is_lora else 0
    )
    terms = encoder_activations(EncoderShape(layers, *rest, 0.1, 0.1), size, options)
    by_name = {term.name: term.bytes for term in terms}
    saved = sum(term.bytes for term in terms if not term.name.startswith(("gradients of", "one layer")))
    if not is_checkpointed:
        saved += by_name["layers but the last"] // (layers - 1) - by_name["last layer: input, keys and values"]
    assert traced is not None
    assert saved == pytest.approx(traced.activations[0].bytes, rel=0.05)


def test_every_term_has_a_formula_with_values(base):
    memory = worker_memory(spec(base), KNOWN)
    for term in memory.main.terms:
        assert term.name and term.formula
        assert term.values or term.is_base
    assert sum(term.bytes for term in memory.main.terms) == memory.main.bytes
    assert not memory.main.unknown


def test_more_rows_longer_texts_and_larger_models_take_more_and_the_remedies_less(tmp_path, base):
    plain = worker_memory(spec(base), KNOWN).main.bytes
    assert worker_memory(spec(base, train={"batch_size": 64}), KNOWN).main.bytes > plain
    assert worker_memory(spec(base), KNOWN._replace(longest=256)).main.bytes > plain
    assert worker_memory(spec(write_bert_headers(tmp_path, BERT_LARGE)), KNOWN).main.bytes > plain
    assert worker_memory(spec(base, train={"ema_decay": 0.99}), KNOWN).main.bytes > plain
    short = KNOWN._replace(longest=32)  # weights take more than activations
    plain = worker_memory(spec(base), short).main.bytes
    for changes in (
        {"train": {"micro_batch_size": 4}},
        {"train": {"gradient_checkpointing": True}},
        {"model": {"lora": {"rank": 8}}},
        {"train": {"freeze": ["bert.encoder.*"]}},
        {"train": {"checkpoint": {"every_minutes": None}}},
    ):
        assert worker_memory(spec(base, **changes), short).main.bytes < plain


def test_fsdp_divides_weights_gradients_and_moments(base):
    gpus = {"gpus_per_worker": 1, "workers": 4}
    whole = worker_memory(spec(base, cluster=gpus), KNOWN).gpu
    sharded = worker_memory(spec(base, cluster={**gpus, "strategy": "fsdp"}), KNOWN).gpu
    assert sharded.bytes < whole.bytes
    named = {term.name.partition(" / ")[0]: term.bytes for term in sharded.terms}
    assert named["gradients"] == pytest.approx(110e6 * 4 / 4, rel=0.02)


def test_without_rows_the_sum_is_an_upper_bound_and_only_its_certain_part_refuses(base):
    unresolved = load_spec({"name": "a", "data": {"train": "t.csv"}, "model": {"base": str(base)}})
    memory = worker_memory(unresolved, facts_of_spec(unresolved)).main
    assert memory.is_bound
    assert 2 * memory.least_bytes < memory.bytes
    node = Node(8, 0, (memory.least_bytes + memory.bytes) // 2)
    demands = list_demands(unresolved, plan_resources(unresolved, [node]))
    check_fits(demands, [node])
    with pytest.raises(ResourceError, match=r"train does not fit: 1 workers need 1 x .* GB of memory"):
        check_fits(demands, [Node(8, 0, memory.least_bytes - 1)])


@pytest.mark.parametrize("share", [0.95, 0.8, 0.6])
def test_each_remedy_is_only_named_if_it_then_fits(base, share):
    run_spec = spec(base, train={"batch_size": 64})
    memory = run_memory(run_spec, KNOWN)
    nodes = [Node(4, 0, int(share * memory.train.main.bytes))]
    resources = plan_resources(run_spec, nodes)
    demands = list_demands(run_spec, resources, memory=memory)
    demand = next(demand for demand in demands if demand.stage == "train")
    remedies = list_remedies(run_spec, KNOWN, nodes, demand)
    assert any("train.micro_batch_size" in text or "model.lora" in text for text in remedies)
    for text in remedies[:-1]:
        keys = dict(part.split(": ", 1) for part in text.split("`")[1::2])
        values = {key: {"rank": 16} if value.startswith("{") else value for key, value in keys.items()}
        values = {key: int(v) if isinstance(v, str) and v.isdigit() else v == "true" if v == "true" else v
                  for key, v in values.items()}  # fmt: skip
        assert worker_memory(override_spec(run_spec, values), KNOWN).main.bytes <= nodes[0].memory
    assert "use a node with" in remedies[-1]
    with pytest.raises(ResourceError) as caught:
        check_fits(demands, nodes, lambda demand: remedies)
    assert remedies[0] in str(caught.value)


def test_a_gpu_that_is_too_small_names_a_larger_one(tmp_path):
    run_spec = spec(
        write_bert_headers(tmp_path, BERT_LARGE), train={"batch_size": 256, "precision": "bf16"},
        cluster={"gpus_per_worker": 1},
    )  # fmt: skip
    memory = run_memory(run_spec, KNOWN._replace(longest=512))
    nodes = [Node(16, 1, 256 * GIB, "T4", 16 * 10**9)]
    demands = list_demands(run_spec, plan_resources(run_spec, nodes), memory=memory)
    demand = next(demand for demand in demands if demand.stage == "train")
    assert demand.gpu_memory_each > nodes[0].gpu_memory
    remedies = list_remedies(run_spec, KNOWN._replace(longest=512), nodes, demand)
    assert any(text.startswith("use a GPU with") for text in remedies)
    with pytest.raises(ResourceError, match="of GPU memory; the largest GPU has 16.0 GB"):
        check_fits(demands, nodes, lambda demand: remedies)


def test_what_is_not_known_is_said_and_not_refused(tmp_path):
    run_spec = load_spec({"name": "a", "data": {"train": "t.csv"}, "model": {"base": "org/name"}})
    run_spec = run_spec.model_copy(update={"model": run_spec.model.model_copy(update={"base": "org/name"})})
    memory = worker_memory(run_spec, KNOWN).main
    assert "on the hub" in memory.unknown
    check_fits(list_demands(run_spec, plan_resources(run_spec, [Node(2, 0, 4 * GIB)])), [Node(2, 0, 4 * GIB)])


def test_a_table_takes_rows_times_columns_times_copies():
    run_spec = load_spec(
        {"name": "a", "task": "tabular-classification", "data": {"train": "t.csv", "features": {"x": "numeric"}}}
    )
    facts = RowFacts(0, 2, rows=1_000_000, validation_rows=0, columns=100)
    small, large = worker_memory(run_spec, facts).main, worker_memory(run_spec, facts._replace(rows=2_000_000)).main
    base = sum(term.bytes for term in small.terms if not term.values)
    assert large.bytes - base == 2 * (small.bytes - base)


def test_a_run_refuses_by_the_same_sum_before_and_after_its_rows_are_known(tmp_path, tiny_base, tiny_data):
    run_spec = load_spec(tiny_spec(tiny_base, tiny_data, tmp_path / "storage"))
    run = Run(run_spec, Console(), "train")
    with pytest.raises(ResourceError, match="train does not fit"):
        run.size_resources([Node(4, 0, 300_000_000)])
    run.size_resources([Node(4, 0, 4 * GIB)])
    prepared = prepare_rows(run_spec, lambda progress: None, tmp_path / "bad.parquet", with_ray=False)
    resolved = resolve_spec(run_spec, prepared).spec
    needed = worker_memory(resolved, facts_of_prepared(resolved, prepared)).main.bytes
    enough, short = [Node(4, 0, needed)], [Node(4, 0, needed - 1)]
    check_training_fits(resolved, prepared, plan_resources(resolved, enough), enough)
    with pytest.raises(ResourceError, match="train does not fit: 1 workers need 1 x .* MB of memory"):
        check_training_fits(resolved, prepared, plan_resources(resolved, short), short)
    run.size_resources(short)  # what is certain before the rows are known fits
    with pytest.raises(ResourceError, match="train does not fit"):
        run.train(prepared)


def test_an_image_model_is_traced_without_its_weights():
    def memory(size, **options):
        image = {
            "name": "a",
            "task": "image-classification",
            "data": {"train": "t.csv", "image": {"size": size}},
            "model": {
                "config": {"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [16, 32], "layer_type": "basic"}
            },
            "train": {"batch_size": 16, "epochs": 2, "learning_rate": 1e-3, "precision": "fp32"},
        }
        return worker_memory(load_spec(image), KNOWN._replace(longest=0), **options).main

    def activations(estimate):
        return next(term.bytes for term in estimate.terms if term.name.startswith("tensors"))

    assert activations(memory(64)) == pytest.approx(4 * activations(memory(32)), rel=0.05)
    assert "raymill plan" in memory(32, trace=False).unknown  # a run does not wait for it

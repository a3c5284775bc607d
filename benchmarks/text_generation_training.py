"""Compare the training of language models by raymill with trl, with HF Trainer and with nanoGPT's own loop, on CPUs.

    python benchmarks/text_generation_training.py lora --base FOLDER       LoRA on rows of mixed lengths, against trl
    python benchmarks/text_generation_training.py scratch                  10 million weights, against HF Trainer
    python benchmarks/text_generation_training.py scratch --nanogpt FOLDER the same, and nanoGPT's train.py

FOLDER of --base is SmolLM2-135M-Instruct as transformers saves it; --nanogpt names a checkout of karpathy/nanoGPT. Each
side runs in its own process, in turn, with the same threads, and trains the same rows in steps of the same number of
tokens. Tokens per second count the rows' own tokens, never padding, over the steps after the first. trl runs in each of
its configurations for rows of mixed lengths: padded and grouped by length, without padding, and packed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

_STEP_TOKENS = 2048
# nanoGPT's small model: 10.65 million weights in layers.
_SCRATCH = {"layers": 6, "width": 384, "heads": 6, "inner": 1024, "block": 256}
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz .,\n"


def main() -> None:
    options = _options()
    if options.side:
        print("\n" + json.dumps(_SIDES[options.side](options)))
        return
    sides = _sides(options)
    rates: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for side in sides:
                result = _run(options, side, folder)
                rates[side].append(result["tokens_per_s"])
                print(f"{side:14} {result['tokens_per_s']:8.1f} tokens/s  {result.get('note', '')}", flush=True)
    medians = {side: statistics.median(values) for side, values in rates.items()}
    for side, rate in medians.items():
        print(f"{side:14} {rate:8.1f} tokens/s   raymill is {medians[sides[0]] / rate:.2f} times as fast")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["lora", "scratch"])
    parser.add_argument("--base", type=Path)
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sides", nargs="*")
    parser.add_argument("--side")
    parser.add_argument("--folder", type=Path)
    return parser.parse_args()


def _sides(options: argparse.Namespace) -> list[str]:
    if options.sides:
        return list(options.sides)
    if options.what == "lora":
        return ["raymill", "trl-grouped", "trl-flat", "trl-packed"]
    return ["raymill-new", "hf-new", *(["nanogpt"] if options.nanogpt else [])]


def _run(options: argparse.Namespace, side: str, folder: str) -> dict[str, Any]:
    arguments = [options.what, "--side", side, "--folder", folder, "--threads", str(options.threads)]
    arguments += ["--steps", str(options.steps)]
    for name in ("base", "nanogpt"):
        if getattr(options, name):
            arguments += [f"--{name}", str(getattr(options, name))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# -- rows


def _chats(folder: Path) -> Path:
    """Write conversations of 40 to 900 tokens, of which about half are learned; return the file."""
    rng = random.Random(0)
    words = (ROOT / "README.md").read_text("utf-8").split()
    lines = []
    for number in range(240):
        n_words = int(min(150, max(8, rng.lognormvariate(3.6, 0.8))))
        start = rng.randrange(len(words) - 2 * n_words)
        texts = " ".join(words[start : start + n_words]), " ".join(words[start + n_words : start + 2 * n_words])
        roles = ("user", "assistant")
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        messages[0]["content"] += f" {number}"
        lines.append(json.dumps({"messages": messages}))
    path = folder / "chats.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _lora_spec(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "name": "lora",
        "task": "text-generation",
        "data": {"train": str(_chats(options.folder)), "max_length": 4096, "split": {"test": 0.01, "validation": 0.01}},
        "model": {"base": str(options.base), "lora": {"rank": 16, "save": "adapter"}},
        "train": {
            "tokens_per_step": _STEP_TOKENS,
            "max_steps": options.steps,
            "epochs": 50,
            "learning_rate": 1e-3,
            "precision": "fp32",
            "checkpoint": {"every_minutes": None},
        },
        "track": {"every_steps": 1},
        "storage": str(options.folder / "storage"),
    }


def _prepare(spec: Any) -> Any:
    from trainer.data.prepare import prepare

    return prepare.prepare_rows(spec, lambda progress: None, Path(spec.storage) / "quarantine.parquet")


# -- raymill


def _raymill(options: argparse.Namespace) -> dict[str, Any]:
    return _train(options, _lora_spec(options))


def _raymill_new(options: argparse.Namespace) -> dict[str, Any]:
    data = options.folder / "texts.jsonl"
    blocks = _blocks(400)
    data.write_text("\n".join(json.dumps({"text": block}) for block in blocks) + "\n", encoding="utf-8")
    spec = _lora_spec(options)
    spec["data"] = {
        "train": str(data),
        "columns": {"text": "text"},
        "max_length": _SCRATCH["block"],
        "split": {"test": 0.01, "validation": 0.01},
    }
    spec["model"] = {"config": _llama_values(), "tokenizer": {"kind": "characters"}}
    return _train(options, spec)


def _train(options: argparse.Namespace, values: dict[str, Any]) -> dict[str, Any]:
    from trainer.optim.distributed.worker_context import WorkerContext
    from trainer.tasks.catalog import get_task
    from trainer.tasks.load_spec import load_spec
    from trainer.training.callbacks import FunctionCallback
    from trainer.training.context import TrainContext
    from trainer.training.run import run_training

    spec = load_spec(values)
    prepared = _prepare(spec)
    folder = options.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    worker = WorkerContext(0, 1, "cpu", options.threads)
    run_training(TrainContext(get_task(spec.task), spec, prepared, worker, FunctionCallback(lambda *_: None), folder))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][1:]
    tokens = sum(line["tokens_per_s"] * line["step_time_s"] for line in lines)
    share = statistics.median(line["arithmetic_share"] for line in lines)
    note = f"{share:.0%} of the rate of matrix products"
    return {"tokens_per_s": tokens / sum(line["step_time_s"] for line in lines), "note": note}


# -- trl and HF Trainer


def _trl_grouped(options: argparse.Namespace) -> dict[str, Any]:
    return _trl(options, train_sampling_strategy="group_by_length")


def _trl_flat(options: argparse.Namespace) -> dict[str, Any]:
    return _trl(options, padding_free=True, max_length=None)


def _trl_packed(options: argparse.Namespace) -> dict[str, Any]:
    return _trl(options, packing=True, max_length=_STEP_TOKENS, per_device_train_batch_size=1)


def _trl(options: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    import numpy as np
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from trainer.tasks.load_spec import load_spec

    torch.set_num_threads(options.threads)
    rows = _prepare(load_spec(_lora_spec(options))).part("train")
    tokens = [rows.inputs(row) for row in range(len(rows))]
    dataset = Dataset.from_list(
        [
            {"input_ids": np.where(row < 0, ~row, row).tolist(), "labels": np.where(row < 0, -100, row).tolist()}
            for row in tokens
        ]
    )
    per_step = round(_STEP_TOKENS / np.mean([len(row) for row in tokens]))
    values = {
        "output_dir": str(options.folder / "trl"),
        "max_steps": options.steps,
        "per_device_train_batch_size": per_step,
        "max_length": 4096,
        "learning_rate": 1e-3,
        "optim": "adamw_torch_fused",
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1000,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        **changes,
    }
    model = AutoModelForCausalLM.from_pretrained(options.base, dtype=torch.float32)
    timer = _timer()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**values),
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(options.base),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[timer],
    )
    return _time_trainer(trainer, timer)


def _hf_new(options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    torch.set_num_threads(options.threads)
    ids = {character: number for number, character in enumerate(_CHARACTERS)}
    rows = [[ids[character] for character in block] for block in _blocks(400)]
    dataset = Dataset.from_dict({"input_ids": rows, "labels": rows})
    values = _llama_values()
    values.pop("model_type")
    model = LlamaForCausalLM(LlamaConfig(**values, vocab_size=len(_CHARACTERS) + 2))
    arguments = TrainingArguments(
        output_dir=str(options.folder / "hf"),
        max_steps=options.steps,
        per_device_train_batch_size=_STEP_TOKENS // _SCRATCH["block"],
        optim="adamw_torch_fused",
        report_to=[],
        save_strategy="no",
        logging_steps=1000,
        use_cpu=True,
        disable_tqdm=True,
    )
    timer = _timer()
    return _time_trainer(Trainer(model=model, args=arguments, train_dataset=dataset, callbacks=[timer]), timer)


def _timer() -> Any:
    from transformers import TrainerCallback

    class Timer(TrainerCallback):
        """Notes when each step ended."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    return Timer()


def _time_trainer(trainer: Any, timer: Any) -> dict[str, Any]:
    """Train, and count the tokens that are not padding in the batches of each step."""
    counts: list[int] = []
    collate = trainer.data_collator

    def counting(rows: Any) -> Any:
        batch = collate(rows)
        mask = batch.get("attention_mask")
        counts.append(int(batch["input_ids"].numel() if mask is None else mask.sum()))
        return batch

    trainer.data_collator = counting
    trainer.train()
    n_steps = len(timer.ends)
    seconds = timer.ends[-1] - timer.ends[0]
    return {"tokens_per_s": sum(counts[1:n_steps]) / seconds, "note": f"{sum(counts[1:n_steps])} tokens"}


# -- a new model


def _blocks(count: int) -> list[str]:
    """Return random texts of the block's length, less the tokens that begin and end a row."""
    rng = random.Random(0)
    return ["".join(rng.choices(_CHARACTERS, k=_SCRATCH["block"] - 2)) for _ in range(count)]


def _llama_values() -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": _SCRATCH["width"],
        "intermediate_size": _SCRATCH["inner"],
        "num_hidden_layers": _SCRATCH["layers"],
        "num_attention_heads": _SCRATCH["heads"],
        "num_key_value_heads": _SCRATCH["heads"],
        "max_position_embeddings": 2 * _SCRATCH["block"],
        "tie_word_embeddings": True,
    }


def _nanogpt(options: argparse.Namespace) -> dict[str, Any]:
    """Run nanoGPT's train.py in a copy of its folder, on random characters, and read the times that it prints."""
    import numpy as np

    folder = options.folder / "nanogpt"
    shutil.copytree(options.nanogpt, folder, dirs_exist_ok=True)
    data = folder / "data" / "random"
    data.mkdir(parents=True, exist_ok=True)
    ids = np.random.default_rng(0).integers(0, len(_CHARACTERS), 200_000).astype(np.uint16)
    for part in ("train", "val"):
        ids.tofile(data / f"{part}.bin")
    rows = _STEP_TOKENS // _SCRATCH["block"]
    arguments = [
        "--dataset=random", "--device=cpu", "--compile=False", "--eval_iters=1", "--eval_interval=100000",
        "--log_interval=1", f"--block_size={_SCRATCH['block']}", f"--batch_size={rows}", "--dtype=float32",
        f"--n_layer={_SCRATCH['layers']}", f"--n_head={_SCRATCH['heads']}", f"--n_embd={_SCRATCH['width']}",
        "--dropout=0.0", f"--max_iters={options.steps}", "--gradient_accumulation_steps=1",
        f"--out_dir={folder / 'out'}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "train.py", *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, check=True
    )
    times = [float(ms) for ms in re.findall(r"iter \d+: loss [\d.]+, time ([\d.]+)ms", done.stdout)][1:]
    return {"tokens_per_s": 1000.0 * _STEP_TOKENS * len(times) / sum(times)}


_SIDES = {
    "raymill": _raymill,
    "trl-grouped": _trl_grouped,
    "trl-flat": _trl_flat,
    "trl-packed": _trl_packed,
    "raymill-new": _raymill_new,
    "hf-new": _hf_new,
    "nanogpt": _nanogpt,
}


if __name__ == "__main__":
    main()

"""Time small things from start to end, each in a new process: a run, a prediction and an endpoint of a small model.

python benchmarks/small_run.py [--runs 3] [--table FOLDER] [--base MODEL]

A run on a table and a run on texts are each timed as `raymill run` without Ray, as `raymill run` on a Ray of its own, and
as a plain script of scikit-learn or transformers that reads the same files, trains the same model, evaluates it on the
held-out rows and saves it. FOLDER holds train.csv and test.csv with the number to predict in the last column; by default
it is scikit-learn's diabetes data. MODEL is the folder of a text model; by default, a BERT with 2 layers of 64 numbers.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from cluster.ports import free_port

RAYMILL = [sys.executable, "-m", "raymill"]
ON_RAY = ["--set", "cluster.address=local"]
EPOCHS, BATCH, RATE = 2, 16, 1e-3
WORDS = {"fruit": ["apple", "pear", "plum", "cherry"], "tool": ["hammer", "saw", "drill", "axe"]}
FILLER = ["i", "really", "want", "a", "good", "new", "one", "for", "my", "home"]


def main() -> None:
    """Make the data, time everything in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--plain", choices=["table", "text"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        {"table": run_scikit_learn, "text": run_transformers}[arguments.plain](arguments.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = arguments.table or write_diabetes(folder / "table")
        text = write_texts(folder / "text", arguments.base)
        rows = {
            "run, table": [
                ("raymill", [*RAYMILL, "run", write_table_spec(folder, table)]),
                ("raymill on Ray", [*RAYMILL, "run", write_table_spec(folder, table), *ON_RAY]),
                ("scikit-learn", [sys.executable, __file__, "--plain", "table", "--folder", table]),
            ],
            "run, texts": [
                ("raymill", [*RAYMILL, "run", write_text_spec(folder, text)]),
                ("raymill on Ray", [*RAYMILL, "run", write_text_spec(folder, text), *ON_RAY]),
                ("transformers", [sys.executable, __file__, "--plain", "text", "--folder", text]),
            ],
            "predict 2 rows, table": [
                ("raymill", [*RAYMILL, "predict", "table", *predicted(folder, table)]),
                ("raymill on Ray", [*RAYMILL, "predict", "table", *predicted(folder, table), "--address", "local"]),
            ],
            "predict 2 rows, texts": [
                ("raymill", [*RAYMILL, "predict", "text", *predicted(folder, text)]),
                ("raymill on Ray", [*RAYMILL, "predict", "text", *predicted(folder, text), "--address", "local"]),
            ],
        }
        for what, ways in rows.items():
            seconds: dict[str, list[float]] = {name: [] for name, _ in ways}
            for _ in range(arguments.runs):
                for name, command in ways:
                    seconds[name].append(time_command(command, folder))
            for name, times in seconds.items():
                print_times(what, name, times)
        for model, data in (("table", table), ("text", text)):
            for name, options in (("raymill", []), ("raymill on Ray", ["--set", "serve.proxy=python"])):
                times = [time_endpoint(folder, model, data, options) for _ in range(arguments.runs)]
                print_times(f"serve until the first answer, {model}", name, times)


def print_times(what: str, name: str, times: list[float]) -> None:
    """Print one line of the table."""
    print(f"{what:<36} {name:<16} median {statistics.median(times):6.2f} s   min {min(times):6.2f} s", flush=True)


def time_command(command: list[Any], folder: Path) -> float:
    """Return the seconds of a command, without prepared rows of an earlier one. Raises if it fails."""
    subprocess.run(["rm", "-rf", str(folder / "storage" / "prepared")], check=True)
    started = time.perf_counter()
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment(), capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")
    return seconds


def time_endpoint(folder: Path, model: str, data: Path, options: list[str]) -> float:
    """Return the seconds from `raymill serve` to the first prediction. No engine is chosen before."""
    subprocess.run(["rm", "-rf", str(folder / "storage" / "models" / model / "engines")], check=True)
    port = free_port()
    command = [*RAYMILL, "serve", model, "--storage", folder / "storage", "--port", port, *options]
    row = read_rows(data / "test.csv")[1]
    row.popitem()  # the last column is what the model predicts
    body = {"inputs": [row.get("text", row)]}
    started = time.perf_counter()
    server = subprocess.Popen(
        [str(word) for word in command], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        while True:
            try:
                if httpx.post(f"http://127.0.0.1:{port}/predict", json=body, timeout=60).status_code == 200:
                    return time.perf_counter() - started
            except httpx.HTTPError:
                pass
            if server.poll() is not None or time.perf_counter() - started > 300:
                raise SystemExit(f"{command} gave no answer:\n{server.communicate()[0].decode()}")
            time.sleep(0.05)
    finally:
        server.terminate()
        server.wait(60)


def environment() -> dict[str, str]:
    """Return the environment of all commands: raymill's packages are importable and no hub is asked."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "HF_HUB_OFFLINE": "1"}


# -- data and specs


def write_diabetes(folder: Path) -> Path:
    """Write scikit-learn's diabetes data as train.csv and test.csv."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    rows = [[*map(float, row), float(value)] for row, value in zip(data.data, data.target, strict=True)]
    random.Random(0).shuffle(rows)
    header = [*data.feature_names, "progression"]
    folder.mkdir()
    for name, part in (("train", rows[:353]), ("test", rows[353:])):
        write_rows(folder / f"{name}.csv", [header, *part])
    return folder


def write_texts(folder: Path, base: Path | None) -> Path:
    """Write 400 short texts of two classes, and a text model."""
    folder.mkdir()
    rng = random.Random(0)
    for name, count in (("train", 300), ("test", 100)):
        rows = []
        for number in range(count):
            label = rng.choice(sorted(WORDS))
            rows.append([" ".join([*rng.choices(FILLER, k=8), rng.choice(WORDS[label]), str(number)]), label])
        write_rows(folder / f"{name}.csv", [["text", "label"], *rows])
    (folder / "base").symlink_to(base.absolute()) if base else write_base(folder / "base")
    return folder


def write_base(folder: Path) -> None:
    """Write a small BERT with a tokenizer for the words of the texts, in the format of transformers."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILLER, *(word for group in WORDS.values() for word in group)]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    config = BertConfig(vocab_size=len(words), hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=128, max_position_embeddings=64)  # fmt: skip
    BertModel(config).save_pretrained(folder)


def write_table_spec(folder: Path, table: Path) -> Path:
    """Write the spec of a linear model with cross-validation, as examples/diabetes has it."""
    header = next(csv.reader((table / "train.csv").open()))
    return write_spec(folder / "table.yaml", {
        "name": "table", "task": "tabular-regression", "storage": str(folder / "storage"),
        "data": {"train": str(table / "train.csv"), "test": str(table / "test.csv"), "columns": {"value": header[-1]},
                 "features": dict.fromkeys(header[:-1], "numeric")},
        "model": {"kind": "linear_regression"}, "train": {"folds": 5},
    })  # fmt: skip


def write_text_spec(folder: Path, text: Path) -> Path:
    """Write the spec of a text classifier."""
    return write_spec(folder / "text.yaml", {
        "name": "text", "storage": str(folder / "storage"),
        "data": {"train": str(text / "train.csv"), "test": str(text / "test.csv")},
        "model": {"base": str(text / "base")},
        "train": {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": RATE},
    })  # fmt: skip


def write_spec(path: Path, spec: dict[str, Any]) -> Path:
    """Write a spec as JSON, which is YAML too."""
    path.write_text(json.dumps(spec))
    return path


def predicted(folder: Path, data: Path) -> list[Any]:
    """Write the first two held-out rows of `data` to a file; return the arguments of `raymill predict` for it."""
    path = folder / f"two_of_{data.name}.csv"
    path.write_text("".join((data / "test.csv").open().readlines()[:3]))
    return [path, "-o", folder / f"{data.name}.predictions.csv", "--storage", folder / "storage"]


def write_rows(path: Path, rows: list[list[Any]]) -> None:
    """Write rows as csv."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a csv file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# -- the plain scripts


def run_scikit_learn(folder: Path) -> None:
    """Train the same linear model as a user would without raymill: read, cross-validate, fit, evaluate, save."""
    import joblib
    import numpy as np
    from sklearn.linear_model import Ridge
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    parts = [np.array([[float(cell) for cell in row.values()] for row in read_rows(folder / f"{name}.csv")])
             for name in ("train", "test")]  # fmt: skip
    (X, y), (X_test, y_test) = ((part[:, :-1], part[:, -1]) for part in parts)
    model = make_pipeline(StandardScaler(), Ridge())
    scores = cross_val_score(model, X, y, cv=5, scoring="neg_root_mean_squared_error")
    predicted_B = model.fit(X, y).predict(X_test)
    print(-scores.mean(), root_mean_squared_error(y_test, predicted_B), mean_absolute_error(y_test, predicted_B),
          r2_score(y_test, predicted_B))  # fmt: skip
    joblib.dump(model, folder / "model.joblib")


def run_transformers(folder: Path) -> None:
    """Train the same text model as a user would with transformers' Trainer: read, train, evaluate, save."""
    import datasets
    import numpy as np
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    rows = datasets.load_dataset(
        "csv", data_files={name: str(folder / f"{name}.csv") for name in ("train", "test")}, cache_dir=folder / "cache"
    ).class_encode_column("label")
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    encoded = rows.map(lambda batch: tokenizer(batch["text"], truncation=True), batched=True)
    classes = rows["train"].features["label"].num_classes
    model = AutoModelForSequenceClassification.from_pretrained(folder / "base", num_labels=classes)
    arguments = TrainingArguments(folder / "trained", num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH,
                                  learning_rate=RATE, report_to=[], save_strategy="no", use_cpu=True,
                                  disable_tqdm=True)  # fmt: skip
    trainer = Trainer(
        model,
        arguments,
        train_dataset=encoded["train"],
        eval_dataset=encoded["test"],
        processing_class=tokenizer,
        compute_metrics=lambda result: {"accuracy": float(np.mean(result.predictions.argmax(1) == result.label_ids))},
    )
    trainer.train()
    print(trainer.evaluate())
    trainer.save_model(str(folder / "trained"))


if __name__ == "__main__":
    main()

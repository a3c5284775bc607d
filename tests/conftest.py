"""What all tests share: an environment of their own, and small things that are real.

Ray's token, the hub's offline switch and usage statistics are set before anything is imported: a local `ray.init()`
would otherwise write a token into the home folder that changes how every later Ray on the machine starts.
"""

from __future__ import annotations

import csv
import os
import random
import secrets
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
_HOME = Path(tempfile.mkdtemp(prefix="raymill-tests-"))
_TOKEN = _HOME / "ray_token"
_TOKEN.write_text(secrets.token_hex(32))

os.environ.update(
    RAY_AUTH_MODE="token",
    RAY_AUTH_TOKEN_PATH=str(_TOKEN),
    RAY_USAGE_STATS_ENABLED="0",
    HF_HUB_OFFLINE="1",
    HF_HOME=str(_HOME / "hub"),
    TOKENIZERS_PARALLELISM="false",
    COLUMNS="160",
)
os.environ.pop("RAY_ADDRESS", None)
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

WORDS = {
    "fruit": "apple pear plum cherry melon grape peach lemon mango fig".split(),
    "tool": "hammer saw drill wrench pliers chisel file clamp level axe".split(),
    "animal": "cat dog horse cow sheep goat duck hen pig mouse".split(),
}
_FILLER = "i really want a good new one for my home and it is here now so please tell me".split()


def make_rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Return (text, label) rows that a tiny model can learn: each has two words of its class among filler."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        label = sorted(WORDS)[number % len(WORDS)]
        words = rng.choices(_FILLER, k=rng.randint(2, 9)) + rng.choices(WORDS[label], k=2)
        rng.shuffle(words)
        rows.append((" ".join(words) + f" {number}", label))
    return rows


def write_csv(path: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("text", "label")) -> Path:
    """Write rows as csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real BERT of 2 layers and 32 dimensions with a real WordPiece tokenizer, saved as transformers does."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_base")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *_FILLER, *(word for words in WORDS.values() for word in words)]
    vocabulary = {token: place for place, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.csv (240 rows) and test.csv (210 rows)."""
    folder = tmp_path_factory.mktemp("tiny_data")
    write_csv(folder / "train.csv", make_rows(240, seed=1))
    write_csv(folder / "test.csv", make_rows(210, seed=2))
    return folder


def tiny_spec(base: Path, data: Path, storage: Path, **sections: object) -> dict[str, object]:
    """Return a spec that trains in seconds."""
    return {
        "name": "tiny",
        "data": {"train": str(data / "train.csv"), "test": str(data / "test.csv")},
        "model": {"base": str(base)},
        "train": {"epochs": 2, "batch_size": 16, "learning_rate": 5e-3},
        "storage": str(storage),
        **sections,
    }


def write_spec(path: Path, spec: dict[str, object]) -> Path:
    """Write a spec as YAML."""
    path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return path

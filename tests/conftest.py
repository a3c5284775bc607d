"""Fixtures for all tests: an isolated environment, and small models and data that are real.

The environment is set before anything is imported. Without it a local `ray.init()` writes a token into the home folder,
which changes how every later Ray on the machine starts.
"""

from __future__ import annotations

import gc
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.ray_head import RayHead, ray_head
from support.schedule import GroupScheduling, order_for_many_processes
from support.tiny_text import FILLER, WORDS, make_text_rows, tiny_spec, write_csv

if TYPE_CHECKING:
    from trainer.registry.registry import Version

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
    # By default Ray gives its workers a low priority; beside other tests they would hardly run.
    RAY_worker_niceness="0",
    # Let waiting threads sleep. By default they spin, which wastes the core that another test needs.
    OMP_WAIT_POLICY="passive",
)
os.environ.pop("RAY_ADDRESS", None)
# Keep compiled files: the suite starts a thousand Python processes, and each would compile raymill and the tests again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A shell starts background jobs with Ctrl-C ignored, and commands that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect without garbage collection: the imports of all tests make millions of objects that stay.

    A process of pytest-xdist then computes with one thread, so that two processes do not fight for two cores.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        if hasattr(session.config, "workerinput"):
            from threadpoolctl import threadpool_limits

            threadpool_limits(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest if several processes share them."""
    if config.getoption("loadgroup", False):  # a process of `pytest -n 3 --dist loadgroup`
        order_for_many_processes(items)


@pytest.hookimpl(optionalhook=True)  # pytest-xdist may be turned off
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> GroupScheduling | None:
    """Give each group of tests to one process with `--dist loadgroup`."""
    return GroupScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with 2 layers and 32 dimensions and its WordPiece tokenizer, in the format of transformers."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_base")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILLER, *(word for words in WORDS.values() for word in words)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
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
def tiny_version(tiny_base: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A registered version of the tiny model, trained without Ray."""
    from support.local_training import train_in_process
    from trainer.registry import register
    from trainer.runs.result import RunResult
    from trainer.tasks.load_spec import load_spec

    folder = tmp_path_factory.mktemp("tiny_version")
    spec = tiny_spec(tiny_base, tiny_data, folder)
    done = train_in_process(spec, folder / "run")
    assert done.best is not None
    result = RunResult(
        checkpoint=done.best,
        spec=load_spec(spec),
        prepared=done.prepared.folder,
        metrics={},
        history=[],
        folder=folder / "run",
    )
    return register.register_candidate(result, folder)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.csv (240 rows) and test.csv (210 rows)."""
    folder = tmp_path_factory.mktemp("tiny_data")
    write_csv(folder / "train.csv", make_text_rows(240, seed=1))
    write_csv(folder / "test.csv", make_text_rows(210, seed=2))
    return folder


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    """A Ray head for the tests of one file."""
    with ray_head() as head:
        yield head

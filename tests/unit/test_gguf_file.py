"""GGUF files of tiny models: llama.cpp answers them as transformers answers the folder they were made of."""

import json

import numpy as np
import pytest

from cluster.errors import ModelError
from support.llama_cpp import greedy_text, start_llama_cpp
from support.tiny_causal import write_tiny_causal
from trainer.export.gguf_architectures import CausalConfig
from trainer.export.gguf_file import write_gguf
from trainer.export.gguf_vocabulary import read_vocabulary

PROMPTS = [
    "How do I reset",
    "The parcel 12345 arrives",
    "Où est ma commande ? 日本",
    "<|im_start|>user\nHelp<|im_end|>\n",
]
N_TOKENS = 12


def transformers_text(folder, prompt):
    """Return the greedy answer of transformers."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    with torch.no_grad():
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=N_TOKENS, do_sample=False)
    return whole_characters(tokenizer.decode(output[0, ids.shape[1] :].tolist()))


def whole_characters(text):
    """Return a text without halves of characters, which both sides write differently at the end."""
    return text.replace("\ufffd", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_causal(tmp_path_factory.mktemp("model"))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "attention_bias": True}])
def test_llama_cpp_answers_a_file_in_fp32_word_for_word_as_transformers(tmp_path, changes):
    pytest.importorskip("xllamacpp")
    folder = write_tiny_causal(tmp_path / "model", **changes)
    write_gguf(folder, tmp_path / "model.gguf", "f32")
    server = start_llama_cpp(tmp_path / "model.gguf", tmp_path)
    for prompt in PROMPTS:
        assert whole_characters(greedy_text(server, prompt, N_TOKENS)) == transformers_text(folder, prompt), prompt


@pytest.mark.slow
def test_a_qwen2_model_and_the_frequencies_of_llama3_are_written_exactly(tmp_path):
    pytest.importorskip("xllamacpp")
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from support.tiny_causal import write_tiny_tokenizer

    rope = {
        "rope_type": "llama3",
        "rope_theta": 10_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    llama = write_tiny_causal(tmp_path / "llama", rope_parameters=rope)
    qwen = tmp_path / "qwen"
    qwen.mkdir()
    write_tiny_tokenizer(qwen)
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=2,
        initializer_range=0.2,
    )
    Qwen2ForCausalLM(config).eval().save_pretrained(qwen)
    for folder in (llama, qwen):
        path = folder / "model.gguf"
        write_gguf(folder, path, "f32")
        server = start_llama_cpp(path, folder)
        prompt = PROMPTS[1] * 4  # far enough for the frequencies to matter
        assert whole_characters(greedy_text(server, prompt, N_TOKENS)) == transformers_text(folder, prompt), folder


def test_quantized_files_are_smaller_and_their_vectors_exact(folder, tmp_path):
    from gguf import GGUFReader
    from safetensors.numpy import load_file

    sizes = {}
    for precision in ("f32", "f16", "q8_0", "q4_0"):
        path = tmp_path / f"{precision}.gguf"
        write_gguf(folder, path, precision)
        sizes[precision] = path.stat().st_size
    assert sorted(sizes, key=sizes.__getitem__) == ["q4_0", "q8_0", "f16", "f32"]
    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "q4_0.gguf").tensors}
    norm = load_file(folder / "model.safetensors")["model.norm.weight"]
    np.testing.assert_array_equal(tensors["output_norm.weight"].data, norm)
    assert tensors["token_embd.weight"].tensor_type.name == "Q8_0"
    assert tensors["blk.0.ffn_up.weight"].tensor_type.name == "Q4_0"


def test_the_chat_template_and_the_special_tokens_are_in_the_file(folder, tmp_path):
    vocabulary = read_vocabulary(folder, 400)
    assert vocabulary.chat_template == (folder / "chat_template.jinja").read_text()
    assert vocabulary.special_ids == {"bos": 0, "eos": 2, "padding": 0}
    assert not vocabulary.adds_bos and not vocabulary.adds_eos


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "gpt_neox"}, "models of type 'gpt_neox'"),
        ({"hidden_act": "gelu"}, "hidden_act is gelu"),
        ({"mlp_bias": True}, "have biases"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "rope_type is yarn"),
        ({"model_type": "mistral", "sliding_window": 128}, "sliding window of 128"),
    ],
)
def test_what_llama_cpp_computes_in_another_way_is_refused_by_name(folder, changes, reason):
    with pytest.raises(ModelError, match=reason):
        CausalConfig({**json.loads((folder / "config.json").read_text()), **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "normalizer is Lowercase"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "not bytes"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Punctuation"}, {"type": "ByteLevel"}]}},
            "does not split text",
        ),
    ],
)
def test_a_tokenizer_that_llama_cpp_does_not_have_is_refused(tmp_path, changes, reason):
    folder = write_tiny_causal(tmp_path / "model")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ModelError, match=reason):
        write_gguf(folder, tmp_path / "model.gguf", "f32")
    assert list(tmp_path.glob("*.gguf")) == []


def test_a_weight_without_a_name_in_gguf_is_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = write_tiny_causal(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "model.layers.0.extra.weight": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.layers\.0\.extra\.weight"):
        write_gguf(folder, tmp_path / "model.gguf", "f32")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

"""Write a causal model of transformers as a GGUF file, the format of llama.cpp.

The file holds weights, settings, tokenizer and chat template. Tensors are read, quantized and written one by one, so
that memory stays at the size of the largest one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from cluster.errors import ModelError, suggest
from cluster.files import read_json, sync_file
from trainer.export.gguf_architectures import CausalConfig
from trainer.export.gguf_vocabulary import Vocabulary, plain_vocabulary, read_vocabulary

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

#: How weights are stored: 4 or 2 bytes a weight; blocks of 32 weights of 8 or 4 bits with a common scale.
Precision = Literal["f32", "f16", "q8_0", "q4_0"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
# llama.cpp's number of a file in which most tensors have this precision.
_FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7}
# Weights of one block.
_BLOCK = 32
_OUTPUT_TENSORS = ("token_embd.weight", "output.weight")


def write_gguf(
    folder: Path, path: Path, precision: Precision = "q8_0", *, name: str = "", has_plain_vocabulary: bool = False
) -> None:
    """Write the model in `folder`, a transformers folder, into the file `path`, which appears whole or not at all.

    With `has_plain_vocabulary`, the text of a token is its id (`plain_vocabulary`): for engines that are given ids.
    Raises `ModelError` if GGUF cannot hold the model or its tokenizer exactly.
    """
    if precision not in PRECISIONS:
        raise ModelError(f"'{precision}' is no precision of GGUF files", suggest(precision, PRECISIONS))
    gguf = _import_gguf()
    config = CausalConfig(read_json(folder / "config.json"))
    read = plain_vocabulary if has_plain_vocabulary else read_vocabulary
    vocabulary = read(folder, config.vocabulary_size)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        writer = gguf.GGUFWriter(unfinished, config.architecture.name)
        _add_settings(writer, config, name or folder.name, precision)
        _add_vocabulary(writer, vocabulary)
        _write_tensors(writer, config, folder, precision)
        sync_file(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _add_settings(writer: GGUFWriter, config: CausalConfig, name: str, precision: str) -> None:
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[precision])
    writer.add_quantization_version(2)
    for key, value in config.settings().items():
        full = f"{config.architecture.name}.{key}"
        if isinstance(value, str):
            writer.add_string(full, value)
        elif isinstance(value, float):
            writer.add_float32(full, value)
        else:
            writer.add_uint32(full, value)


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    # The format has no empty arrays.
    writer.add_token_merges(vocabulary.merges or [f"{vocabulary.tokens[0]} {vocabulary.tokens[0]}"])
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    add = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "unknown": writer.add_unk_token_id,
        "padding": writer.add_pad_token_id,
    }
    for kind, token in vocabulary.special_ids.items():
        add[kind](token)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def _write_tensors(writer: GGUFWriter, config: CausalConfig, folder: Path, precision: str) -> None:
    """Write the file's header, then all tensors."""
    import gguf

    names = {}
    for name, shape in _shapes(folder).items():
        if name == "lm_head.weight" and _is_tied(folder):
            continue
        names[name] = config.tensor_name(name)
        kind = _storage(names[name], shape, precision)
        size = gguf.quant_shape_to_byte_shape(shape, kind) if kind not in _plain_types() else shape
        dtype = _plain_types().get(kind, np.dtype(np.uint8))
        writer.add_tensor_info(names[name], size, dtype, int(np.prod(size)) * dtype.itemsize, raw_dtype=kind)
    factors = config.rope_factors()
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, values in _tensors(folder, list(names)):
        converted = np.ascontiguousarray(config.convert(name, values))
        writer.write_tensor_data(gguf.quantize(converted, _storage(names[name], values.shape, precision)))
    if factors is not None:
        writer.write_tensor_data(factors)
    writer.close()


def _storage(name: str, shape: tuple[int, ...], precision: str) -> GGMLQuantizationType:
    """Return how a tensor is stored.

    Vectors stay exact, because they are small. Embedding and output layer keep 8 bits in files of 4 bits, as in those of
    llama.cpp: they decide between tokens. Rows that do not fill blocks are stored in 16 bits.
    """
    from gguf import GGMLQuantizationType as Type

    if len(shape) < 2 or precision == "f32":
        return Type.F32
    if precision == "f16" or shape[-1] % _BLOCK:
        return Type.F16
    return Type.Q8_0 if precision == "q8_0" or name in _OUTPUT_TENSORS else Type.Q4_0


def _plain_types() -> dict[GGMLQuantizationType, np.dtype[Any]]:
    from gguf import GGMLQuantizationType as Type

    return {Type.F32: np.dtype(np.float32), Type.F16: np.dtype(np.float16)}


def _is_tied(folder: Path) -> bool:
    return bool(read_json(folder / "config.json").get("tie_word_embeddings"))


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} has no weights in safetensors", "export a folder written by `save_pretrained`")
    return files


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a transformers folder."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in _weight_files(folder):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes


def _tensors(folder: Path, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the tensors called `names`, in this order, as float32."""
    from safetensors import safe_open

    where: dict[str, Path] = {}
    for path in _weight_files(folder):
        with safe_open(path, framework="pt") as file:
            where |= dict.fromkeys(file.keys(), path)
    for name in names:
        with safe_open(where[name], framework="pt") as file:  # numpy has no bf16
            yield name, file.get_tensor(name).float().numpy()


def _import_gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ModelError("GGUF files need the package gguf", "run `pip install 'raymill[gguf]'`") from error
    return gguf

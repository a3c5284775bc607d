"""Tokenizers of new models, made from the training rows: byte-level byte pair encoding, or one token a character.

The same texts in the same order give the same tokenizer, whatever the number of cores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cluster.errors import DataError
from cluster.files import write_json
from trainer.chat.tokenizer import CONFIG_FILE, TOKENIZER_FILE

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: The template of new models whose spec names none.
CHATML = (
    "{%- if tools %}{{ '<|im_start|>tools\n' + (tools | tojson) + '<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' + (message.content or '') }}"
    "{%- for call in message.tool_calls or [] %}"
    "{{ '<tool_call>\n' + ({'name': call.function.name, 'arguments': call.function.arguments} | tojson) + '\n</tool_call>' }}"
    "{%- endfor %}{{ '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
_END, _UNKNOWN = "<|endoftext|>", "<|unknown|>"
# Words of a template that become special tokens, such as <|im_start|>.
_SPECIAL = re.compile(r"<\|[\w-]+\|>")
# No more characters are read: statistics of words do not change any more, and the time grows with them.
_MAX_CHARS = 512 << 20


def write_new_tokenizer(
    folder: Path, texts: Iterable[str], kind: Literal["bpe", "characters"], size: int, template: str | None
) -> None:
    """Write tokenizer.json and tokenizer_config.json. `texts` are the training rows, `size` is for `bpe`.

    The special tokens of `template` become tokens of their own. Raises `DataError` if there is no text.
    """
    special = list(dict.fromkeys([_END, *_SPECIAL.findall(template or "")]))
    tokenizer = _MAKERS[kind](_limited(texts), size, special)
    tokenizer.save(str(folder / TOKENIZER_FILE))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _END,
        "eos_token": _END,
        "pad_token": _END,
        **({"unk_token": _UNKNOWN} if kind == "characters" else {}),
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / CONFIG_FILE, config)


def _make_bpe(texts: Iterator[str], size: int, special: list[str]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _make_characters(texts: Iterator[str], size: int, special: list[str]) -> Tokenizer:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    words = [_UNKNOWN, *special, *sorted(characters)]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in (_UNKNOWN, *special)])
    return tokenizer


_MAKERS = {"bpe": _make_bpe, "characters": _make_characters}


def _limited(texts: Iterable[str]) -> Iterator[str]:
    n_chars = 0
    for text in texts:
        yield text
        n_chars += len(text)
        if n_chars >= _MAX_CHARS:
            return
    if not n_chars:
        raise DataError("no training row has a text to make a tokenizer from", "check `data.columns`")

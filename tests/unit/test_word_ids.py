"""Tokenizing by word gives the same ids as the library, for any text."""

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from trainer.tasks.text.word_ids import WordTokenizer

WORDS = ["the", "a", "of", "1", "card", "##s", "##x", "b", "c", "é", "中", "?", ".", "-", "i", "##i", "##̈", "s", "x"]


def make(max_length=12, normalizer=None, pre_tokenizer=None, added=(), model=models.WordPiece):
    vocabulary = {token: at for at, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(model(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer or normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "[UNK]", "[PAD]"])
    tokenizer.add_tokens(list(added))
    tokenizer.enable_truncation(max_length)
    return tokenizer


TOKENIZERS = [
    make(),
    make(normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
    make(normalizer=normalizers.NFC(), pre_tokenizer=pre_tokenizers.WhitespaceSplit()),
    make(pre_tokenizer=pre_tokenizers.Whitespace(), model=models.WordLevel, max_length=3),
]
PIECES = st.sampled_from(
    [
        "the",
        "cards",
        "card?",
        "[SEP]",
        "x[CLS]y",
        "  ",
        " ",
        "\t",
        "\n",
        "\u00a0",
        "\u2028",
        "\x1c",
        "\u200b",
        "\u0308",
        "İ",
        "ß",
        "ﬁ",
        "中国",
        "é",
        "e\u0301",
        "a" * 130,
        "\x00",
    ]
)
TEXTS = st.lists(
    st.lists(PIECES | st.text(max_size=6), max_size=12).map(" ".join) | st.text(max_size=20), min_size=1, max_size=8
)


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_ids_equal_the_library_for_any_text(tokenizer):
    word_tokenizer = WordTokenizer(tokenizer, tokenizer.truncation["max_length"])
    assert word_tokenizer.is_exact

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(TEXTS)
    def check(texts):
        ids = word_tokenizer.encode_column(pa.array(texts, pa.string()))
        assert ids is not None  # None would mean that the comparison with the library failed
        assert ids.to_pylist() == [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]

    check()


def test_slices_and_many_words():
    tokenizer = make(max_length=64)
    word_tokenizer = WordTokenizer(tokenizer, 64)
    texts = pa.array([f"card {n % 7} of the {'x' * (n % 5)}  ?" for n in range(5000)])
    expected = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts.to_pylist())]
    assert word_tokenizer.encode_column(texts).to_pylist() == expected
    assert word_tokenizer.encode_column(texts[100:200]).to_pylist() == expected[100:200]
    assert word_tokenizer.encode_column(texts[:0]) is None


def test_texts_are_left_to_the_library_if_words_are_not_exact_or_not_faster():
    assert not WordTokenizer(make(added=["the card"]), 12).is_exact
    assert not WordTokenizer(make(pre_tokenizer=pre_tokenizers.ByteLevel()), 12).is_exact
    assert not WordTokenizer(make(normalizer=normalizers.Replace(" ", "_")), 12).is_exact
    assert not WordTokenizer(make(), 2).is_exact
    distinct = pa.array([f"w{n} v{n} u{n}" for n in range(2000)])
    assert WordTokenizer(make(), 12).encode_column(distinct) is None


def test_a_tokenizer_that_differs_is_detected():
    """The library encodes a sample of each block too, which catches rules of a tokenizer that raymill does not know."""
    tokenizer = make()
    word_tokenizer = WordTokenizer(tokenizer, 12)
    tokenizer.post_processor = processors.TemplateProcessing(single="[SEP] $A", special_tokens=[("[SEP]", 3)])
    assert word_tokenizer.encode_column(pa.array(["the card"])) is None
    assert not word_tokenizer.is_exact

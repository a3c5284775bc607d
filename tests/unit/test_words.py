"""Tokenizing by word gives the library's own ids, whatever the text."""

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from trainer.tasks.text.word_ids import WordIds

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


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_equal_to_the_library_for_any_text(tokenizer):
    words = WordIds(tokenizer, tokenizer.truncation["max_length"])
    assert words.suits

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(TEXTS)
    def check(texts):
        found = words.column(pa.array(texts, pa.string()))
        assert found is not None  # or the comparison with the library has failed
        assert found.to_pylist() == [each.ids for each in tokenizer.encode_batch_fast(texts)]

    check()


def test_slices_and_many_words():
    tokenizer = make(max_length=64)
    words = WordIds(tokenizer, 64)
    texts = pa.array([f"card {n % 7} of the {'x' * (n % 5)}  ?" for n in range(5000)])
    expected = [each.ids for each in tokenizer.encode_batch_fast(texts.to_pylist())]
    assert words.column(texts).to_pylist() == expected
    assert words.column(texts[100:200]).to_pylist() == expected[100:200]
    assert words.column(texts[:0]) is None


def test_left_to_the_library_where_it_would_not_be_exact_or_not_faster():
    assert not WordIds(make(added=["the card"]), 12).suits
    assert not WordIds(make(pre_tokenizer=pre_tokenizers.ByteLevel()), 12).suits
    assert not WordIds(make(normalizer=normalizers.Replace(" ", "_")), 12).suits
    assert not WordIds(make(), 2).suits
    different = pa.array([f"w{n} v{n} u{n}" for n in range(2000)])
    assert WordIds(make(), 12).column(different) is None


def test_a_tokenizer_that_differs_is_found_out():
    """The sample of each block that the library encodes too is what catches a rule nobody thought of."""
    tokenizer = make()
    words = WordIds(tokenizer, 12)
    tokenizer.post_processor = processors.TemplateProcessing(single="[SEP] $A", special_tokens=[("[SEP]", 3)])
    assert words.column(pa.array(["the card"])) is None
    assert not words.suits

"""YAML as people write it: every key that takes a text gets the words as they are written, wherever they are written."""

import codecs
import re
import types
from typing import Annotated, Union, get_args, get_origin

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from cluster.errors import SpecError
from trainer.draft.yaml_text import flow_text
from trainer.runs.folder import load_run_spec, save_resolved_spec, save_spec
from trainer.spec.key_types import key_type, split_key
from trainer.spec.overrides import apply_override
from trainer.spec.run import RunSpec
from trainer.spec.spec_file import read_spec_file
from trainer.spec.yaml_reader import dump_yaml, read_yaml
from trainer.tasks.load_spec import load_spec

#: Words without quotes that YAML 1.1, or YAML 1.2's core schema, does not read as texts.
WORDS = [
    *(form for word in ("yes", "no", "on", "off", "true", "false") for form in (word, word.title(), word.upper())),
    *("y", "n", "Y", "N", "~", "null", "Null", "NULL", "=", ".inf", "-.INF", ".nan", ".NaN"),
    *("0", "1", "-999", "2019", "+7", "01", "007", "0o17", "0x1F", "0b11", "1_000", "1_0"),
    *("1.0", "3.", ".5", "-.5", "1e3", "1E-4", "6.02e+23", "1.2.3", "1:30", "12:30:45", "190:20:30.15"),
    *("2026-01-01", "2026-1-1", "2026-01-01 12:00:00", "2026-01-01T12:00:00Z", "2024-13-45"),
]
#: A key of a mapping whose keys the user names, and an index of a list.
NAME, INDEX = "some_name", 0


def keys_below(annotation, path=()):
    """Yield the path and the annotation of every value that a spec may hold, scalars and containers."""
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if origin is Annotated:
        inputs = [getattr(item, "json_schema_input_type", None) for item in arguments[1:]]
        known = next((kind for kind in inputs if kind is not None and repr(kind) != "PydanticUndefined"), arguments[0])
        yield from keys_below(known, path)
    elif origin in (Union, types.UnionType):
        for part in arguments:
            yield from keys_below(part, path)
    else:
        yield path, annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for name, field in annotation.model_fields.items():
                yield from keys_below(Annotated[(field.annotation, "field", *field.metadata)], (*path, name))
        elif origin in (list, tuple):
            yield from keys_below(arguments[0], (*path, INDEX))
        elif origin is dict:
            yield from keys_below(arguments[1], (*path, NAME))


def text_keys():
    """Return the paths of all keys that take a text, with whether they take something else too."""
    kinds = {}
    for path, annotation in keys_below(RunSpec):
        kinds.setdefault(path, []).append(annotation)
    paths = {path for path, annotations in kinds.items() if str in annotations}
    return {path: {kind for kind in kinds[path] if kind is not str} for path in sorted(paths, key=str)}


TEXT_KEYS = text_keys()


def document(path, scalar):
    """Return YAML in which `scalar` stands, as it is, at a path."""
    text = scalar
    for part in reversed(path):
        text = f"[{text}]" if isinstance(part, int) else f"{{{part}: {text}}}"
    return text


def value_at(value, path):
    for part in path:
        value = value[part]
    return value


def test_the_keys_with_texts_are_the_ones_of_the_spec():
    assert len(TEXT_KEYS) > 30
    for key in [
        ("data", "labels", INDEX),
        ("data", "columns", NAME),
        ("data", "features", NAME, "categories", INDEX),
        ("data", "features", NAME, "missing_words", INDEX),
        ("data", "features", NAME, "true_words", INDEX),
        ("data", "split", "column"),
        ("data", "train"),
        ("data", "steps", INDEX, "redact", "patterns", NAME),
        ("serve", "models", INDEX),
        ("track", "mlflow", "experiment"),
    ]:
        assert key in TEXT_KEYS and "text" in key_type(key).scalars, key


@pytest.mark.slow
@pytest.mark.parametrize("path", TEXT_KEYS, ids=lambda path: ".".join(map(str, path)))
def test_every_word_in_every_key_that_takes_a_text(path):
    others = TEXT_KEYS[path]
    for word in WORDS:
        value = value_at(read_yaml(document(path, word)).value, path)
        if type(None) in others and word in ("~", "null", "Null", "NULL"):
            assert value is None
        else:
            assert value == word and type(value) is str, (path, word, value)
        for quoted in (f'"{word}"', f"'{word}'"):
            assert value_at(read_yaml(document(path, quoted)).value, path) == word
        names = [name for name in path if isinstance(name, str)]
        if not any(isinstance(part, int) for part in path):  # --set names no item of a list
            raw = {}
            apply_override(raw, f"{'.'.join(names)}={word}")
            assert value_at(raw, path) == value


@pytest.mark.parametrize("word", WORDS)
def test_every_word_as_the_key_of_every_mapping(word):
    for mapping in ("data: {columns: {%s: a}}", "data: {features: {%s: numeric}}", "model: {params: {%s: 1}}"):
        value = read_yaml(mapping % word).value
        assert next(iter(next(iter(next(iter(value.values())).values())))) == word


@pytest.mark.parametrize("word", WORDS)
def test_a_search_gives_a_key_the_words_that_the_key_would_get(word):
    text = f"""
space:
  data.tag_separator: {{choice: [{word}, other]}}
  data.columns.label: {{choice: [{word}]}}
  train.epochs: {{choice: [1], when: {{data.tag_separator: {word}}}}}
  train.seed: {{choice: [1], when: {{data.tag_separator: [{word}, other]}}}}
initial_points: [{{data.tag_separator: {word}}}]
"""
    tune = read_yaml(text, ("tune",)).value
    space = tune["space"]
    assert space["data.tag_separator"]["choice"] == [word, "other"] and space["data.columns.label"]["choice"] == [word]
    assert space["train.epochs"]["when"] == {"data.tag_separator": word} == tune["initial_points"][0]
    assert space["train.seed"]["when"] == {"data.tag_separator": [word, "other"]}


def test_more_digits_than_python_reads_as_a_number():
    digits = "9" * 5000
    assert read_yaml(f"name: {digits}\nmodel: {{params: {{a: {digits}}}}}").value["name"] == digits


def test_keys_with_other_types_read_yaml_1_2():
    text = """
train: {epochs: 1_000, seed: 0x1F, learning_rate: 1e-4, max_time_s: .5, deterministic: yes, batch_size: 010}
serve: {insecure: off, port: 0o17500}
model: {dropout: ~, params: {a: yes, b: off, c: 1:30, d: 2026-01-01, e: 1e3, f: null, g: 0x10, h: NO, i: .inf}}
data: {features: {x: {missing: 1_5}, y: {kind: boolean, missing: no}}}
tune: {space: {model.dropout: {choice: [null, .1]}, model.params.a: {choice: [yes, 2]}}}
"""
    value = read_yaml(text).value
    assert value["train"] == {
        "epochs": 1000, "seed": 31, "learning_rate": 1e-4, "max_time_s": 0.5, "deterministic": True, "batch_size": 10,
    }  # fmt: skip
    assert value["serve"] == {"insecure": False, "port": 8000}
    assert value["model"]["dropout"] is None
    assert value["model"]["params"] == {
        "a": True, "b": False, "c": "1:30", "d": "2026-01-01", "e": 1000.0, "f": None, "g": 16, "h": False,
        "i": float("inf"),
    }  # fmt: skip
    assert value["data"]["features"]["x"] == {"missing": 15}
    assert value["tune"]["space"]["model.dropout"]["choice"] == [None, 0.1]
    assert value["tune"]["space"]["model.params.a"]["choice"] == [True, 2]


SPEC = """\
name: 2019
task: tabular-classification
data:
  train: no
  labels: [yes, no, on, 2019, -999, 01, ~, 1:30, 2026-01-01]
  columns: {label: no}
  features:
    on: {kind: categorical, categories: [NO, SE, "null"], missing_words: [-999, null]}
    2019: numeric
    no: {kind: boolean, true_words: [on], false_words: [off], missing: no}
  split: {by: time, column: off, validation_from: 2026-03-01, test_from: 2026-04-01 12:00:00}
model: {kind: logistic_regression, params: {max_iter: 1_000}}
"""


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return path


def check_spec(spec):
    assert spec.name == "2019" and spec.data.columns == {"label": "no"}
    assert spec.data.labels == ["yes", "no", "on", "2019", "-999", "01", "~", "1:30", "2026-01-01"]
    assert list(spec.data.features) == ["on", "2019", "no"]
    assert spec.data.features["on"].categories == ["NO", "SE", "null"]
    assert spec.data.features["on"].missing_words == ["-999", "null"]
    assert spec.data.features["no"].true_words == ["on"] and spec.data.features["no"].missing is False
    assert spec.data.split.test_from == "2026-04-01 12:00:00" and spec.data.split.column == "off"
    assert spec.model.params == {"max_iter": 1000}


def test_a_whole_spec_and_what_is_stored_of_it(written, tmp_path):
    spec = load_spec(written)
    check_spec(spec)
    save_spec(spec, tmp_path / "spec.yaml")
    save_resolved_spec(spec, tmp_path)
    check_spec(load_spec(tmp_path / "spec.yaml"))
    check_spec(load_run_spec(tmp_path))
    # Readers of YAML 1.1 read the stored spec in the same way.
    assert yaml.safe_load((tmp_path / "spec.yaml").read_bytes()) == read_spec_file(tmp_path / "spec.yaml")


@pytest.mark.slow
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(WORDS))
@example("\u00a0")
@example("a\u200b")
def test_every_text_is_stored_so_that_it_reads_back(text):
    spec = {"data": {"labels": [text], "columns": {text: text}}, "model": {"params": {text: text, "list": [text]}}}
    assert read_yaml(dump_yaml(spec)).value == spec == yaml.safe_load(dump_yaml(spec))
    assert read_yaml(flow_text(spec)).value == spec


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.columns.label=#", "#"),
        ("data.columns.label=a: b", "a: b"),
        ("data.columns.label=*", "*"),
        ("data.columns.label=&x", "&x"),
        ("data.columns.label=[x", "[x"),
        ("data.columns.label=- x", "- x"),
        ("data.columns.label=a #b", "a #b"),
        ('data.columns.label="a \\u0062"', "a b"),
        ("data.columns.label='it''s'", "it's"),
        ("data.labels=[yes, no, 01]", ["yes", "no", "01"]),
        ("data.validation=null", None),
        ("data.train=#x", "#x"),
        ("cluster.address=null", None),
        ("storage=~", "~"),
        ("data.features.on={kind: categorical, categories: [NO]}", {"kind": "categorical", "categories": ["NO"]}),
    ],
)
def test_overrides_with_what_yaml_has_signs_for(override, expected):
    raw = {}
    apply_override(raw, override)
    assert value_at(raw, split_key(override.partition("=")[0])) == expected


MESSAGES = [
    ("train: {epochs: 1:30}", "line 4: train.epochs='1:30': must be a whole number; a colon makes it a text"),
    ("train: {learning_rate: '0,5'}", "line 4: train.learning_rate='0,5': must be a number; write 0.5"),
    ("train:\n  epochs: 0x0", "line 5: train.epochs=0x0: "),
    ("train:\n  seed: 1e1000", "line 5: train.seed=1e1000: "),
    ("train: {epochs: }", "line 4: train.epochs is empty: it must be a whole number; write it after the colon"),
    ("train: {deterministic: maybe}", "line 4: train.deterministic='maybe': must be true or false"),
    ("train:", "line 4: train is empty: it must be a section with keys"),
    ("train: yes", "line 4: train='yes': must be a section with keys"),
    (
        "cluster: {workers: many}",
        "line 4: cluster.workers='many': must be a whole number, or must be a list; write [many]",
    ),
    ("serve: {models: no}", "line 4: serve.models='no': must be a list; write [no]"),
    ("serve: {host: [a]}", "line 4: serve.host=['a']: must be a text, not a list"),
    ("train: {epoch: 1}", "line 4: unknown key 'train.epoch'; did you mean 'epochs'?"),
    ("tune: {trials: 3}", "line 4: 'tune.space' is missing"),
    ("train: {seed: 1, seed: 2}", "key 'seed' is given twice, in lines 4 and 4"),
    ("train:\n  1: 1\n  '1': 2", "key '1' is given twice, in lines 5 and 6"),
    ("train:\n  epochs: 1\n\tseed: 2", "a tab stands there; indent with spaces"),
    ("train:\n\u00a0\u00a0epochs: 1", "U+00A0"),
    ("train: {? [a] : 1}", "a key must be a text"),
    ("train: {epochs: !!int x}", "remove the tag"),
    ("train: !!set {a}", "remove"),
    ("train: !own {a: 1}", "'!own' is not known here"),
    ("train: *nothing", "undefined alias"),
    ("train: &a {epochs: *a}", "an alias stands for a list or mapping that contains the alias"),
    ("train: {epochs: \x07}", "line 4 is not YAML: it has the control character U+0007"),
    ("--- {}", "is not YAML"),
]


@pytest.mark.parametrize(("line", "message"), MESSAGES)
def test_messages_show_the_line_the_words_and_what_to_write(tmp_path, line, message):
    path = tmp_path / "run.yaml"
    path.write_text(f"name: a\ndata: {{train: t.csv}}\nmodel: {{base: b}}\n{line}\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert message in str(caught.value)


def test_messages_about_overrides_and_python_values(tmp_path):
    spec = {"name": "a", "data": {"train": "t.csv"}, "model": {"base": "b"}}
    with pytest.raises(SpecError, match=re.escape("in --set: train.epochs='1:30': must be a whole number")):
        load_spec(spec, ["train.epochs=1:30"])
    with pytest.raises(SpecError, match=re.escape("--set 'data.labels=[yes' is not YAML")):
        load_spec(spec, ["data.labels=[yes"])
    wrong = {**spec, "data": {"train": "t.csv", "labels": [True, 2019]}}
    with pytest.raises(SpecError, match=r'data.labels.0=True: must be a text; put it in quotes: "True"'):
        load_spec(wrong)


@pytest.mark.slow
def test_anchors_aliases_and_merge_keys(tmp_path):
    text = """
data:
  train: a.csv
  labels: &names [no, 01]
  features:
    x: &words {kind: categorical, categories: *names, missing_words: [-999]}
    y: {<<: *words, missing_words: [off]}
    z: {<<: [*words, {lowercase: true}], categories: [2]}
    w: {kind: numeric, <<: {missing_words: [0]}}
"""
    features = read_yaml(text).value["data"]["features"]
    assert features["y"] == {"kind": "categorical", "categories": ["no", "01"], "missing_words": ["off"]}
    assert features["z"] == {
        "kind": "categorical", "categories": ["2"], "missing_words": ["-999"], "lowercase": True,
    }  # fmt: skip
    assert features["w"] == {"kind": "numeric", "missing_words": ["0"]}
    names = zip("abcdefg", "bcdefgh", strict=True)
    bomb = "a: &a [x, x]\n" + "".join(f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n" for below, name in names)
    with pytest.raises(yaml.YAMLError, match="more than 200,000 values"):
        read_yaml(bomb)


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode(),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-16-be"),
        lambda text: text.encode("utf-32"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        lambda text: ("%YAML 1.1\n---\n" + text + "...\n").encode(),
    ],
)
def test_marks_line_ends_and_encodings_of_a_file(tmp_path, encode):
    path = tmp_path / "run.yaml"
    path.write_bytes(encode(SPEC.replace("label: no", "label: größe")))
    assert read_spec_file(path)["data"]["columns"] == {"label": "größe"}
    assert read_spec_file(path)["data"]["labels"][:4] == ["yes", "no", "on", "2019"]


def test_a_file_that_is_no_utf_8_names_the_line_and_the_byte(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes("name: a\ndata: {train: größe.csv}\n".encode("cp1252"))
    with pytest.raises(SpecError, match=r"line 2 is not UTF-8 text: byte 24 of the file is 0xF6"):
        load_spec(path)

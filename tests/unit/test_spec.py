"""The spec: defaults, overrides, and one clear message for every mistake."""

import datetime as dt
from pathlib import Path

import jsonschema
import pytest

from cluster.errors import SpecError
from trainer.spec.run import RunSpec
from trainer.spec.spec_file import read_spec_file
from trainer.tasks.load_spec import load_spec, override_spec

ROOT = Path(__file__).parents[2]
TEN_LINES = """\
name: demo
data:
  train: train.csv
model:
  base: some/model
"""


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_short_spec_has_good_defaults_and_paths_relative_to_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    spec = load_spec(write(tmp_path, TEN_LINES))
    assert spec.data.train == str(tmp_path / "train.csv")
    assert spec.model.base == "some/model"  # a hub id: there is no such folder beside the spec
    assert spec.storage == str(Path("~/.raymill").expanduser())
    assert spec.train.epochs == spec.train.learning_rate == "auto"
    assert spec.tune is None


def test_a_folder_beside_the_spec_is_a_local_base(tmp_path):
    (tmp_path / "some" / "model").mkdir(parents=True)
    assert load_spec(write(tmp_path, TEN_LINES)).model.base == str(tmp_path / "some" / "model")


def test_bases_in_a_search_are_relative_to_the_spec_too(tmp_path):
    spec = load_spec(write(tmp_path, TEN_LINES + "tune: {space: {model.base: {choice: [./a, org/b]}}}\n"))
    assert spec.tune.space["model.base"].choice == [str(tmp_path / "a"), "org/b"]


def test_overrides_are_validated_like_the_file(tmp_path):
    path = write(tmp_path, TEN_LINES)
    spec = load_spec(
        path,
        ["train.epochs=7", "data.columns={text: body}", "tune.space.train.learning_rate={choice: [1e-4, 2e-4]}"],
    )
    assert spec.train.epochs == 7
    assert spec.data.columns == {"text": "body"}
    assert spec.tune.space["train.learning_rate"].choice == [1e-4, 2e-4]
    with pytest.raises(SpecError, match="train.epochs='many'"):
        load_spec(path, ["train.epochs=many"])


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    assert load_spec(write(tmp_path, TEN_LINES + "train: {learning_rate: 3e-4}\n")).train.learning_rate == 3e-4


def test_variables_are_filled_from_the_environment(tmp_path, monkeypatch):
    text = TEN_LINES.replace("train.csv", "${RAYMILL_TEST_DIR}/a.csv")
    monkeypatch.setenv("RAYMILL_TEST_DIR", "/rows")
    assert load_spec(write(tmp_path, text)).data.train == "/rows/a.csv"
    monkeypatch.delenv("RAYMILL_TEST_DIR")
    with pytest.raises(SpecError, match="RAYMILL_TEST_DIR is not set"):
        load_spec(write(tmp_path, text))
    assert load_spec(write(tmp_path, text.replace("_DIR}", "_DIR:-/d}"))).data.train == "/d/a.csv"


def test_the_spec_is_frozen():
    spec = load_spec({"name": "a", "data": {"train": "t.csv"}, "model": {"base": "b"}})
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "b"


def test_a_trials_values_do_not_change_the_base_spec(tmp_path):
    base = load_spec(write(tmp_path, TEN_LINES + "train: {epochs: 2}\n"))
    assert override_spec(base, {"train.epochs": 5}).train.epochs == 5
    assert base.train.epochs == 2


WRONG = [
    ("trian: {epochs: 1}", "unknown key 'trian'; did you mean 'train'?"),
    ("train: {epoch: 1}", "unknown key 'train.epoch'; did you mean 'epochs'?"),
    ("train: {cpus_per_worker: 1}", "unknown key 'train.cpus_per_worker'; write 'cluster.cpus_per_worker'"),
    ("train: {epochs: 0}", "train.epochs=0"),
    ("train: {epochs: two}", "train.epochs='two'"),
    ("train: {learning_rate: -1}", "train.learning_rate=-1"),
    ("train: {precision: fp8}", "train.precision='fp8'"),
    ("train: 3", "train=3"),
    ("evaluate: {metric: f1}", "evaluate.metric='f1'"),
    ("serve: {port: 99999}", "serve.port=99999"),
    ("promote: {alias: Has Space}", "promote.alias='Has Space'"),
    ("cluster: {workers: 64}\ntrain: {batch_size: 32}", "train.batch_size=32 is under cluster.workers=64"),
    ("tune: {space: {}}", "space is empty"),
    ("tune: {trials: 3}", "'tune.space' is missing"),
    ("tune: {space: {train.lr: {choice: [1]}}}", "unknown key 'train.lr'"),
    ("tune: {space: {train.epochs: {choice: [0]}}}", "train.epochs=0"),
    ("tune: {space: {train.epochs: {choose: [1]}}}", "did you mean 'choice'?"),
    ("tune: {space: {train.learning_rate: {uniform: [2, 1]}}}", "must rise"),
    ("tune: {space: {train.learning_rate: {loguniform: [0, 1]}}}", "above 0"),
    ("tune: {space: {train.learning_rate: {uniform: [0.1, 0.2], choice: [1]}}}", "exactly one of"),
    ("tune: {algorithm: grid, space: {train.learning_rate: {uniform: [0.1, 0.2]}}}", "grid needs choice"),
    (
        "tune: {space: {data.max_length: {randint: [10, 20]}}}",
        "every value of tune.space.data.max_length needs its own prepared rows",
    ),
    ("tune: {space: {train.epochs: {uniform: [1, 3]}}}", "train.epochs"),
    ("tune: {space: {model: {choice: [{base: a}]}}}", "single keys"),
    ("train: {seed: -1}", "train.seed=-1"),
    ("promote: {min_value: .nan}", "promote.min_value=.nan"),
    ("promote: {min_improvement: .inf}", "promote.min_improvement=.inf"),
    ("storage: s3://bucket/x", "raymill writes only to folders"),
    ("tune: {space: {serve.port: {choice: [1, 2]}}}", "serve.port cannot be searched"),
    ("tune: {space: {data.train: {choice: [a, b]}}}", "compare trials on different rows"),
]


WRONG_DATA = [
    ("labels: [b, a, b]", "labels names 'b' twice; list each class once"),
    ("steps: ['my steps:clean']", "must be module:function, for example my_steps:clean"),
    (
        "steps: [{redact: {patterns: {Order No: x}}}]",
        "patterns.Order No='Order No': must be lower-case letters, digits and _,",
    ),
    (
        "split: {by: time, column: at, validation_from: 2026, test_from: 2027-01-01}",
        "validation_from: '2026' is not a valid time; write",
    ),
    (
        "split: {by: time, column: at, validation_from: 2026-02-30x, test_from: 2027-01-01}",
        "'2026-02-30x' is not a valid time",
    ),
    (
        "split: {by: time, column: at, validation_from: '2026-02-30', test_from: 2027-01-01}",
        "'2026-02-30' is not a valid time",
    ),
    (
        "split: {by: time, column: at, validation_from: 26-02-03, test_from: 2027-01-01}",
        "'26-02-03' is not a valid time",
    ),
    ("split: {by: time, column: at, validation_from: '', test_from: 2027-01-01}", "'' is not a valid time"),
    ("split: {by: time, column: at, validation_from: true, test_from: 2027-01-01}", "'true' is not a valid time"),
    ("split: {by: time, column: at, validation_from: 2026-03-01}", "belong together"),
    ("split: {by: time, column: at, validation_from: 2026-03-02, test_from: 2026-03-02}", "must be before"),
    (
        "split: {by: time, column: at, validation_from: '2026-03-01T23:30:00-02:00', "
        "test_from: '2026-03-02T01:00:00Z'}",
        "must be before test_from=2026-03-02T01:00:00Z (without a zone they are UTC)",
    ),
]


@pytest.mark.parametrize(("line", "message"), WRONG_DATA)
def test_every_mistake_in_the_data_section_has_its_message(tmp_path, line, message):
    with pytest.raises(SpecError) as caught:
        load_spec(write(tmp_path, TEN_LINES.replace("train.csv", f"train.csv\n  {line}")))
    assert message in str(caught.value)
    assert "63 characters" not in str(caught.value) and "[key]" not in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("2026-03-01", "2026-04-01", ["2026-03-01", "2026-04-01"]),
        ("'2026-03-01'", "2026-04-01 12:00:00", ["2026-03-01", "2026-04-01 12:00:00"]),
        (
            "2026-03-01T12:00:00Z",
            "2026-04-01T12:00:00+02:00",
            ["2026-03-01T12:00:00Z", "2026-04-01T12:00:00+02:00"],
        ),
        (
            "'2026-03-02T01:00+03:00'",
            "'2026-03-01T23:00:00.500Z'",
            ["2026-03-02T01:00+03:00", "2026-03-01T23:00:00.500Z"],
        ),
    ],
)
def test_moments_with_and_without_quotes(tmp_path, first, second, expected):
    split = f"split: {{by: time, column: at, validation_from: {first}, test_from: {second}}}"
    spec = load_spec(write(tmp_path, TEN_LINES.replace("train.csv", f"train.csv\n  {split}")))
    assert [spec.data.split.validation_from, spec.data.split.test_from] == expected
    assert load_spec(spec) == spec
    [kind, _] = RunSpec.model_json_schema()["$defs"]["SplitSpec"]["properties"]["test_from"]["anyOf"]
    assert kind == {"type": "string"}


def test_a_moment_by_override_and_by_a_mapping(tmp_path):
    path = write(tmp_path, TEN_LINES)
    split = ["data.split.by=time", "data.split.column=at"]
    by_override = load_spec(path, [*split, "data.split.validation_from=2026-03-01", "data.split.test_from=2026-04-01"])
    raw = {"by": "time", "column": "at", "validation_from": dt.date(2026, 3, 1), "test_from": dt.datetime(2026, 4, 1)}
    by_mapping = load_spec({"name": "a", "data": {"train": "t.csv", "split": raw}, "model": {"base": "b"}})
    assert by_override.data.split.validation_from == by_mapping.data.split.validation_from == "2026-03-01"
    assert by_mapping.data.split.test_from == "2026-04-01T00:00:00"


def test_rows_are_not_stratified_unless_asked(tmp_path):
    assert load_spec(write(tmp_path, TEN_LINES)).data.split.stratify is False


@pytest.mark.parametrize(("line", "message"), WRONG)
def test_every_mistake_has_its_message(tmp_path, line, message):
    with pytest.raises(SpecError) as caught:
        load_spec(write(tmp_path, TEN_LINES + line + "\n"))
    assert message in str(caught.value)
    assert "fix:" in str(caught.value)


WRONG_FILES = [
    ("", "is empty"),
    ("- a\n- b\n", "not a mapping"),
    ("name: [\n", "is not YAML"),
    ("name: a\nname: b\n", "'name' is given twice"),
    ("name: demo\n", "is missing"),
    ("name: !!int abc\n", "is not YAML"),
    ("name: !!python/object/apply:os.system [true]\n", "is not YAML"),
    (TEN_LINES.replace("name: demo", "name: My Model"), "lower-case letters"),
    (TEN_LINES.replace("name: demo", "name: ../x"), "lower-case letters"),
    (TEN_LINES.replace("train: train.csv", "train: {url: 3}"), "'data.train.query' is missing"),
    (
        TEN_LINES.replace("train: train.csv", "train: a.csv\n  split: {test: 0.5, validation: 0.5}"),
        "leave under a fifth",
    ),
]


@pytest.mark.parametrize(("text", "message"), WRONG_FILES)
def test_every_wrong_file_has_its_message(tmp_path, text, message):
    with pytest.raises(SpecError) as caught:
        load_spec(write(tmp_path, text))
    assert message in str(caught.value)


def test_a_spec_that_is_not_text(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(SpecError, match="not UTF-8"):
        load_spec(path)
    with pytest.raises(SpecError, match="is a folder"):
        load_spec(tmp_path)


@pytest.mark.parametrize("override", ["train.epochs", "=3", "name.x=1"])
def test_wrong_overrides(tmp_path, override):
    with pytest.raises(SpecError, match="--set|cannot be set"):
        load_spec(write(tmp_path, TEN_LINES), [override])


@pytest.mark.slow
def test_every_key_is_documented_and_the_schema_accepts_the_examples(monkeypatch):
    schema = RunSpec.model_json_schema()
    for section in [RunSpec, *(field.annotation for field in RunSpec.model_fields.values())]:
        for key, field in getattr(section, "model_fields", {}).items():
            assert field.description, f"{section.__name__}.{key} has no docstring"
    monkeypatch.setenv("BANKING77_DIR", "/data")
    examples = sorted((ROOT / "examples").glob("*/*.yaml"))
    assert len(examples) >= 2
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for path in examples:
        load_spec(path)
        validator.validate(read_spec_file(path))

"""What `raymill init` sees in single columns: numbers with signs, dates, tags, ids, and YAML for any text."""

import random
import string

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import raymill
from trainer.data.sources.part_names import part_of_name
from trainer.draft.column import describe_column
from trainer.draft.date_text import read_date_form
from trainer.draft.name_hints import is_id_name, name_words, target_hint
from trainer.draft.number_text import read_number_form
from trainer.draft.target import target_kinds
from trainer.draft.yaml_text import write_yaml
from trainer.features.numeric import read_numbers
from trainer.spec.features import NumericSpec
from trainer.spec.spec_file import read_spec_file

RNG = random.Random(3)


def cells(make, count=200):
    """Return {cell: rows} of `count` made cells."""
    counts = {}
    for number in range(count):
        cell = make(number)
        counts[cell] = counts.get(cell, 0) + 1
    return counts


@pytest.mark.parametrize(
    ("cell", "value", "rules"),
    [
        ("1234.5", 1234.5, {}),
        ("1,234.5", 1234.5, {"remove": [","]}),
        ("1,234,567", 1234567.0, {"remove": [","]}),
        ("$3.50", 3.5, {"remove": ["$"]}),
        ("$1,234.50", 1234.5, {"remove": ["$", ","]}),
        ("-$3.50", -3.5, {"remove": ["$"]}),
        ("12 kg", 12.0, {"remove": ["kg"]}),
        ("45%", 45.0, {"remove": ["%"]}),
        ("USD 7", 7.0, {"remove": ["USD"]}),
        ("3,5", 3.5, {"decimal_sign": ","}),
        ("1.234,50 EUR", 1234.5, {"remove": ["EUR", "."], "decimal_sign": ","}),
        ("1 234", 1234.0, {"remove": [" "]}),
    ],
)
def test_numbers_with_signs(cell, value, rules):
    form = read_number_form({cell: 1})
    assert form is not None and form.numbers[cell] == value
    assert {key: found for key, found in form.rules.items() if found} == rules or set(rules) <= set(form.rules)
    assert read_numbers(NumericSpec(**form.rules), [cell]).values.tolist() == [value]


@pytest.mark.parametrize(
    "values",
    [
        ["01067", "10115"],
        ["A12", "A13"],
        ["12 kg", "300 g"],
        ["v1.2", "v1.3"],
        ["2020-01-02", "2020-01-03"],
        ["12th st"],
    ],
)
def test_not_numbers(values):
    assert read_number_form(dict.fromkeys(values, 1)) is None


@settings(deadline=None)
@given(st.floats(-1e6, 1e6).map(lambda number: round(number, 2)), st.sampled_from(["", "$", "€", "%", "kg", "USD"]))
def test_any_number_is_read_back(number, sign):
    text = f"{sign}{number:,.2f}" if sign in ("$", "€", "USD") else f"{number:,.2f}{sign}"
    if number < 0 and sign in ("$", "€", "USD"):
        text = f"-{sign}{-number:,.2f}"
    form = read_number_form({text: 1})
    assert form is not None and form.numbers[text] == number


def test_words_among_numbers_are_missing_values():
    column = describe_column("age", {**cells(lambda i: str(20 + i % 40)), "unknown": 5, None: 3})
    assert column.kind == "number" and column.rules["missing_words"][-1] == "unknown"
    assert "'unknown' in 5 rows" in column.doubts[0].problem


@pytest.mark.parametrize(
    ("cell", "rules"),
    [
        ("2024-05-31", {}),
        ("2024-05-31T12:00:00Z", {}),
        ("31.05.2024", {"format": "%d.%m.%Y"}),
        ("31/05/2024", {"format": "%d/%m/%Y"}),
        ("05/31/2024 14:30", {"format": "%m/%d/%Y %H:%M"}),
        ("31 May 2024", {"format": "%d %b %Y"}),
        ("2024/05/31", {"format": "%Y/%m/%d"}),
    ],
)
def test_dates(cell, rules):
    form = read_date_form({cell: 1})
    assert form is not None and form.rules == rules and form.other_format is None


def test_a_date_whose_day_could_be_the_month_is_a_doubt():
    column = describe_column("day", cells(lambda i: f"{1 + i % 12:02d}/{1 + i % 9:02d}/2024"))
    assert column.kind == "date" and '"%d/%m/%Y"' in column.doubts[0].fix
    assert read_date_form(cells(lambda i: f"{1 + i % 28:02d}/05/2024")).rules == {"format": "%d/%m/%Y"}


@pytest.mark.parametrize(
    ("name", "make", "kind"),
    [
        ("a", lambda i: None, "empty"),
        ("a", lambda i: "EU", "constant"),
        ("a", lambda i: ["yes", "no"][i % 2], "boolean"),
        ("a", lambda i: str(i % 2), "boolean"),
        ("a", lambda i: f"{i / 7:.3f}", "number"),
        ("a", lambda i: str(i), "id"),
        ("user_id", lambda i: str(i * 7919 % 100_003), "id"),
        ("user_id", lambda i: str(1000 + i % 50), "group"),
        ("a", lambda i: f"{i * 2654435761 % 2**32:08x}-x", "id"),
        ("a", lambda i: f"{i % 28 + 1:02d}.05.2024", "date"),
        ("a", lambda i: ["red", "green", "blue"][i % 3], "category"),
        ("a", lambda i: f"the parcel number {i} did not arrive", "text"),
        ("a", lambda i: "|".join(RNG.sample(["a", "b", "c", "d"], 1 + i % 3)), "tags"),
        ("a", lambda i: ["[]", '["a", "b"]', '["b"]', '["a"]', '["a", "b", "c"]', '["c"]'][i % 6], "tags"),
        ("split", lambda i: ["train", "test", "train", "valid"][i % 4], "part"),
        ("zip", lambda i: f"0{1000 + i % 50}", "category"),
    ],
)
def test_kinds_of_columns(name, make, kind):
    assert describe_column(name, cells(make)).kind == kind


@pytest.mark.parametrize(
    ("name", "make", "kinds"),
    [
        ("stars", lambda i: str(1 + i % 5), ("number", "class")),
        ("label", lambda i: str(i % 5), ("class", "number")),
        ("label", lambda i: str(i % 2), ("class", "tags")),
        ("price", lambda i: f"{i * 1.5}", ("number",)),
        ("price", lambda i: f"${i * 1.5}", ()),
        ("note", lambda i: f"a long note about case {i}", ()),
    ],
)
def test_what_a_column_can_be_as_a_target(name, make, kinds):
    assert target_kinds(describe_column(name, cells(make))) == kinds


def test_names():
    assert name_words("customerID") == ["customer", "id"] == name_words("customer_id")
    assert is_id_name("Unnamed: 0") and is_id_name("") and not is_id_name("paid")
    assert target_hint("label") > target_hint("evidence_label") > target_hint("price") > target_hint("age") == 0
    assert [part_of_name(name) for name in ("a_train.csv", "val-0.parquet", "test.csv", "latest.csv")] == [
        "train", "validation", "test", None,
    ]  # fmt: skip


def write_csv(path, names, rows):
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def noted(draft):
    return "\n".join(map(str, draft.unsure))


def test_doubts_about_rows(tmp_path, tiny_base):
    rows = [(f"a text number {i}, in words", ["a", "b"][i % 2], f"2024-01-{i % 28 + 1:02d}") for i in range(200)]
    rows += [rows[0]] * 3 + [
        (rows[1][0], "a", "2024-01-01"),
        ("an odd text", "rare", "2024-01-02"),
        ("", "a", "2024-01-03"),
    ]
    draft = raymill.init(write_csv(tmp_path / "rows.csv", ["text", "label", "sent"], rows), base=str(tiny_base))
    assert "cannot be used: duplicate" in noted(draft) and "contradicting labels" in noted(draft)
    assert "1 of 3 classes have fewer than 2 rows: 'rare'" in noted(draft)
    assert "'sent' holds dates" in noted(draft) and "# split: {by: time, column: sent}" in draft.text
    assert 0.01 < draft.spec.data.max_bad_fraction < 0.1 and draft.spec.data.split.stratify


def test_classes_in_two_spellings(tmp_path):
    rows = [(i / 3, ["yes", "Yes", "no"][i % 3]) for i in range(90)]
    draft = raymill.init(write_csv(tmp_path / "rows.csv", ["x", "label"], rows))
    assert "the classes 'Yes' and 'yes' are nearly the same word" in noted(draft)


def test_copies_of_the_target_and_groups(tmp_path):
    rows = [(f"{i % 40 + 100}", ["red", "blue"][i % 2], ["1", "2"][i % 2], i / 3) for i in range(200)]
    draft = raymill.init(write_csv(tmp_path / "rows.csv", ["patient_id", "label", "label_code", "x"], rows))
    assert list(draft.spec.data.features) == ["x"]
    assert "each of its values goes with one value of 'label'" in noted(draft)
    assert "# split: {by: group, column: patient_id}" in draft.text and "'patient_id' may be in several parts" in noted(
        draft
    )


def test_only_the_start_of_a_large_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.draft.sample.MAX_ROWS", 500)
    path = write_csv(tmp_path / "rows.csv", ["x", "label"], [(i / 3, "ab"[i % 2]) for i in range(20_000)])
    draft = raymill.init(path)
    assert "only the first 500 of about" in noted(draft)
    count = int(noted(draft).split("of about ")[1].split(" ")[0].replace(",", ""))
    assert 10_000 < count < 40_000


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20) | st.sampled_from(
    [
        "1e5",
        "null",
        "yes",
        "no",
        "on",
        "~",
        "#",
        "a: b",
        "- a",
        "'",
        '"',
        "\n",
        "12:30",
        "0x1f",
        "=",
        "{}",
        "[a]",
        "%d.%m",
        "1_0",
    ]
)


@pytest.mark.slow
@given(
    st.dictionaries(TEXTS, TEXTS, max_size=4),
    st.dictionaries(TEXTS, TEXTS | st.floats(allow_nan=False, allow_infinity=False) | st.lists(TEXTS), max_size=4),
    TEXTS,
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_yaml_reads_back(tmp_path, columns, values, comment):
    spec = {"name": "a", "data": {"columns": columns}, "model": {"config": values}}
    keys = {("data", "columns", key): comment + "\nname: b" for key in columns}
    keys |= {("model", "config", key): comment + "\nname: b" for key in values}
    text = write_yaml(spec, keys, header=[comment + "\nname: c"], below={("data",): [comment]})
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    assert read_spec_file(path) == spec == yaml.safe_load(text)


NAMES = st.text(string.printable.replace("\r", "").replace("$", "") + "äß漢", min_size=1, max_size=12)


@pytest.mark.slow
@given(st.lists(NAMES, min_size=3, max_size=5, unique=True), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_names_of_columns(tmp_path, names, seed):
    rng = random.Random(seed)
    words = ["red", "green", "1,5", "a|b", "#", "x: y"]
    rows = [[rng.choice(words[:3]), *(str(rng.gauss(0, 1)) for _ in names[1:])] for _ in range(60)]
    draft = raymill.init(write_csv(tmp_path / "rows.csv", names, rows), target=names[0])
    assert draft.spec.data.columns.get("label", "label") == names[0]
    assert set(draft.spec.data.features) <= set(names[1:])

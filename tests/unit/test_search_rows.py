"""A search says so if its trials are validated on different rows."""

from types import SimpleNamespace

from tune.stage import _warn_of_different_rows


def warnings_for(*variants):
    """Return what is printed for variants with these validation rows by class."""
    texts = []
    console = SimpleNamespace(detail=lambda text, style: texts.append(text))
    prepared = [
        SimpleNamespace(
            summary={
                "rows": {"validation": sum(by_class.values())},
                "rows_by_class": {label: [9, count, 0] for label, count in by_class.items()},
            }
        )
        for by_class in variants
    ]
    _warn_of_different_rows(console, prepared)
    return texts


def test_variants_with_other_validation_rows_are_named():
    assert warnings_for({"a": 3, "b": 2}) == warnings_for({"a": 3, "b": 2}, {"b": 2, "a": 3}) == warnings_for() == []
    assert len(warnings_for({"a": 3, "b": 2}, {"a": 2, "b": 3})) == 1
    (text,) = warnings_for({"a": 3, "b": 2}, {"a": 3, "b": 0})
    assert "different validation rows (3 to 5)" in text

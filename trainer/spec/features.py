"""What a spec may say about the columns of a table: numeric, categorical, boolean, date.

Frozen pydantic sections and nothing else, as in `trainer.spec.run`; how each is fitted and applied is in the module of its
kind. Words that stand for "no value" are compared after white space at the ends is taken off.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from trainer.spec.section import Positive, Section

#: What files and exports write where a number, a date or a yes/no is missing. Compared without regard to case.
MISSING_WORDS = ["", "na", "n/a", "nan", "null", "none"]

#: Parts of a date that come round again, with the number of steps in a round.
CYCLES = {"quarter": 4, "month": 12, "day_of_year": 366, "day": 31, "weekday": 7, "hour": 24, "minute": 60}

DatePart = Literal[
    "elapsed", "year", "quarter", "month", "day_of_year", "day", "weekday", "weekend", "hour", "minute", "second"
]


class Numeric(Section):
    """A column of numbers."""

    kind: Literal["numeric"] = "numeric"
    """Which kind of column this is."""
    scale: Literal["standard", "min_max", "robust", "none"] = "standard"
    """`standard`: mean 0, standard deviation 1; `min_max`: 0 to 1 over the training rows, values outside go beyond;
    `robust`: median 0, distance between the quartiles 1; `none`: as it is. A constant column becomes 0."""
    missing: Literal["mean", "median", "zero", "refuse"] | float = "mean"
    """What stands in for a missing value, before scaling: a number fitted from the rows that have one, 0, a number of
    yours, or `refuse`: such a row is a bad row."""
    indicator: bool = False
    """Add an output that is 1 where the value is missing and 0 elsewhere."""
    missing_words: list[str] = Field(default_factory=lambda: list(MISSING_WORDS))
    """Words that mean a missing value, in any case of letters; one that is a number, as "-999", means that number in
    every spelling. A null and NaN always do."""


class Categorical(Section):
    """A column of names out of a set."""

    kind: Literal["categorical"] = "categorical"
    """Which kind of column this is."""
    encode: Literal["one_hot", "ordinal", "hash", "ids", "hash_ids"] = "one_hot"
    """`one_hot`: an output for each category; `ordinal`: one output, the category's place; `hash`: an output for each
    of `buckets`; `ids` and `hash_ids`: a whole number for an embedding table, apart from the other outputs."""
    unseen: Literal["other", "zero", "refuse"] = "other"
    """A category that the fitted list lacks: `other`: one more category; `zero`: all outputs 0 (`one_hot` only);
    `refuse`: a bad row. Nothing is unseen to a hash."""
    missing: Literal["category", "most_frequent", "refuse"] = "category"
    """A missing value is a category of its own, counts as the most frequent one, or makes a bad row."""
    categories: list[Annotated[str, Field(min_length=1)]] | None = None
    """The categories in their order, as [small, medium, large]. Default: those of the training rows, by their text."""
    max_categories: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """Only so many of the most frequent categories are kept; the others are unseen."""
    min_count: Positive = 1
    """A category of fewer training rows is unseen. With 2 or more, `other` has rows to be learned from."""
    buckets: Annotated[int, Field(ge=2, le=65_536)] = 64
    """How many buckets the hash has."""
    whitespace: Literal["trim", "keep"] = "trim"
    """`trim`: white space at the ends is taken off and runs of it become one space, so that 'New  York ' is 'New York'."""
    lowercase: bool = False
    """Whether 'DE' and 'de' are one category."""
    missing_words: list[str] = Field(default_factory=lambda: [""])
    """Words that mean a missing value. 'NA' is none of them by default: it may be Namibia."""

    @model_validator(mode="after")
    def _fits_together(self) -> Categorical:
        if self.unseen == "zero" and self.encode != "one_hot":
            raise ValueError(f"unseen: zero needs encode: one_hot; {self.encode} has no such value, use other")
        if self.categories is not None and self.is_hash:
            raise ValueError(f"encode: {self.encode} takes no categories; leave them out, or use ordinal or one_hot")
        if self.categories is not None and len(set(self.categories)) < len(self.categories):
            raise ValueError("categories names one twice; list each once")
        return self

    @property
    def is_hash(self) -> bool:
        """Whether categories are found by their hash, so that nothing is unseen."""
        return self.encode in ("hash", "hash_ids")

    @property
    def as_ids(self) -> bool:
        """Whether the column comes as ids for an embedding table."""
        return self.encode in ("ids", "hash_ids")


class Boolean(Section):
    """A column of yes and no."""

    kind: Literal["boolean"] = "boolean"
    """Which kind of column this is."""
    true_words: list[str] = Field(default_factory=lambda: ["true", "t", "yes", "y", "1"])
    """Words for yes, in any case of letters."""
    false_words: list[str] = Field(default_factory=lambda: ["false", "f", "no", "n", "0"])
    """Words for no, in any case of letters."""
    missing: Literal["most_frequent", "refuse"] | bool = "most_frequent"
    """What stands in for a missing value: the more frequent of the two, `true`, `false`, or `refuse`: a bad row."""
    indicator: bool = False
    """Add an output that is 1 where the value is missing and 0 elsewhere."""
    missing_words: list[str] = Field(default_factory=lambda: list(MISSING_WORDS))
    """Words that mean a missing value, in any case of letters. A null and NaN always do."""

    @model_validator(mode="after")
    def _words_differ(self) -> Boolean:
        both = {word.lower() for word in self.true_words} & {word.lower() for word in self.false_words}
        if both:
            raise ValueError(f"{min(both)!r} is in true_words and in false_words; leave it in one of them")
        return self


class Date(Section):
    """A column of points in time. Those without a time zone are taken as UTC; parts are those of UTC."""

    kind: Literal["date"] = "date"
    """Which kind of column this is."""
    parts: list[DatePart] = Field(default_factory=lambda: ["elapsed", "month", "weekday"], min_length=1)  # type: ignore[arg-type]
    """Outputs in order. `elapsed`: 0 at the first training date, 1 at the last, beyond that later; `year`: years since
    the first date's year; `weekday`: Monday is 0; `weekend`: 1 on Saturday and Sunday."""
    cyclic: bool = True
    """Give a part that comes round again (quarter, month, day_of_year, day, weekday, hour, minute) as sine and cosine,
    so that December is beside January. Without it: the plain number."""
    format: Annotated[str, Field(min_length=2)] | None = None
    """How texts are written, as %d.%m.%Y (strptime). Default: ISO 8601, as 2026-03-01 or 2026-03-01T12:00:00+01:00."""
    unit: Literal["s", "ms"] | None = None
    """What numbers are: seconds or milliseconds since 1970. Default: a number is no date."""
    missing: Literal["median", "first", "last", "refuse"] = "median"
    """What stands in for a missing date: the middle, first or last one of the training rows, or `refuse`: a bad row."""
    indicator: bool = False
    """Add an output that is 1 where the value is missing and 0 elsewhere."""
    missing_words: list[str] = Field(default_factory=lambda: list(MISSING_WORDS))
    """Words that mean a missing value, in any case of letters. A null and NaN always do."""

    @model_validator(mode="after")
    def _each_part_once(self) -> Date:
        if len(set(self.parts)) < len(self.parts):
            raise ValueError("parts names one twice; list each once")
        return self


def _long_form(given: Any) -> Any:
    """A column may be written as its kind alone: `age: numeric`."""
    return {"kind": given} if isinstance(given, str) else given


#: One column of a spec: a kind with its rules, or the kind alone.
Column = Annotated[
    Annotated[Numeric | Categorical | Boolean | Date, Field(discriminator="kind")],
    BeforeValidator(_long_form, json_schema_input_type=str | Numeric | Categorical | Boolean | Date),
]
#: Name of the user's column -> its rules, in the order of the outputs.
Columns = dict[str, Column]
AnyColumn = Numeric | Categorical | Boolean | Date

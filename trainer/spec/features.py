"""The `data.features:` section of a spec: the columns of a table by kind (numeric, categorical, boolean, date).

Each kind is fitted and applied by its own module in `trainer.features`. Words for a missing value are compared after
white space at both ends is removed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from trainer.spec.section import Positive, SpecSection

#: Words that files and exports write for a missing number, date or boolean, in any case; \N is MySQL's and Hive's.
MISSING_WORDS = ["", "na", "n/a", "nan", "nat", "<na>", "null", "none", "\\N"]

#: Cyclic parts of a date, with the number of steps in a cycle.
CYCLES = {"quarter": 4, "month": 12, "day_of_year": 366, "day": 31, "weekday": 7, "hour": 24, "minute": 60}

DatePart = Literal[
    "elapsed", "year", "quarter", "month", "day_of_year", "day", "weekday", "weekend", "hour", "minute", "second"
]
_DEFAULT_PARTS: tuple[DatePart, ...] = ("elapsed", "month", "weekday")


class NumericSpec(SpecSection):
    """A column of numbers."""

    kind: Literal["numeric"] = "numeric"
    """Kind of the column."""
    scale: Literal["standard", "min_max", "robust", "none"] = "standard"
    """`standard`: mean 0, standard deviation 1; `min_max`: 0 to 1 over the training rows, other values may lie outside;
    `robust`: median 0, distance between the quartiles 1; `none`: unchanged. A constant column becomes 0."""
    missing: Literal["mean", "median", "zero", "reject"] | float = "mean"
    """Replaces a missing value before scaling: the mean or the median of the training rows, 0, a number of your own, or
    `reject`: the row is a bad row."""
    indicator: bool = False
    """Add an output that is 1 if the value is missing, else 0."""
    missing_words: list[str] = Field(default_factory=lambda: list(MISSING_WORDS))
    """Words for a missing value, in any case. A word that is a number, for example "-999", means that number in every
    spelling. A null and NaN are always missing."""
    remove: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    """Texts to remove from a cell before it is read, for example `["$", ","]` for "$1,234.50", or `[kg]` for "12 kg"."""
    decimal_sign: Literal[".", ","] = "."
    """Sign before the decimals: `,` reads "3,5" as 3.5. Requests with JSON numbers do not need it."""

    @model_validator(mode="after")
    def _check_sign_stays(self) -> NumericSpec:
        if self.decimal_sign in self.remove:
            raise ValueError(
                f"remove holds {self.decimal_sign!r}, which is the decimal_sign; remove it from one of them"
            )
        return self


class CategoricalSpec(SpecSection):
    """A column of categories."""

    kind: Literal["categorical"] = "categorical"
    """Kind of the column."""
    encode: Literal["one_hot", "ordinal", "hash", "ids", "hash_ids"] = "one_hot"
    """`one_hot`: an output for each category; `ordinal`: one output, the index of the category; `hash`: an output for
    each of `buckets`; `ids` and `hash_ids`: an integer for an embedding table, separate from the other outputs."""
    unseen: Literal["other", "zero", "reject"] = "other"
    """Meaning of a category that is not in the fitted list. `other`: one more category; `zero`: all outputs are 0
    (`one_hot` only); `reject`: a bad row. A hash has no unseen categories."""
    missing: Literal["category", "most_frequent", "reject"] = "category"
    """Meaning of a missing value: a category of its own, the most frequent category, or a bad row."""
    categories: list[Annotated[str, Field(min_length=1)]] | None = None
    """The categories in order, for example [small, medium, large]. Default: those of the training rows, sorted."""
    max_categories: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """At most this many categories are used, the most frequent; the others are unseen."""
    min_count: Positive = 1
    """A category with fewer training rows is unseen. Use 2 or more so that `unseen: other` is trained on some rows."""
    buckets: Annotated[int, Field(ge=2, le=65_536)] = 64
    """Number of hash buckets."""
    whitespace: Literal["trim", "keep"] = "trim"
    """`trim`: remove white space at both ends and replace runs of it by one space: 'New  York ' is 'New York'."""
    lowercase: bool = False
    """Whether 'DE' and 'de' are one category."""
    missing_words: list[str] = Field(default_factory=lambda: ["", "\\N"])
    """Words for a missing value. 'NA' is not among the defaults, because it may mean Namibia."""

    @model_validator(mode="after")
    def _check_keys_fit(self) -> CategoricalSpec:
        if self.unseen == "zero" and self.encode != "one_hot":
            raise ValueError(f"unseen: zero needs encode: one_hot; {self.encode} has no such value, use other")
        if self.categories is not None and self.is_hash:
            raise ValueError(
                f"encode: {self.encode} takes no categories; remove `categories`, or use ordinal or one_hot"
            )
        if self.categories is not None and len(set(self.categories)) < len(self.categories):
            raise ValueError("categories names one twice; list each once")
        return self

    @property
    def is_hash(self) -> bool:
        """Whether categories are hashed, so that none is unseen."""
        return self.encode in ("hash", "hash_ids")

    @property
    def as_ids(self) -> bool:
        """Whether the output is an id for an embedding table."""
        return self.encode in ("ids", "hash_ids")


class BooleanSpec(SpecSection):
    """A column of yes and no."""

    kind: Literal["boolean"] = "boolean"
    """Kind of the column."""
    true_words: list[str] = Field(default_factory=lambda: ["true", "t", "yes", "y", "1"])
    """Words for yes, in any case."""
    false_words: list[str] = Field(default_factory=lambda: ["false", "f", "no", "n", "0"])
    """Words for no, in any case."""
    missing: Literal["most_frequent", "reject"] | bool = "most_frequent"
    """Replaces a missing value: the more frequent of the two, `true`, `false`, or `reject`: the row is a bad row."""
    indicator: bool = False
    """Add an output that is 1 if the value is missing, else 0."""
    missing_words: list[str] = Field(default_factory=lambda: list(MISSING_WORDS))
    """Words for a missing value, in any case. A null and NaN are always missing."""

    @model_validator(mode="after")
    def _check_words_differ(self) -> BooleanSpec:
        both = {word.lower() for word in self.true_words} & {word.lower() for word in self.false_words}
        if both:
            raise ValueError(f"{min(both)!r} is in true_words and in false_words; remove it from one of them")
        return self


class DateSpec(SpecSection):
    """A column of points in time. A time without a zone is UTC; the parts of a date are those of UTC."""

    kind: Literal["date"] = "date"
    """Kind of the column."""
    parts: list[DatePart] = Field(default_factory=lambda: list(_DEFAULT_PARTS), min_length=1)
    """Outputs, in order. `elapsed`: 0 at the first training date, 1 at the last, more for later dates; `year`: years
    since the year of the first date; `weekday`: Monday is 0; `weekend`: 1 on Saturday and Sunday."""
    cyclic: bool = True
    """Write cyclic parts (quarter, month, day_of_year, day, weekday, hour, minute) as sine and cosine, so that December
    is close to January. Without it: the plain number."""
    format: Annotated[str, Field(min_length=2)] | None = None
    """Format of texts (strptime), for example %d.%m.%Y. Default: ISO 8601, for example 2026-03-01 or
    2026-03-01T12:00:00+01:00."""
    unit: Literal["s", "ms"] | None = None
    """Unit of numbers: seconds or milliseconds since 1970. Default: a number is not a valid date."""
    missing: Literal["median", "first", "last", "reject"] = "median"
    """Replaces a missing date: the median, first or last date of the training rows, or `reject`: the row is a bad
    row."""
    indicator: bool = False
    """Add an output that is 1 if the value is missing, else 0."""
    missing_words: list[str] = Field(default_factory=lambda: list(MISSING_WORDS))
    """Words for a missing value, in any case. A null and NaN are always missing."""

    @model_validator(mode="after")
    def _check_parts_differ(self) -> DateSpec:
        if len(set(self.parts)) < len(self.parts):
            raise ValueError("parts names one twice; list each once")
        return self


def _expand_kind(value: Any) -> Any:
    """Return the long form of a column that is written as its kind alone: `age: numeric`."""
    return {"kind": value} if isinstance(value, str) else value


#: A column: its kind and the rules for it.
FeatureSpec = NumericSpec | CategoricalSpec | BooleanSpec | DateSpec
_FeatureField = Annotated[
    Annotated[FeatureSpec, Field(discriminator="kind")],
    BeforeValidator(_expand_kind, json_schema_input_type=str | FeatureSpec),
]
#: Name of the user's column -> its rules, in the order of the outputs.
FeatureSpecs = dict[str, _FeatureField]

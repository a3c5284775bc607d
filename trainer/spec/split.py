"""The `data.split:` section of a spec: how rows are held out for validation and test."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from trainer.spec.section import Seed, SpecSection
from trainer.values.moments import parse_moment


def _as_text(value: Any) -> Any:
    """Return a date or a number as text: YAML makes a date of 2026-03-01 and a number of 2026."""
    if isinstance(value, dt.date):
        return value.isoformat()
    return str(value) if type(value) is int else value


def _check_moment(text: str) -> str:
    if parse_moment(text) is None or text.isdigit():  # a year alone is more likely a mistake
        raise ValueError(
            f"{text!r} is not a valid time; write it as 2026-03-01, 2026-03-01T12:00:00Z or 2026-03-01T12:00:00+02:00"
        )
    return text


#: A point in time as text: ISO 8601, for example 2026-03-01 or 2026-03-01T12:00:00Z.
Moment = Annotated[str, BeforeValidator(_as_text), AfterValidator(_check_moment)]


class SplitSpec(SpecSection):
    """How rows are held out if `data.validation` or `data.test` names no files."""

    by: Literal["content", "group", "time"] = "content"
    """`content`: each row on its own; `group`: rows with the same value of `column` stay together; `time`: the newest
    rows by `column` are held out."""
    column: str | None = None
    """Column with the group or the time. `group` and `time` require it; `content` does not allow it."""
    validation: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the training rows that is held out to choose the best checkpoint."""
    test: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the training rows that is held out for the final metrics."""
    validation_from: Moment | None = None
    """`by: time`: rows from this time on are the validation part. Unlike a share, it does not move when rows are
    added."""
    test_from: Moment | None = None
    """`by: time`: rows from this time on are the test part."""
    seed: Seed = 13
    """Changes which rows are held out. The part of a row depends on the seed and its own content, not on its position
    and not on the other rows, so adding rows does not move any row to another part."""
    stratify: bool = False
    """`by: content`: put every class of 5 rows or more into all parts. If the seed leaves a class out of a part, the
    nearest row of the class moves there. Such a row may move again when the class grows; without `stratify`,
    adding rows does not move any row."""

    @model_validator(mode="after")
    def _check_keys_fit(self) -> SplitSpec:
        if self.validation + self.test > 0.8:
            raise ValueError(
                f"validation={self.validation} and test={self.test} leave under a fifth of the rows to train on; "
                "keep their sum at 0.8 or less"
            )
        if (self.by == "content") != (self.column is None):
            rule = "needs `column`" if self.column is None else "takes no `column`"
            raise ValueError(f"by: {self.by} {rule}; only by: group and by: time read a column of your data")
        if self.stratify and self.by != "content":
            raise ValueError(f"stratify: true works only with by: content, not with by: {self.by}; remove `stratify`")
        self._check_times()
        return self

    def _check_times(self) -> None:
        first, second = self.validation_from, self.test_from
        if (first or second) and (self.by != "time" or not (first and second)):
            raise ValueError("validation_from and test_from belong together and need by: time; give both or none")
        if first and second and not (parse_moment(first) or 0) < (parse_moment(second) or 0):
            raise ValueError(
                f"validation_from={first} must be before test_from={second} (without a zone they are UTC): "
                "the newest rows are the test part"
            )

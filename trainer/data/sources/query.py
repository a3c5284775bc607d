"""Run one SELECT on a database, once, and write its rows to a snapshot file in batches.

A URL with a password must come from an environment variable, because specs are stored and shown.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa

from cluster.errors import DataError, UserError
from trainer.data.sources.snapshot import require_snapshot_folder, write_snapshot
from trainer.spec.data import QuerySpec
from trainer.values.columns import spell_values
from trainer.values.spelling import NotOneValue, spell_list, spell_value

_ENV = "env:"
_BATCH_ROWS = 16_384
_SECRET = re.compile(r"pass|pwd|secret|token|key|odbc_connect", re.IGNORECASE)
#: Types that Arrow stores as they are; other values, for example decimals and UUIDs, are spelled as text.
_PLAIN = (bool, int, float, str, bytes, dt.date, type(None))


def check_query(query: QuerySpec, part: str) -> None:
    """Raise `DataError` for a URL that is wrong or holds a password. Does not connect."""
    _import_sqlalchemy(f"data.{part}: the database query")
    _parse_url(query, part)


def _import_sqlalchemy(source: str) -> Any:
    try:
        import sqlalchemy
    except ModuleNotFoundError as error:
        raise DataError(f"{source} needs SQLAlchemy, which is not installed", "pip install 'raymill[sql]'") from error
    return sqlalchemy


def snapshot_query(query: QuerySpec, part: str, snapshots: Path | None) -> Path:
    """Run the query and return the file its rows were written to.

    Raises `DataError` for a URL with a password in the spec and for everything that the database rejects. Messages
    never show a URL that comes from an environment variable.
    """
    source = f"data.{part}: the database query"
    folder = require_snapshot_folder(snapshots, source)
    sqlalchemy = _import_sqlalchemy(source)
    url = _parse_url(query, part)
    # `from None` throughout: a driver's message, and so a traceback, may hold the URL.
    try:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    except ModuleNotFoundError as error:
        raise DataError(
            f"{source} needs the database driver {error.name!r}, which is not installed", f"pip install {error.name}"
        ) from None
    except (sqlalchemy.exc.SQLAlchemyError, ValueError, TypeError) as error:
        raise _query_error(source, error, url) from None
    try:
        with engine.connect() as connection:
            # The query goes to the driver unchanged: neither `:name` nor `%` in it is a placeholder.
            options = {"stream_results": True, "no_parameters": True, "max_row_buffer": _BATCH_ROWS}
            result = connection.execution_options(**options).exec_driver_sql(query.query)
            if not result.returns_rows:
                raise DataError(f"{source} returns no rows", "write a SELECT")
            return _write_result(result, folder, source)
    except UserError:
        raise
    except Exception as error:  # drivers have error classes of their own, some of which SQLAlchemy does not wrap
        raise _query_error(source, error, url) from None
    finally:
        engine.dispose()


def _parse_url(query: QuerySpec, part: str) -> Any:
    """Return the query's SQLAlchemy URL. Raises `DataError` for a wrong URL and for a password in the spec."""
    import sqlalchemy

    text, key = query.url, f"data.{part}.url"
    is_from_environment = text.startswith(_ENV)
    if is_from_environment:
        text, key = _read_environment(text, part)
    try:
        url = sqlalchemy.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # its message would show the URL
        raise DataError(
            f"{key} is not a valid database URL",
            "write dialect://user@host/db, for example sqlite:////data/rows.db",
        ) from None
    if not is_from_environment and _secrets(url):
        raise DataError(
            f"{key} holds a password, but specs are stored and shown",
            f"put the URL into an environment variable and write `url: {_ENV}NAME`",
        )
    file = url.database if url.get_backend_name() == "sqlite" else None
    if file and file != ":memory:" and not file.startswith("file:") and not Path(file).is_file():
        # SQLite would create an empty one.
        raise DataError(
            f"{key}: there is no file {file}",
            "correct the path; an absolute path has four slashes: sqlite:////data/rows.db",
        )
    return url


def _read_environment(text: str, part: str) -> tuple[str, str]:
    """Return the URL in the environment variable that `env:NAME` names, and what messages call it."""
    name = text.removeprefix(_ENV)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):  # not shown: it may be the URL itself
        raise DataError(f"data.{part}.url names no environment variable", f"write `url: {_ENV}NAME` and set NAME")
    key = f"data.{part}.url={text}"
    url = os.environ.get(name, "")
    if not url:
        raise DataError(
            f"{key}: the environment variable {name} is not set", f"export {name}=dialect://user:password@host/db"
        )
    return url, key


def _secrets(url: Any) -> list[str]:
    options = [value for name, value in url.query.items() if _SECRET.search(name)]
    values = [text for value in options for text in ([value] if isinstance(value, str) else value)]
    return [value for value in [url.password, *values] if value]


def _query_error(source: str, error: Exception, url: Any) -> DataError:
    """Return the one-line error for a driver's error, without the secrets of the URL."""
    message = (str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__])[0]
    secrets = [str(secret) for secret in _secrets(url)]
    forms = {form for secret in secrets for form in (secret, quote(secret, safe=""), quote_plus(secret))}
    for form in sorted(forms, key=len, reverse=True):
        message = message.replace(form, "***")
    return DataError(
        f"{source} failed at {url.get_backend_name()}: {message[:300]}",
        "correct the query or the URL, or ask for read access",
    )


def _write_result(result: Any, folder: Path, source: str) -> Path:
    names = list(result.keys())
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(
            f"{source} has {names.count(repeated)} columns called '{repeated}'",
            "give each its own name: SELECT ... AS name",
        )
    rows = result.fetchmany(_BATCH_ROWS)
    if not rows:
        raise DataError(f"{source} returns no rows", "correct the conditions of the query")
    columns = zip(names, zip(*rows, strict=True), strict=True)
    schema = pa.schema([(name, _column_type(values, name, source)) for name, values in columns])
    return write_snapshot(_batches(result, rows, schema, source), schema, folder, "query")


def _batches(result: Any, rows: Any, schema: pa.Schema, source: str) -> Iterator[pa.RecordBatch]:
    """Yield the first `rows` and the rest of the result as batches of `schema`."""
    n_rows = 0
    while rows:
        columns = [
            _column_array(values, field, n_rows, source)
            for field, values in zip(schema, zip(*rows, strict=True), strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
        n_rows += len(rows)
        rows = result.fetchmany(_BATCH_ROWS)


def _column_type(values: tuple[Any, ...], name: str, source: str) -> pa.DataType:
    """Return the Arrow type of a column; `values` are those of its first batch."""
    try:
        kind = pa.array([_storable(value) for value in values]).type
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(
            f"{source}: column '{name}' mixes types of values: {error}",
            f"convert the values to one type in the query: CAST({name} AS TEXT)",
        ) from None
    # A column with only NULLs in its first batch is stored as text, whatever follows.
    return pa.string() if pa.types.is_null(kind) else kind


def _column_array(column: tuple[Any, ...], field: pa.Field, n_before: int, source: str) -> pa.Array:
    """Return the values as an array of the field's type; `n_before` rows came before them."""
    values = [_storable(value) for value in column]
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        if pa.types.is_string(field.type) and not any(isinstance(value, str) for value in values):
            return spell_values(values).texts
        raise DataError(
            f"{source}: column '{field.name}' starts as {field.type}, "
            f"but rows {n_before + 1} to {n_before + len(column)} hold another type",
            f"convert the values to one type in the query: CAST({field.name} AS TEXT)",
        ) from None


def _storable(value: Any) -> Any:
    """Return a value that Arrow can store: unchanged, or spelled as text."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    try:
        return spell_list(value) if isinstance(value, (list, tuple)) else spell_value(value)
    except NotOneValue:  # an object, or a list of lists
        return json.dumps(value, ensure_ascii=False, default=str)

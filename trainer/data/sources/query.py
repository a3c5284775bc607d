"""Rows of a database: one SELECT, read once and in pieces into a snapshot. Secrets stay in the environment."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa

from cluster.errors import DataError, UserError
from trainer.data.sources import snapshot as source_snapshot
from trainer.spec.data import Query

_ENV = "env:"
_BATCH_ROWS = 16_384
_SECRET = re.compile(r"pass|pwd|secret|token|key|odbc_connect", re.IGNORECASE)
#: What Arrow keeps as it is; all else, as decimals and UUIDs, is written as text.
_PLAIN = (bool, int, float, str, bytes, dt.date, type(None))


def check(query: Query, part: str) -> None:
    """Raise `DataError` for a URL that is wrong or holds a password; nothing is connected to."""
    _sqlalchemy(f"data.{part}: the database query")
    _url(query, part)


def _sqlalchemy(what: str) -> Any:
    try:
        import sqlalchemy
    except ModuleNotFoundError as error:
        raise DataError(f"{what} needs SQLAlchemy, which is not installed", "pip install 'raymill[sql]'") from error
    return sqlalchemy


def snapshot(query: Query, part: str, snapshots: Path | None) -> Path:
    """Run the query and return the file its rows were written to.

    Raises `DataError` for a URL with a password in the spec, and for whatever the database refuses; messages never hold
    the URL of an environment variable.
    """
    what = f"data.{part}: the database query"
    folder = source_snapshot.folder_for(snapshots, what)
    sqlalchemy = _sqlalchemy(what)
    url = _url(query, part)
    # `from None` throughout: what a driver says, and so a traceback, may hold the address it was given.
    try:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    except ModuleNotFoundError as error:
        raise DataError(
            f"{what} needs the driver {error.name!r} of the database", f"pip install {error.name}"
        ) from None
    except (sqlalchemy.exc.SQLAlchemyError, ValueError, TypeError) as error:
        raise _refused(what, error, url) from None
    try:
        with engine.connect() as connection:
            # The query goes to the driver as it is: neither `:name` nor `%` in it is a placeholder.
            options = {"stream_results": True, "no_parameters": True, "max_row_buffer": _BATCH_ROWS}
            result = connection.execution_options(**options).exec_driver_sql(query.query)
            if not result.returns_rows:
                raise DataError(f"{what} returns no rows", "give a SELECT")
            return _write(result, folder, what)
    except UserError:
        raise
    except Exception as error:  # drivers have classes of their own, and raise some of them past SQLAlchemy
        raise _refused(what, error, url) from None
    finally:
        engine.dispose()


def _url(query: Query, part: str) -> Any:
    import sqlalchemy

    given, where = query.url, f"data.{part}.url"
    from_environment = given.startswith(_ENV)
    if from_environment:
        name = given.removeprefix(_ENV)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):  # may be the URL itself, so it is not shown
            raise DataError(f"data.{part}.url names no environment variable", f"write `url: {_ENV}NAME` and set NAME")
        where = f"data.{part}.url={given}"
        given = os.environ.get(name, "")
        if not given:
            raise DataError(
                f"{where}: there is no environment variable {name}", f"export {name}=dialect://user:password@host/db"
            )
    try:
        url = sqlalchemy.make_url(given)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # says what it was given
        raise DataError(
            f"{where} is no database URL", "write dialect://user@host/db, as sqlite:////data/rows.db"
        ) from None
    if not from_environment and _secrets(url):
        raise DataError(
            f"{where} holds a password, and a spec is stored and shown",
            f"put the URL into an environment variable and write `url: {_ENV}NAME`",
        )
    file = url.database if url.get_backend_name() == "sqlite" else None
    if file and file != ":memory:" and not file.startswith("file:") and not Path(file).is_file():
        # SQLite would make an empty one
        raise DataError(f"{where}: there is no file {file}", "correct the path; an absolute one has four slashes")
    return url


def _secrets(url: Any) -> list[str]:
    inside = [value for name, value in url.query.items() if _SECRET.search(name)]
    values = [piece for value in inside for piece in ([value] if isinstance(value, str) else value)]
    return [value for value in [url.password, *values] if value]


def _refused(what: str, error: Exception, url: Any) -> DataError:
    said = (str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__])[0]
    hidden = [str(secret) for secret in _secrets(url)]
    for secret in sorted({form for one in hidden for form in (one, quote(one, safe=""), quote_plus(one))}, key=len)[
        ::-1
    ]:
        said = said.replace(secret, "***")
    return DataError(
        f"{what} failed at {url.get_backend_name()}: {said[:300]}",
        "correct the query or the URL, or ask for the right to read",
    )


def _write(result: Any, folder: Path, what: str) -> Path:
    names = list(result.keys())
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"{what} has {names.count(twice)} columns called '{twice}'", "give each its own name: SELECT ... AS name"
        )
    first = result.fetchmany(_BATCH_ROWS)
    if not first:
        raise DataError(f"{what} returns no rows", "correct its conditions")
    schema = pa.schema(
        [(name, _type(column, name, what)) for name, column in zip(names, zip(*first, strict=True), strict=True)]
    )
    return source_snapshot.write(_batches(result, first, schema, what), schema, folder, "query")


def _batches(result: Any, rows: Any, schema: pa.Schema, what: str) -> Iterator[pa.RecordBatch]:
    done = 0
    while rows:
        columns = [
            _array(column, field, done, what) for field, column in zip(schema, zip(*rows, strict=True), strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
        done += len(rows)
        rows = result.fetchmany(_BATCH_ROWS)


def _type(column: tuple[Any, ...], name: str, what: str) -> pa.DataType:
    try:
        kind = pa.array([value if isinstance(value, _PLAIN) else str(value) for value in column]).type
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(
            f"{what}: column '{name}' mixes kinds of values: {error}",
            f"make them one in the query: CAST({name} AS TEXT)",
        ) from None
    # A column that begins with nothing but NULL takes whatever comes, as text.
    return pa.string() if pa.types.is_null(kind) else kind


def _array(column: tuple[Any, ...], field: pa.Field, done: int, what: str) -> pa.Array:
    text = pa.types.is_string(field.type)
    values = [value if isinstance(value, _PLAIN) else str(value) for value in column]
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        if text and not any(isinstance(value, str) for value in values):
            return pa.array([_as_text(value) for value in values], field.type)
        raise DataError(
            f"{what}: column '{field.name}' holds {field.type} at first, and something else among rows {done + 1} to {done + len(column)}",
            f"make them one kind in the query: CAST({field.name} AS TEXT)",
        ) from None


def _as_text(value: Any) -> str | None:
    if isinstance(value, dt.date):
        return value.isoformat()
    return None if value is None else str(value)

"""Output for people, on stderr: sentences, tables, and a progress line for each stage with its rate and time left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from cluster.progress import POLL_EVERY_S, Progress
from cluster.terminal import OutputRedirect

Show = Callable[[Progress], None]

_PLAIN_EVERY_S = 10.0
_PLAIN_POLL_EVERY_S = 2.0
_DETAIL_INDENT = 13
_MIN_RATE_S = 0.5


class Console:
    """Writes to `stream`. If `stream` is None, as by default in the Python API, it writes nothing."""

    def __init__(self, stream: IO[str] | None = None, redirect: OutputRedirect | None = None) -> None:
        self._redirect = redirect
        self._rich = _rich_console(stream)
        self.quiet = redirect is None
        """Whether Ray should not print its workers' output: true without a redirect, as it would reach the terminal."""

    @property
    def poll_every_s(self) -> float:
        """Seconds between two reads of a stage's progress. A read may open a file for every trial."""
        return POLL_EVERY_S if self.is_terminal else _PLAIN_POLL_EVERY_S

    def redirect_ray_output(self, path: Path) -> None:
        """Send what Ray and other libraries print to `path` from now on. Has an effect on the command line only."""
        if self._redirect is None or self._redirect.shows_ray_output:
            return
        self._redirect.redirect(path)
        self._rich = _rich_console(self._redirect.stderr)

    @property
    def stream(self) -> IO[str]:
        """Where the console writes at the moment. It must have been created with a stream."""
        stream: IO[str] = self._rich.file
        return stream

    @property
    def is_terminal(self) -> bool:
        """Whether the console writes to a terminal."""
        return self._rich is not None and bool(self._rich.is_terminal)

    def print_line(self, text: str) -> None:
        """Write a line of another program as it is, above the progress."""
        if self._rich:
            from rich.text import Text

            self._rich.print(Text(text))

    def print(self, text: str, style: str = "") -> None:
        """Write one line."""
        if self._rich:
            self._rich.print(text, style=style or None, markup=False)

    def detail(self, text: str, style: str = "") -> None:
        """Write one line about the last stage, indented to the column of the stage's seconds."""
        self.print(f"{'':{_DETAIL_INDENT}}{text}", style)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write a table."""
        if self._rich:
            self._rich.print(_rich_table(title, columns, rows))

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Show]:
        """Show a stage while the block runs. Yields the function that updates its line."""
        started = time.monotonic()
        with self.progress_line(name, started) as show:
            yield show
        self.print(f"  {name:<10} {time.monotonic() - started:6.1f} s", style="green")

    @contextlib.contextmanager
    def progress_line(self, name: str, started: float) -> Iterator[Show]:
        """Show the progress of a stage that started at `started` (`time.monotonic`) while the block runs.

        Yields the function that updates it.
        """
        if self._rich is None:
            yield lambda progress: None
        elif self.is_terminal:
            with self._bar(name, started) as show:
                yield show
        else:
            yield self._plain(name, started)

    @contextlib.contextmanager
    def _bar(self, name: str, started: float) -> Iterator[Show]:
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (
            SpinnerColumn("dots" if self._rich.encoding.startswith("utf") else "line"),
            TextColumn("{task.description}"),
            BarColumn(24),
            TextColumn("{task.fields[status]}"),
        )
        bar = RichProgress(*columns, console=self._rich)
        line = bar.add_task(f"{name:<10}", total=None, status="")
        rate = Rate(started)
        with Live(
            bar, console=self._rich, transient=True, redirect_stdout=False, redirect_stderr=False, refresh_per_second=8
        ) as live:

            def show(progress: Progress) -> None:
                status = rate.describe(progress, time.monotonic())
                bar.update(line, total=progress.total or None, completed=progress.done, status=status)
                if progress.table:
                    live.update(Group(bar, _rich_table("", progress.table.columns, progress.table.rows)))

            yield show

    def _plain(self, name: str, started: float) -> Show:
        last = started
        rate = Rate(started)

        def show(progress: Progress) -> None:
            nonlocal last
            status = rate.describe(progress, time.monotonic())
            if time.monotonic() - last >= _PLAIN_EVERY_S:
                last = time.monotonic()
                self.print(f"  {name:<10} {status}")

        return show


class Rate:
    """Turns a stage's progress into text. The rate is measured from the first finished unit, without the start-up."""

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s
        self._first: tuple[float, float] | None = None

    def describe(self, progress: Progress, now_s: float) -> str:
        """Return the finished share, the rate, the time left and the note. Unknown parts are left out."""
        if not progress.done:
            return f"{progress.note or 'starting'}, {now_s - self._started_s:.0f} s"
        if self._first is None:
            self._first = (now_s, progress.done)
        elapsed_s, done = now_s - self._first[0], progress.done - self._first[1]
        parts = []
        if progress.total:
            parts.append(f"{min(1.0, progress.done / progress.total):4.0%}")
        if elapsed_s > _MIN_RATE_S and done > 0:
            rate = done / elapsed_s
            slow = f"{1 / rate:.1f} s/{progress.unit.removesuffix('s')}"
            parts.append(f"{rate:,.0f} {progress.unit}/s" if rate >= 1 else slow)
            if progress.total:
                parts.append(f"{max(0.0, progress.total - progress.done) / rate:.0f} s left")
        if progress.note:
            parts.append(progress.note)
        return "  ".join(parts)


def _rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        is_numeric = all(isinstance(row[index], (int, float)) or row[index] in (None, "") for row in rows)
        table.add_column(column, justify="right" if is_numeric and rows else "left")
    for row in rows:
        table.add_row(*[Text(_cell_text(cell)) for cell in row])
    return table


def _cell_text(value: Any) -> str:
    if isinstance(value, float):
        if 100 <= abs(value) < 1e9:
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"
        return f"{value:.4f}" if 0.01 <= abs(value) < 100 or value == 0 else f"{value:.3g}"
    return "" if value is None else str(value)


def _rich_console(stream: IO[str] | None) -> Any:
    if stream is None:
        return None
    from rich.console import Console as RichConsole

    return RichConsole(file=stream, highlight=False, soft_wrap=True)

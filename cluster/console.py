"""What a person sees: one line a stage with rate and time left, a few sentences, tables. All of it goes to stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from cluster.progress import LOOK_EVERY_S, Progress
from cluster.terminal import OwnOutput

_PLAIN_EVERY_S = 10.0


_LOOK_RARELY_S = 2.0

_DETAIL_INDENT = 13


class Console:
    """Writes to `stream`, or nowhere when it is None (the Python API's default)."""

    def __init__(self, stream: IO[str] | None = None, own: OwnOutput | None = None) -> None:
        self._own = own
        self._rich = _rich(stream)
        self.quiet = own is None
        """Whether Ray should keep its workers' output to itself: there is no place for it but the caller's terminal."""

    @property
    def look_every_s(self) -> float:
        """How often it pays to look how far a stage is: it may mean reading files of all trials."""
        return LOOK_EVERY_S if self._rich is not None and self._rich.is_terminal else _LOOK_RARELY_S

    def send_rays_output_to(self, path: Path) -> None:
        """From now on, what Ray and its libraries print goes to `path` (command line only)."""
        if self._own is None or self._own.shows_rays_output:
            return
        self._own.redirect(path)
        self._rich = _rich(self._own.stderr)

    def say(self, text: str, style: str = "") -> None:
        """Write one line."""
        if self._rich:
            self._rich.print(text, style=style or None, markup=False)

    def detail(self, text: str, style: str = "") -> None:
        """Write one line about the stage above it, indented under the stage's seconds."""
        self.say(f"{'':{_DETAIL_INDENT}}{text}", style)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write a table."""
        if not self._rich:
            return
        self._rich.print(_table(title, columns, rows))

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Callable[[Progress], None]]:
        """Show one stage while the block runs; yields the function that moves its line."""
        started = time.monotonic()
        with self._line(name, started) as show:
            yield show
        self.say(f"  {name:<10} {time.monotonic() - started:6.1f} s", style="green")

    @contextlib.contextmanager
    def _line(self, name: str, started: float) -> Iterator[Callable[[Progress], None]]:
        if self._rich is None:
            yield lambda progress: None
        elif self._rich.is_terminal:
            with self._bar(name, started) as show:
                yield show
        else:
            yield self._plain(name, started)

    @contextlib.contextmanager
    def _bar(self, name: str, started: float) -> Iterator[Callable[[Progress], None]]:
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(24),
            TextColumn("{task.fields[figures]}"),
        )
        bar = RichProgress(*columns, console=self._rich)
        line = bar.add_task(f"{name:<10}", total=None, figures="")
        rate = Rate(started)
        with Live(
            bar, console=self._rich, transient=True, redirect_stdout=False, redirect_stderr=False, refresh_per_second=8
        ) as live:

            def show(progress: Progress) -> None:
                figures = rate.describe(progress, time.monotonic())
                bar.update(line, total=progress.total or None, completed=progress.done, figures=figures)
                if progress.table:
                    live.update(Group(bar, _table("", progress.table.columns, progress.table.rows)))

            yield show

    def _plain(self, name: str, started: float) -> Callable[[Progress], None]:
        last = started
        rate = Rate(started)

        def show(progress: Progress) -> None:
            nonlocal last
            figures = rate.describe(progress, time.monotonic())
            if time.monotonic() - last >= _PLAIN_EVERY_S:
                last = time.monotonic()
                self.say(f"  {name:<10} {figures}")

        return show


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", title_style="bold")
    for at, column in enumerate(columns):
        numbers = all(isinstance(row[at], (int, float)) or row[at] in (None, "") for row in rows)
        table.add_column(column, justify="right" if numbers and rows else "left")
    for row in rows:
        table.add_row(*[Text(_cell(cell)) for cell in row])
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        if 100 <= abs(value) < 1e9:
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"
        return f"{value:.4f}" if 0.01 <= abs(value) < 100 or value == 0 else f"{value:.3g}"
    return "" if value is None else str(value)


def _rich(stream: IO[str] | None) -> Any:
    if stream is None:
        return None
    from rich.console import Console as RichConsole

    return RichConsole(file=stream, highlight=False, soft_wrap=True)


class Rate:
    """Turns a stage's progress into a line of text. Its rate counts from the first unit done, not from the start-up."""

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s
        self._first: tuple[float, float] | None = None

    def describe(self, progress: Progress, now_s: float) -> str:
        """Return share done, rate, time left and note, as far as they are known."""
        if not progress.done:
            return f"starting, {now_s - self._started_s:.0f} s"
        if self._first is None:
            self._first = (now_s, progress.done)
        since_s, since_done = now_s - self._first[0], progress.done - self._first[1]
        parts = []
        if progress.total:
            parts.append(f"{min(1.0, progress.done / progress.total):4.0%}")
        if since_s > 0.5 and since_done > 0:
            rate = since_done / since_s
            slow = f"{1 / rate:.1f} s/{progress.unit.removesuffix('s')}"
            parts.append(f"{rate:,.0f} {progress.unit}/s" if rate >= 1 else slow)
            if progress.total:
                parts.append(f"{max(0.0, progress.total - progress.done) / rate:.0f} s left")
        if progress.note:
            parts.append(progress.note)
        return "  ".join(parts)

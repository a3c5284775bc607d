"""Rows prepared on three machines, one of which is killed: the same bytes as on one machine."""

from pathlib import Path

from support.tiny_text import make_text_rows, tiny_spec, write_csv
from trainer.data.prepare import prepare as preparing
from trainer.tasks.load_spec import load_spec

# Few rows of each file take long, until the file `hurry` exists.
SLOW_STEP = """
import pathlib
import time


def slow(text):
    if text.endswith(" 7") and not pathlib.Path({hurry!r}).exists():
        time.sleep(3)
    return text
"""
FILES, ROWS = 12, 9_000


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_machine_killed_while_rows_are_prepared_changes_no_byte(scene, tmp_path, monkeypatch):
    hurry, rows = scene.folder / "hurry", scene.folder / "rows"
    (scene.folder / "slow_step.py").write_text(SLOW_STEP.format(hurry=str(hurry)))
    rows.mkdir()
    for number in range(FILES):
        texts = make_text_rows(ROWS, seed=number)
        write_csv(
            rows / f"{number}.csv", [(f"{text} {text} {text} {n}", label) for n, (text, label) in enumerate(texts)]
        )
    scene.loss.slow_down()
    data = {"train": str(rows), "steps": ["normalize", "slow_step:slow"]}
    command = scene.start("prepare", "prepare", {}, data=data)
    storage = scene.storage("prepare")
    try:
        command.wait_until(lambda: len(list(storage.glob("prepared/.staging-*/shards/*"))) >= 2, "two blocks")
        scene.ray["m4"].kill()
        hurry.touch()
        assert command.process.wait(240) == 0, command.output
    finally:
        command.terminate()
    assert "Traceback" not in command.output
    monkeypatch.syspath_prepend(str(scene.folder))
    spec = load_spec({**tiny_spec(scene.base, rows, tmp_path / "storage"), "data": data})
    alone = preparing.prepare_rows(spec, lambda progress: None, tmp_path / "quarantine.parquet", with_ray=False)
    (folder,) = storage.glob("prepared/[!.]*")
    assert folder.name == alone.folder.name
    expected = read_files(alone.folder)
    assert read_files(folder) == expected
    assert len(expected) > FILES
    assert not list(storage.glob("prepared/.staging-*"))

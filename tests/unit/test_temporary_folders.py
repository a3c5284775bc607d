"""The folder for Ray's sockets and for the proxy's script: the environment's if it serves, else one of the system's."""

import os
from pathlib import Path

import pytest

from cluster.errors import ResourceError
from cluster.temporary_folders import (
    RAY_NEEDS,
    SOCKET_PATH_BYTES,
    Needs,
    choose_ray_folder,
    find_fault,
    first_folder,
    ray_temporary_folder,
)

SOCKETS = Needs(socket="/" + "s" * 20)
SCRIPTS = Needs(runs_scripts=True, plain_name=True)
FREE = SOCKET_PATH_BYTES - len(SOCKETS.socket)
#: A folder that always serves: the tests' own folders are too long for Ray's sockets.
TMP = Path("/tmp")


def folder_of(tmp_path, length, letter="l"):
    """Return a folder whose path has `length` bytes."""
    rest = length - len(os.fsencode(tmp_path)) - 1
    folder = tmp_path / (letter * (rest // len(letter.encode())))
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("name", "needs", "fault"),
    [
        ("plain", SCRIPTS, None),
        ("a b", Needs(), None),
        ("a b", SCRIPTS, "space or a quote"),
        ("a\tb", SCRIPTS, "space or a quote"),
        ('a"b', SCRIPTS, "space or a quote"),
        ("it's", SCRIPTS, "space or a quote"),
        ("данные", SCRIPTS, None),
    ],
)
def test_names_of_folders(tmp_path, name, needs, fault):
    (tmp_path / name).mkdir()
    answer = find_fault(tmp_path / name, needs)
    assert answer is None if fault is None else fault in answer


def test_what_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    assert find_fault(tmp_path / "file", Needs()) == "is not a folder"
    assert find_fault(tmp_path / "absent", Needs()) == "does not exist"
    assert find_fault(tmp_path / "link", Needs()) == "does not exist"
    assert find_fault(Path("tmp"), Needs()) == find_fault(Path(), Needs()) == "is not an absolute path"
    assert find_fault(Path("/proc"), Needs()) == "cannot be written" or os.getuid() == 0


@pytest.mark.parametrize("letter", ["l", "й"])
def test_the_length_of_sockets_counts_in_bytes(tmp_path, letter):
    base = tmp_path if len(str(tmp_path)) < FREE - 10 else TMP
    if base == TMP:
        pytest.skip("the temporary folder of the tests is too long")
    fits, too_long = folder_of(base, FREE - 1, letter), folder_of(base, FREE + 2, letter)
    assert find_fault(fits, SOCKETS) is None
    assert f"and {FREE} fit" in find_fault(too_long, SOCKETS)
    assert find_fault(too_long, SCRIPTS) is None


def test_a_link_is_as_long_as_its_own_path(tmp_path):
    target = tmp_path / ("l" * 120)
    target.mkdir()
    (tmp_path / "k").symlink_to(target)
    needs = Needs(socket="/" + "s" * (SOCKET_PATH_BYTES - len(str(tmp_path)) - 3))
    assert find_fault(target, needs) and find_fault(tmp_path / "k", needs) is None


def test_the_first_folder_that_serves_is_taken(tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "c").mkdir()
    folders = [tmp_path / "absent", tmp_path / "a b", tmp_path / "c"]
    assert first_folder(folders, SCRIPTS) == tmp_path / "c"
    assert first_folder(folders, Needs()) == tmp_path / "a b"
    assert first_folder(folders[:2], SCRIPTS) is None


def test_ray_takes_a_short_folder_if_the_environments_does_not_serve(tmp_path):
    long = tmp_path / ("l" * 100)
    long.mkdir()
    for value in (str(long), str(tmp_path / "absent"), "relative", ""):
        assert choose_ray_folder({"TMPDIR": value}) == TMP, value
    assert choose_ray_folder({}) == TMP
    assert choose_ray_folder({"TMPDIR": "/var/tmp"}) == Path("/var/tmp")
    assert choose_ray_folder({"TMPDIR": str(long), "RAY_TMPDIR": "/var/tmp"}) == Path("/var/tmp")


def test_the_variable_is_named_if_nothing_serves(tmp_path):
    with pytest.raises(ResourceError, match=r"RAY_TMPDIR='/absent' does not exist.*(?s:.*)unset it"):
        choose_ray_folder({"RAY_TMPDIR": "/absent"})
    with pytest.raises(ResourceError, match=r"/absent does not exist; /gone does not exist(?s:.*)set TMPDIR"):
        choose_ray_folder({"TMPDIR": "/absent"}, [Path("/gone")])


def test_ray_tmpdir_is_set_only_while_ray_starts_and_only_if_needed(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    for value, set_to in [("/var/tmp", None), (str(tmp_path / "absent"), "/tmp"), ("", "/tmp")]:
        monkeypatch.setenv("TMPDIR", value)
        with ray_temporary_folder():
            assert os.environ.get("RAY_TMPDIR") == set_to, value
        assert "RAY_TMPDIR" not in os.environ


def test_the_longest_socket_is_that_of_rays_session():
    """Ray adds the time in microseconds and a process id of up to seven digits."""
    from ray._private.utils import validate_socket_filepath

    free = SOCKET_PATH_BYTES - len(RAY_NEEDS.socket)
    validate_socket_filepath("/" + "l" * (free - 1) + RAY_NEEDS.socket)
    with pytest.raises(OSError, match="AF_UNIX"):
        validate_socket_filepath("/" + "l" * free + RAY_NEEDS.socket)

"""`python -m raymill` and the console script `raymill`."""

from __future__ import annotations


def main() -> None:
    """Prepare this process and run the command line."""
    from cluster.encoding import prepare_streams, use_utf8
    from cluster.process_setup import (
        collect_garbage_less_often,
        limit_spinning,
        open_standard_streams,
        raise_open_files_limit,
        show_warnings,
    )
    from raymill.own_packages import guard_command

    open_standard_streams()
    use_utf8()
    prepare_streams()
    raise_open_files_limit()
    show_warnings()
    limit_spinning()
    collect_garbage_less_often()
    guard_command()
    from raymill.cli.main import cli

    cli(prog_name="raymill")


if __name__ == "__main__":
    main()

"""`python -m raymill` and the console script `raymill`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from raymill.cli.main import cli

    cli(prog_name="raymill")


if __name__ == "__main__":
    main()

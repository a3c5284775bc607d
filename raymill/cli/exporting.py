"""The command that writes a model in the format of another tool."""

from __future__ import annotations

import click

import raymill
from raymill.cli.context import CommandContext
from raymill.cli.options import MODEL, shared_options


@click.command("export")
@MODEL
@click.option("--to", required=True, type=click.Choice(["gguf", "hf", "onnx"]), help="The format.")
@click.option("-o", "--output", required=True, type=click.Path(), help="The new file (gguf) or folder (hf, onnx).")
@click.option(
    "--precision", type=click.Choice(["f32", "f16", "q8_0", "q4_0"]), help="Weights of a gguf file. Default: q8_0."
)
@shared_options("storage")
def export_command(
    context: CommandContext, model: str, to: str, output: str, precision: str | None, storage: str | None
) -> None:
    """Write MODEL in the format of another tool.

    gguf is read by llama.cpp and everything built on it, hf by transformers, vLLM and others, onnx by ONNX Runtime.
    """
    result = raymill.export(model, to, output, precision=precision, storage=storage or raymill.STORAGE)
    size = f"{result['bytes'] / 1e6:,.1f} MB"
    context.emit(result, [f"{result['model']}@{result['version']} to {result['output']} ({size})"])

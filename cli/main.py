"""The command `deploykit`: its verbs, and how an error is told."""

from __future__ import annotations

import io
import signal
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from deploykit.errors import DeploykitError
from deploykit_cli.bench import bench
from deploykit_cli.convert_checkpoint import convert_checkpoint
from deploykit_cli.diagnose import diagnose
from deploykit_cli.export import export
from deploykit_cli.grouped import ExportCommand
from deploykit_cli.inspect import inspect
from deploykit_cli.prune import prune
from deploykit_cli.verify import verify


class SentenceGroup(TyperGroup):
    """Tells an error as one sentence, below its traceback with --debug, and ends with its code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Accept --debug anywhere on the line: people add it to a command that just failed."""
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            args = ["--debug", *(word for word in args[:end] if word != "--debug"), *args[end:]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except KeyboardInterrupt:
            print("error: interrupted; nothing was left half written", file=sys.stderr)
            raise typer.Exit(128 + signal.SIGINT) from None
        except (DeploykitError, OSError, MemoryError) as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            print(f"error: {_sentence(error)}", file=sys.stderr)
            code = getattr(error, "exit_code", DeploykitError.exit_code)
            raise typer.Exit(code) from error


def _sentence(error: DeploykitError | OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return f"not enough memory for this network ({error}); a larger machine may do"
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror}"
    return str(error)


app = typer.Typer(
    name="deploykit",
    cls=SentenceGroup,
    help="Take a Bayesian-trained checkpoint to ONNX and TFLite, prove it, and measure it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("export", cls=ExportCommand)(export)
app.command("prune")(prune)
app.command("verify")(verify)
app.command("diagnose")(diagnose)
app.command("bench")(bench)
app.command("inspect")(inspect)
app.command("convert-checkpoint")(convert_checkpoint)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"deploykit {version('deploykit')}")
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(
        False,
        "--version",
        callback=_print_version,
        is_eager=True,
        help="Print the version and end.",
    ),
) -> None:
    """Declare the options in front of the verb; `SentenceGroup` reads --debug."""


def main() -> None:
    """Entry point of the command `deploykit`."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a log that has no arrow gets a question mark, not an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, _terminate)
    app()


def _terminate(number: int, frame: object) -> None:
    """End as after an error, so that what was half written goes."""
    sys.exit(128 + number)

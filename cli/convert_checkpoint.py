"""deploykit convert-checkpoint: how to re-save a file that only its own environment can read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="A file whose pickle wants to run code.")],
) -> None:
    """Print a script that re-saves a checkpoint as tensors, to run where it was trained."""
    from deploykit.errors import CheckpointError
    from deploykit.posterior.recipe import recipe

    if not checkpoint.is_file():
        raise CheckpointError(f"{checkpoint}: there is no such file")
    typer.echo(recipe(checkpoint), nl=False)

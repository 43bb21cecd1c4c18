"""Flags that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

Align = Annotated[
    str | None,
    typer.Option(
        help="Dead channels stay, or are added, where that is faster: auto (as measured for "
        "--target), none, or N for multiples of N.  [default: auto]"
    ),
]

Target = Annotated[
    str | None,
    typer.Option(help="Kernels that --align auto means: host, or a table's name.  [default: host]"),
]

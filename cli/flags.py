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

ExportTarget = Annotated[
    str | None,
    typer.Option(
        help="Whose kernels are planned for: any or x86-avx2 keep weights exact on x86 without "
        "VNNI too; host, or a width table's name, is what --align auto means.  [default: host]"
    ),
]

Target = Annotated[
    str | None,
    typer.Option(help="Kernels that --align auto means: host, or a table's name.  [default: host]"),
]

"""One look for all figures, and how they are written. matplotlib is imported when something is drawn."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from verl_fgrpo.core.files import write_atomic

#: Okabe and Ito's colours, told apart by colour-blind readers; then more for many lines
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8B4513", "#7B3294")
GREY = "#7f7f7f"  # for a start model or a reference
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">")

_NO_XML = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # characters that XML cannot hold

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "figure.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "text.parse_math": False,  # a run may be named $\frac$
    "svg.fonttype": "none",
    "svg.hashsalt": "verl_fgrpo",  # with no date in it: the same data gives the same file
}


@contextmanager
def figure_style() -> Iterator[None]:
    """The style, for `with` or as a decorator `@figure_style()` of a function that draws."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


@figure_style()
def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **subplots: Any) -> tuple[Any, list[Any]]:
    """A figure of so many inches and its axes, row by row, without pyplot's global state.

    `subplots` go to `Figure.subplots`, e.g. sharey=True.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **subplots).ravel())


@figure_style()
def save_figure(figure: Any, path: Path | str, dpi: int = 150) -> list[Path]:
    """Write a figure: as `path` if that ends in .png, .svg or .pdf, else as `path`.png and `path`.svg; the paths.

    Each file is written whole or not at all. Texts are drawn as they are: nothing is read as mathematics, and control
    characters become blanks in an SVG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    path = Path(path)
    alone = path.suffix in (".png", ".svg", ".pdf")
    paths = [path] if alone else [path.with_name(path.name + suffix) for suffix in (".png", ".svg")]
    for file in paths:
        buffer = io.BytesIO()
        no_date = {"CreationDate" if file.suffix == ".pdf" else "Date": None} if file.suffix != ".png" else None
        figure.savefig(buffer, format=file.suffix.removeprefix("."), dpi=dpi, metadata=no_date)
        content = buffer.getvalue()
        write_atomic(file, _NO_XML.sub(b" ", content) if file.suffix == ".svg" else content)
    return paths

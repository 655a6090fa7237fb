"""Tables and figures with hostile names: nothing breaks a table, becomes HTML, or is read as mathematics."""

import csv
import io
import json
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_fgrpo.core.figures import figure_style, new_figure, save_figure
from verl_fgrpo.core.tables import csv_text, markdown_escape, markdown_table, write_table

HOSTILE = ["a|b", "a\nb", "<img src=x onerror=1>", "a\\|b", "[x](javascript:1)", "`|`", "&lt;", "x\u2028y\r\nz", "\\"]


def cells(line):
    """Cells of a line as GitHub splits them: at every pipe that no backslash escapes."""
    parts = re.findall(r"(?:\\.|[^|\\])+", line.strip()[1:-1])
    return [re.sub(r"\\(.)", r"\1", part).strip() for part in parts]


def test_a_table_by_hand():
    table = markdown_table(["run", "pass@1", "note"], [["grpo", 12.5, None], ["f_grpo", "13.0 [1, 2]", "x"]])
    assert table == (
        "| run | pass@1 | note |\n| --- | ---: | ---: |\n| grpo | 12.5 |  |\n| f_grpo | 13.0 [1, 2] | x |\n"
    )
    with pytest.raises(ValueError, match="a row has 1 cells, but the table has 2 columns"):
        markdown_table(["a", "b"], [["x"]])


@given(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20)))
def test_no_name_breaks_a_table_or_becomes_html(name):
    table = markdown_table(["run", "value"], [[name, 1]])
    assert len(table.splitlines()) == 3
    line = table.splitlines()[2]
    assert len(cells(line)) == 2
    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)|\]\(", line)
    shown = cells(line)[0].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert shown == re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", name).strip()


def test_a_line_can_be_escaped_alone():
    assert markdown_escape("a|b <c>\n") == "a\\|b &lt;c&gt; "


def test_csv_and_json_keep_every_name(tmp_path):
    rows = [{"run": name, "value": 0.5} for name in HOSTILE]
    paths = write_table(rows, tmp_path / "deep" / "table.v1", "text\n", settings={"k": 1})
    assert [path.name for path in paths] == ["table.v1.md", "table.v1.csv", "table.v1.json"]
    assert [row["run"] for row in csv.DictReader(io.StringIO(paths[1].read_bytes().decode(), newline=""))] == HOSTILE
    content = json.loads(paths[2].read_text())
    assert content["rows"] == rows and content["settings"] == {"k": 1} and "provenance" in content
    assert csv_text([], ["a", "b"]) == "a,b\n"
    with pytest.raises(ValueError, match="rows is empty"):
        write_table([], tmp_path / "x", "")


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", [r"$\frac$", "$x", r"\$5$", "<b>&", "a\x00b"])
def test_a_name_in_a_figure_is_drawn_as_it_is(tmp_path, name):
    figure, (axes,) = new_figure(4, 3)
    axes.bar([name, "other"], [1, 2], label=name)
    axes.set_title(name)
    axes.annotate(name, (0, 1))
    axes.legend()
    figure.suptitle(name)
    png, svg = save_figure(figure, tmp_path / "figure.v1")
    assert (png.name, svg.name) == ("figure.v1.png", "figure.v1.svg") and png.read_bytes()[:4] == b"\x89PNG"
    texts = [
        "".join(element.itertext())
        for element in ElementTree.fromstring(svg.read_text()).iter()
        if "text" in element.tag
    ]
    assert texts.count(name.replace("\x00", " ")) == 5  # tick, legend, title, note, title of the figure


def test_the_same_figure_gives_the_same_file_and_leaves_no_style_behind(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    files = []
    for number in range(2):
        figure, (axes,) = new_figure(3, 2)
        axes.plot([1, 2], [3, 4])
        files.append([path.read_bytes() for path in save_figure(figure, tmp_path / str(number))])
    assert files[0] == files[1]
    with figure_style():
        assert matplotlib.rcParams["axes.spines.top"] is False
    assert dict(matplotlib.rcParams) == before


def test_a_nul_becomes_its_symbol_in_csv() -> None:
    assert csv_text([{"run": "a\0b", "k": 1}]) == "run,k\na\u2400b,1\n"

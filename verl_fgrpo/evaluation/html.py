"""A report or comparison as one HTML file: no network, light and dark, usable by keyboard.

Names and model text are hostile: every text goes through `html.escape`, and the page's content security policy lets
nothing run but the one script below (by its hash), load nothing and send nothing.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from verl_fgrpo.core.provenance import provenance
from verl_fgrpo.evaluation.problems import Problem, ProblemKey
from verl_fgrpo.evaluation.samples import VERDICTS, SampleStore
from verl_fgrpo.evaluation.summary import RunData

Row = Mapping[str, Any]
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
EXCERPTS = 3  # samples shown of a problem and run, correct ones first
CHARACTERS = 6_000  # of a sample: the end counts, the answer stands there

STYLE = """
:root { color-scheme: light dark; --ink: #1a1d21; --paper: #fff; --line: #d5d9de; --soft: #f3f5f7; --accent: #0b62a4;
  --right: #17693b; --wrong: #9a2c14; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --paper: #14171a; --line: #3a4047; --soft: #1e2327;
  --accent: #79b8ee; --right: #7ecb9b; --wrong: #f0937d; } figure svg { filter: invert(1) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; background: var(--paper); padding: .4rem; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.wide { overflow-x: auto; margin: .8rem 0; } figure #patch_1 path { fill: none !important; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere; max-width: 26rem; }
th { font-weight: 600; background: var(--soft); overflow-wrap: break-word; }
td.n, th.n { text-align: right; white-space: nowrap; }
.warn { border-left: .3rem solid var(--wrong); background: var(--soft); padding: .5rem .9rem; }
.tools { display: flex; flex-wrap: wrap; gap: .8rem; margin: .8rem 0; align-items: end; }
.tools label { display: grid; font-size: .85rem; } input, select { font: inherit; padding: .25rem .4rem; }
details { border-bottom: 1px solid var(--line); padding: .35rem 0; } summary { cursor: pointer; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; background: var(--soft); padding: .6rem;
  margin: .3rem 0; max-height: 24rem; overflow: auto; font-size: .85rem; }
.correct { color: var(--right); } .other { color: var(--wrong); } [hidden] { display: none; }
"""

# Every filter box belongs to the list that its `data-list` names; entries are found by their text.
SCRIPT = """
for (const box of document.querySelectorAll(".tools")) {
  const entries = [...document.getElementById(box.dataset.list).querySelectorAll("[data-entry]")];
  const texts = entries.map(entry => entry.textContent.toLowerCase());
  const count = box.querySelector("output");
  const filter = () => {
    const words = box.querySelector("input").value.toLowerCase().split(/\\s+/);
    const chosen = [...box.querySelectorAll("select")];
    let shown = 0;
    entries.forEach((entry, i) => {
      const fits = chosen.every(one => !one.value || entry.dataset[one.name] === one.value)
        && words.every(word => texts[i].includes(word));
      entry.hidden = !fits;
      shown += fits;
    });
    count.textContent = `${shown} of ${entries.length}`;
  };
  box.addEventListener("input", filter);
  filter();
}
"""


class Excerpt(NamedTuple):
    """One sample as it is shown."""

    sample_idx: int
    verdict: str
    response: str


def page(title: str, warning: str, sections: Sequence[str], about: Mapping[str, Any]) -> str:
    """The whole file; `warning` says what makes the runs unfinished, `about` is shown as provenance."""
    allowed = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'; base-uri 'none'"
    told = f"<pre>{text(json.dumps({**about, 'written': provenance()}, indent=2))}</pre>"
    warned = f'<p class="warn" role="alert"><b>Not finished.</b> {text(warning)}</p>' if warning else ""
    return "".join(
        (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{text(title)}</title><style>{STYLE}</style></head><body>",
            f'<a class="skip" href="#main">Skip to the content</a>{warned}<h1>{text(title)}</h1><main id="main">',
            *sections,
            section("Provenance", f"<details><summary>Settings, versions, time</summary>{told}</details>"),
            f"</main><script>{SCRIPT}</script></body></html>\n",
        )
    )


def text(value: object) -> str:
    """Any text as HTML that shows it; control characters, those that turn the direction of writing too, are marked."""
    return escape(_CONTROL.sub("\ufffd", str(value)), quote=True)


def section(heading: str, body: str) -> str:
    return f"<section><h2>{text(heading)}</h2>{body}</section>"


def figure(svg_file: Path, described: str) -> str:
    """An SVG file of matplotlib, which escapes its texts, inline."""
    svg = svg_file.read_text(encoding="utf-8")
    svg = svg[svg.index("<svg") :]  # without the XML head
    return f'<figure role="img" aria-label="{text(described)}">{svg}</figure>'


def table(header: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """Cells as they shall show; bold where a cell begins and ends with two asterisks, as in Markdown."""
    head = "".join(f'<th scope="col"{_number(column, left)}>{text(name)}</th>' for column, name in enumerate(header))
    body = "".join(f"<tr>{_cells(row, left)}</tr>" for row in rows)
    return f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def problem_table(rows: Sequence[Row], runs: Sequence[str]) -> str:
    """All problems with counts of every run, to filter and search."""
    by_problem: dict[ProblemKey, dict[str, Row]] = {}
    for row in rows:
        by_problem.setdefault((row["benchmark"], row["problem_id"]), {})[row["run"]] = row
    header = "".join(f'<th scope="col">{text(name)}</th>' for name in ("benchmark", "problem", *runs))
    lines = []
    for (benchmark, problem_id), found in by_problem.items():
        counts = (
            f"{found[run]['num_correct']} of {found[run]['num_samples']}" if run in found else "-" for run in runs
        )
        cells = "".join(f"<td>{text(cell)}</td>" for cell in (benchmark, problem_id, *counts))
        lines.append(f'<tr data-entry data-benchmark="{text(benchmark)}">{cells}</tr>')
    tools = _tools("problems", {"benchmark": sorted({key[0] for key in by_problem})})
    body = f'<table id="problems"><thead><tr>{header}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'{tools}<div class="wide" tabindex="0">{body}</div>'


def changed_problems(
    changed: Sequence[Row],
    names: tuple[str, str],
    problems: Mapping[ProblemKey, Problem],
    excerpts: Sequence[Mapping[ProblemKey, Sequence[Excerpt]]],
    number: int,
) -> str:
    """Problems gained and lost, with samples of both runs side by side, to filter and search.

    Args:
        changed: rows of `compare.changed_problems`.
        names, excerpts: of the base and of the other run; `read_excerpts`.
        problems: the questions.
        number: of this list on the page.
    """
    entries = []
    for row in changed:
        key = (row["benchmark"], row["problem_id"])
        problem = problems.get(key)
        gold = " or ".join(problem.answers) if problem else ""
        head = f"{row['change']}: {row['benchmark']} / {row['problem_id']}"
        counts = [f"{row[f'{side}_correct']} of {row[f'{side}_samples']} correct" for side in ("base", "focal")]
        sides = "".join(
            f"<section><h3>{text(name)}: {count}</h3>{''.join(map(_sample, side.get(key, ())))}</section>"
            for name, count, side in zip(names, counts, excerpts, strict=True)
        )
        entries.append(
            f'<details data-entry data-change="{text(row["change"])}" data-benchmark="{text(row["benchmark"])}">'
            f"<summary>{text(head)} ({text(counts[0])} / {text(counts[1])})</summary>"
            f"<pre>{text(problem.prompt if problem else '')}</pre><p>Gold answer: {text(gold)}</p>"
            f'<div class="pair">{sides}</div></details>'
        )
    if not entries:
        return ""
    choices = {name: sorted({row[name] for row in changed}) for name in ("change", "benchmark")}
    return f'{_tools(f"changed{number}", choices)}<div id="changed{number}">{"".join(entries)}</div>'


def read_excerpts(run: Path, data: RunData, keys: Sequence[ProblemKey]) -> dict[ProblemKey, list[Excerpt]]:
    """Up to `EXCERPTS` samples of each problem, correct ones first, in one pass over the run's samples."""
    wanted: dict[ProblemKey, dict[int, str]] = {}
    for key in keys:
        samples = data.problems[key]
        order = sorted(range(len(samples)), key=lambda index: not samples.correct[index])[:EXCERPTS]
        wanted[key] = {int(samples.indices[index]): VERDICTS[samples.verdicts[index]] for index in order}
    found: dict[ProblemKey, list[Excerpt]] = {key: [] for key in keys}
    for sample in SampleStore(run / "samples").read() if keys else ():
        verdict = wanted.get((sample.benchmark, sample.problem_id), {}).get(sample.sample_idx)
        if verdict is not None:
            response = sample.response[-CHARACTERS:]
            if left_out := len(sample.response) - len(response):
                response = f"[{left_out} characters before] {response}"
            found[sample.benchmark, sample.problem_id].append(Excerpt(sample.sample_idx, verdict, response))
    for rows in found.values():
        rows.sort(key=lambda row: (row.verdict != "correct", row.sample_idx))
    return found


def _sample(excerpt: Excerpt) -> str:
    kind = "correct" if excerpt.verdict == "correct" else "other"
    return (
        f'<h4 class="{kind}">sample {excerpt.sample_idx}: {text(excerpt.verdict)}</h4>'
        f'<pre tabindex="0">{text(excerpt.response)}</pre>'
    )


def _tools(of: str, choices: Mapping[str, Sequence[str]]) -> str:
    selects = "".join(
        f'<label>{text(name)}<select name="{text(name)}"><option value="">all</option>'
        + "".join(f'<option value="{text(value)}">{text(value)}</option>' for value in values)
        + "</select></label>"
        for name, values in choices.items()
    )
    return (
        f'<div class="tools" data-list="{of}" role="search">{selects}<label>search<input type="search"></label>'
        '<output aria-live="polite"></output></div>'
    )


def _cells(row: Sequence[object], left: int) -> str:
    cells = []
    for column, value in enumerate(row):
        shown = str(value)
        bold = len(shown) > 4 and shown.startswith("**") and shown.endswith("**")
        inner = f"<b>{text(shown[2:-2])}</b>" if bold else text(shown)
        cells.append(f"<td{_number(column, left)}>{inner}</td>")
    return "".join(cells)


def _number(column: int, left: int) -> str:
    return ' class="n"' if column >= left else ""

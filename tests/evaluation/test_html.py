"""The page: what it holds, and what a real browser does with it."""

import re
from pathlib import Path

import pytest
from chromium import CHROMIUM, Browser
from graded_runs import make_run

from verl_fgrpo.evaluation.cli import main
from verl_fgrpo.evaluation.html import Excerpt, changed_problems, read_excerpts, table, text
from verl_fgrpo.evaluation.problems import Problem
from verl_fgrpo.evaluation.summary import load_run

ATTACK = (
    "</pre></script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
    "<svg onload=document.title='pwned'><a href=javascript:document.title='pwned'>x</a>"
    "<link rel=stylesheet href=http://127.0.0.1:9/x.css><iframe src=http://127.0.0.1:9/></iframe>\x00\u202e"
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on the PATH (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    response = f"%s {ATTACK} \\boxed{{x}}"
    first = make_run(folder / "a", {"kept": "1100", "never": "0000", ATTACK: "1000", "q": "0000"}, text=response)
    second = make_run(folder / "b", {"kept": "1110", "never": "0000", ATTACK: "0000", "q": "0101"}, text=response)
    names = [f"GRPO {ATTACK}={first}", f"F-GRPO={second}"]
    report, comparison = folder / "report.html", folder / "compare.html"
    main(["report", "--runs", *names, "--out", str(folder / "r"), "--html", str(report), "--title", ATTACK])
    arguments = ["compare", "--base", names[0], "--focal", names[1], "--out", str(folder / "c"), "--ks", "1", "2"]
    main([*arguments, "--m", "2", "--iterations", "200", "--html", str(comparison)])
    return {"report": report, "comparison": comparison}


def test_no_text_becomes_markup(pages: dict[str, Path]) -> None:
    for page in pages.values():
        content = page.read_text(encoding="utf-8")
        assert len(re.findall(r"<script", content)) == 1  # ours
        assert "<img" not in content and "<iframe" not in content and "<link" not in content and "\x00" not in content
        assert "&lt;img src=x onerror=&quot;" in content
        outside = re.sub(r"&lt;.*?&gt;", "", content)
        assert not re.search(r"(src|href)=[\"']?(https?:)?//", outside)


def test_lost_and_gained_problems_with_samples_side_by_side(pages: dict[str, Path]) -> None:
    content = pages["comparison"].read_text(encoding="utf-8")
    assert content.count("<details data-entry") == 2
    gained = content[content.index('data-change="gained"') : content.index('data-change="lost"')]
    assert "GRPO" in gained and "0 of 4 correct" in gained and "2 of 4 correct" in gained
    assert re.findall(r'<h4 class="\w+">(.*?)</h4>', gained) == [
        "sample 0: wrong",
        "sample 1: wrong",
        "sample 2: wrong",
        "sample 1: correct",
        "sample 3: correct",
        "sample 0: wrong",
    ]


def test_excerpts_are_cut_at_the_front(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"p": "10"}, text="x" * 7000 + "%s")
    [first, second] = read_excerpts(run, load_run(run), [("toy", "p")])["toy", "p"]
    assert first.verdict == "correct" and first.response.startswith("[1001 characters before] xxx")
    assert first.response.endswith("x1") and second.response.endswith("x0")


def test_text_and_tables() -> None:
    assert text('<a & "b" \'\x07\ud800') == "&lt;a &amp; &quot;b&quot; &#x27;\ufffd\ufffd"
    assert "<td><b>&lt;i&gt;</b></td>" in table(["x"], [["**<i>**"]])
    assert '<td class="n">**</td>' in table(["x", "y"], [["a", "**"]])
    row = {"change": "lost", "benchmark": "b", "problem_id": "p", "base_correct": 1, "base_samples": 2}
    row |= {"focal_correct": 0, "focal_samples": 2}
    problem = {("b", "p"): Problem("b", "p", "<q>", "math", ("1/2", "0.5"))}
    section = changed_problems([row], ("A", "B"), problem, [{("b", "p"): [Excerpt(1, "correct", "<r>")]}, {}], 0)
    assert "&lt;q&gt;" in section and "1/2 or 0.5" in section and "&lt;r&gt;" in section


@needs_browser
def test_in_a_real_browser_nothing_runs_but_the_filter(pages: dict[str, Path], tmp_path: Path) -> None:
    with Browser(pages["comparison"], tmp_path / "profile") as browser:
        assert browser.evaluate("document.title") == "Comparison with GRPO " + ATTACK.replace("\x00", "\ufffd").replace(
            "\u202e", "\ufffd"
        )
        assert browser.evaluate("document.querySelectorAll('img, iframe, link, main script').length") == 0
        assert {url.split(":")[0] for url in browser.requests} == {"file"} and len(browser.requests) == 1
        # by keyboard: the skip link comes first; typing into the search box filters
        browser.press("Tab", 9)
        assert browser.evaluate("document.activeElement.className") == "skip"
        shown = "[...document.querySelectorAll('details[data-entry]')].filter(one => !one.hidden).length"
        assert (
            browser.evaluate("document.querySelector('output').textContent") == "2 of 2"
            and browser.evaluate(shown) == 2
        )
        browser.evaluate("document.querySelector('select[name=change]').focus()")
        browser.press("ArrowDown", 40)  # gained
        assert (
            browser.evaluate("document.querySelector('output').textContent") == "1 of 2"
            and browser.evaluate(shown) == 1
        )
        browser.press("Tab", 9)
        browser.press("Tab", 9)
        for letter in "nothing of this":
            browser.press(letter, ord(letter.upper()), letter)
        assert browser.evaluate("document.querySelector('output').textContent") == "0 of 2"
        browser.evaluate("document.querySelector('input').value = ''")
        browser.press("a", 65, "a")
        browser.evaluate("document.querySelector('details[data-entry]').querySelector('summary').focus()")
        browser.press("Enter", 13, "\r")
        assert browser.evaluate("document.querySelector('details[data-entry]').open") is True


@needs_browser
def test_light_and_dark(pages: dict[str, Path], tmp_path: Path) -> None:
    colours = []
    with Browser(pages["report"], tmp_path / "profile") as browser:
        for scheme in ("light", "dark"):
            browser("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            colours.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert browser.evaluate("document.querySelector('figure svg').getBoundingClientRect().width") > 300
        assert browser.evaluate("document.querySelectorAll('tr[data-entry]').length") == 4
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 23, 26)"]

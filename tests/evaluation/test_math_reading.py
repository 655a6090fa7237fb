r"""The extended reading: the table of docs/grading.md with the default's verdict beside it; each rule in general."""

import json
import math
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_math import BENCHMARKS, NO_DATA

from verl_fgrpo.evaluation.graders import GraderOptions, default_verdict, grade_math, grade_math_extended, grader_of
from verl_fgrpo.evaluation.math_reading import EXTENDED, RULES, final_answer, rewritten, same_based
from verl_fgrpo.evaluation.problems import Problem


def verdicts(gold: str, response: str) -> tuple[str, str]:
    """(default, extended), checked against each other."""
    problem = Problem("b", "p", "q", "math", (gold,))
    default = grade_math(problem, response)[0]
    extended, _, detail = grade_math_extended(problem, response)
    assert default_verdict(extended, detail) == default
    return default, extended


# gold, response, verdict of the default reading, of the extended one
TABLE = [
    (r"\emptyset", r"\boxed{\varnothing}", "wrong", "correct"),
    (r"\emptyset", r"\boxed{∅}", "correct", "correct"),
    (r"35\%", r"\boxed{0.35}", "wrong", "correct"),
    ("0.35", r"\boxed{35\%}", "wrong", "correct"),
    ("0.35", r"\boxed{35}", "wrong", "wrong"),
    ("0.35", r"\boxed{0.35\%}", "wrong", "wrong"),
    ("35", r"\boxed{35\%}", "wrong", "correct"),
    ("1234567", r"\boxed{1\,234\,567}", "wrong", "correct"),
    ("1234567", r"\boxed{1 234 567}", "wrong", "correct"),
    ("1234567", r"\boxed{1\,234\,568}", "wrong", "wrong"),
    (r"\frac{7}{3}", "The answer is 2 1/3.", "wrong", "correct"),
    (r"\frac{7}{3}", r"\boxed{2\ \frac{1}{3}}", "correct", "correct"),
    (r"\frac{7}{3}", r"\boxed{2 2/3}", "wrong", "wrong"),
    ("4.5e33", r"\boxed{4.5 \times 10^{33}}", "wrong", "correct"),
    (r"4.5 \times 10^{33}", r"\boxed{4.5e33}", "wrong", "correct"),
    (r"4.5 \times 10^{33}", r"\boxed{4.5E+33}", "correct", "correct"),
    (r"4.5 \times 10^{33}", r"\boxed{4.5e32}", "wrong", "wrong"),
    (r"4.5 \times 10^{-33}", r"\boxed{4.6 \times 10^{-33}}", "correct", "wrong"),
    (r"6.63 \times 10^{-34}", r"\boxed{6.626 \times 10^{-34}}", "correct", "correct"),  # three digits
    (r"\frac{1}{30!}", r"\boxed{\frac{1}{31!}}", "correct", "wrong"),
    (r"\frac{1}{30!}", r"\boxed{\frac{1}{30!}}", "correct", "correct"),
    (r"y^{\prime}+2y-3t=0", r"\boxed{y'+2y-3t=0}", "wrong", "correct"),
    (r"y^{\prime}+2y-3t=0", r"\boxed{y+2y-3t=0}", "wrong", "wrong"),
    (r"e^{i\pi/3}", r"\boxed{\frac12 + \frac{\sqrt3}{2}i}", "wrong", "correct"),
    (r"e^{i\pi/3}", r"\boxed{\frac12 - \frac{\sqrt3}{2}i}", "wrong", "wrong"),
    ("7", "所以答案是7。", "unparsed", "correct"),
    ("7", "\\boxed{7以上}", "wrong", "wrong"),
    ("7", "\\boxed{约7}", "wrong", "correct"),
    ("7", "\\boxed{8}\\boxed{7}", "wrong", "wrong"),
    ("7", "\\boxed{\\textcolor{red}{7}}", "wrong", "correct"),
    ("7", "\\boxed{\u200b7}", "wrong", "correct"),
    ("6", r"答案是 \boxed{6个}", "wrong", "correct"),
    ("6", r"答案是 \boxed{7个}", "wrong", "wrong"),
    ("2314_5", r"\boxed{2314_6}", "correct", "wrong"),
    ("2314_5", r"\boxed{2314_{5}}", "correct", "correct"),
    ("2314_5", r"\boxed{2314_{\text{five}}}", "wrong", "correct"),
    ("7", r"First \boxed{5}. That fails a check, so the answer is \boxed{7}.", "wrong", "correct"),
    ("5", r"First \boxed{5}. That fails a check, so the answer is \boxed{7}.", "wrong", "wrong"),
    ("5,7", r"The roots are \boxed{5} and \boxed{7}.", "correct", "correct"),
    ("5,7", r"Part 1: \boxed{5}. Part 2: \boxed{7}.", "wrong", "wrong"),
    ("12", "<answer>12</answer>", "unparsed", "correct"),
    ("17.", r"\boxed{17}", "wrong", "correct"),
    ("17", r"\boxed{17.}", "wrong", "correct"),
    (r"[3,\infty)", r"\boxed{x \ge 3}", "wrong", "correct"),
    (r"[3,\infty)", r"\boxed{x > 3}", "wrong", "wrong"),
    (r"4\sqrt{2}", r"\boxed{4√2}", "wrong", "correct"),
    (r"\begin{pmatrix}-1\\4\end{pmatrix}", r"\boxed{(-1,4)}", "wrong", "correct"),
    (r"\begin{pmatrix}-1\\4\end{pmatrix}", r"\boxed{(4,-1)}", "wrong", "wrong"),
    ("C", r"\boxed{\textbf{(C)}\ 14}", "wrong", "correct"),
    ("C", r"\boxed{\textbf{(B)}\ 14}", "wrong", "wrong"),
    (r"\text{(C)}", r"\boxed{\textbf{(C)}\ 14}", "wrong", "correct"),
    ("12", r"\boxed{1 2}", "wrong", "wrong"),
    (r"\frac{13}{4}", r"\boxed{3 \text{ and } \frac{1}{4}}", "wrong", "correct"),
    (r"\emptyset", r"\boxed{\text{no solution}}", "wrong", "correct"),
    ("5", r"\boxed{\text{five}}", "wrong", "correct"),
    ("5", r"\boxed{\text{six}}", "wrong", "wrong"),
    ("7", r"\boxed{七}", "wrong", "correct"),
    ("12", "The answer could be either 12 or 13.", "correct", "wrong"),
    ("-1", r"\boxed{e^{i\pi}}", "wrong", "correct"),
    (r"3 \times 10^8", r"\boxed{3 x 10^8}", "wrong", "correct"),
    ("8", r"<think>Perhaps \boxed{9}.</think> The answer is \boxed{8}.", "correct", "correct"),
    ("x^2+2x", r"\boxed{x(x+2)}", "correct", "correct"),
    ("42", "I do not know", "unparsed", "unparsed"),
    *((str(n), rf"\boxed{{{n}{unit}}}", "wrong", "wrong") for n in (3, 36) for unit in "万亿千百成打折"),
    ("36", r"\boxed{36千米}", "wrong", "correct"),
    ("5", r"\boxed{2} \text{ or } \boxed{5}", "wrong", "wrong"),
    ("2,5", r"\boxed{2}\text{ and }\boxed{5}", "correct", "correct"),
    ("2,5", r"\boxed{x=2 \text{ or } x=5}", "correct", "correct"),
    ("12", r"\boxed{12!}", "wrong", "wrong"),
    ("12", r"\boxed{\ge 12}", "correct", "wrong"),
    (r"x\ge 12", r"\boxed{x\ge 12}", "correct", "correct"),
    ("12", "The answer is not 12.", "correct", "wrong"),
    ("12", "The answer is at least 12.", "correct", "wrong"),
    ("12", "The answer is 12 or 13.", "correct", "wrong"),
    (r"-\frac{3}{2}", r"\boxed{-2\ 1/2}", "correct", "wrong"),
    (r"-\frac{5}{2}", r"\boxed{-2\ 1/2}", "wrong", "correct"),
    (r"\frac{1}{6}", r"\boxed{0.1\overline{6}}", "wrong", "correct"),
    (r"\frac{1}{6}", r"\boxed{0.\overline{16}}", "wrong", "wrong"),
    ("12", r"\boxed{\textbf{(B)}\ 12}", "wrong", "correct"),
    ("12", r"\boxed{\textbf{(B)}\ 13}", "wrong", "wrong"),
    (r"12.5\%", r"\boxed{12.5\,\%}", "wrong", "correct"),
    ("42_5", r"\boxed{42_{\text{base } 5}}", "wrong", "correct"),
    (r"6.02 \times 10^{23}", r"\boxed{6.02\text{E}23}", "wrong", "correct"),
]


@pytest.mark.parametrize(("gold", "response", "default", "extended"), TABLE)
def test_the_table(gold: str, response: str, default: str, extended: str) -> None:
    assert verdicts(gold, response) == (default, extended)


def test_parentheses_by_the_hundred() -> None:
    assert rewritten("(" * 250 + "5" + ")" * 250) == "5"
    assert rewritten("{" * 50 + "5" + "}" * 50) == "5"
    assert rewritten(r"\frac{1}{2}") == r"\frac{1}{2}" and rewritten(r"\{1, 2\}") == r"\{1, 2\}"
    assert rewritten("(1, 2)") == "(1, 2)" and rewritten("((1, 2))") == "(1, 2)" and rewritten("2((x))") == "2(x)"


@pytest.mark.parametrize(
    "gold", ["(-1, 4)", "[2, 5]", r"\frac{3\sqrt{2}}{4}", "x^2+2x", r"\{1, 2\}", r"\text{even}", "3x'"]
)
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_applied_twice_is_applied_once(rule: str, gold: str) -> None:
    assert RULES[rule](RULES[rule](gold)) == RULES[rule](gold)


@given(st.integers(1000, 10**12), st.sampled_from([r"\,", "{,}", r"\ ", " ", "~", "\u202f", "'", r"\;"]))
@settings(max_examples=40)
def test_thousands(number: int, separator: str) -> None:
    groups = f"{number:,}".split(",")
    assert rewritten(separator.join(groups)) == str(number)
    assert rewritten(separator.join([*groups[:-1], groups[-1][:2]])) != str(number)


@given(
    st.integers(1, 10**6),
    st.integers(2, 500),
    st.data(),
    st.sampled_from(["{} {}/{}", r"{}\ \frac{{{}}}{{{}}}", "{} and {}/{}"]),
)
@settings(max_examples=40)
def test_mixed_numbers(whole: int, bottom: int, data: st.DataObject, form: str) -> None:
    top = data.draw(st.integers(1, bottom - 1))
    value = whole + Fraction(top, bottom)
    assert rewritten(form.format(whole, top, bottom)) == rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


@given(
    st.decimals("0.1", 9, places=2), st.integers(-40, 40), st.sampled_from(["{}e{}", "{}E{}", "{} e {}", "{}e{:+d}"])
)
@settings(max_examples=40)
def test_scientific_notation(mantissa: object, exponent: int, form: str) -> None:
    assert rewritten(form.format(mantissa, exponent)) == rf"{mantissa} \times 10^{{{exponent}}}"


@given(st.integers(1, 99), st.sampled_from([r"{}\%", "{}%", "{} \\%", r"{}\text{{ percent}}", "{} percent"]))
@settings(max_examples=20, deadline=None)
def test_percentages(number: int, form: str) -> None:
    assert verdicts(str(Fraction(number, 100)), f"\\boxed{{{form.format(number)}}}")[1] == "correct"
    assert verdicts(str(Fraction(number, 100)), f"\\boxed{{{form.format(number + 1)}}}")[1] == "wrong"


@given(st.integers(2, 10), st.data())
@settings(max_examples=40)
def test_bases(base: int, data: st.DataObject) -> None:
    digits = data.draw(st.text("0123456789"[:base], min_size=1, max_size=8).filter(lambda text: text.strip("0")))
    other = data.draw(st.integers(2, 16).filter(lambda number: number != base))
    based = f"{digits}_{{{base}}}"
    assert same_based(based, f"{digits}_{{{other}}}") is False
    assert same_based(based, f"({digits})_{{{base}}}") is True
    assert same_based(based, digits) is None


@given(st.integers(12, 200), st.integers(1, 20))
@settings(max_examples=15, deadline=None)
def test_tiny_numbers_keep_three_digits(number: int, more: int) -> None:
    one, other = rf"\frac{{1}}{{{number}!}}", rf"\frac{{1}}{{{number + more}!}}"
    assert verdicts(one, f"\\boxed{{{other}}}")[1] == "wrong"
    assert verdicts(one, f"\\boxed{{{one}}}")[1] == "correct"
    assert math.factorial(number) > 1e3


@given(
    st.integers(1, 99),
    st.sampled_from("个元人只次种天页岁米"),
    st.sampled_from(["{}{}", r"{}\text{{{}}}", "共{}{}", "{} {}。"]),
)
@settings(max_examples=20)
def test_chinese_units(number: int, unit: str, form: str) -> None:
    assert rewritten(form.format(number, unit)) == str(number)


TAKEN_BACK = [
    "That fails, so",
    "Wait, no.",
    "This is incorrect. Instead",
    "不对，重新算：",
    "Actually,",
    "I made a mistake:",
]


@given(st.integers(1, 99), st.integers(100, 199), st.sampled_from(TAKEN_BACK))
@settings(max_examples=20, deadline=None)
def test_the_box_after_a_correction_counts(first: int, second: int, words: str) -> None:
    response = f"\\boxed{{{first}}}. {words} \\boxed{{{second}}}"
    assert final_answer(response) == (str(second), True)
    assert verdicts(str(second), response)[1] == "correct"
    assert verdicts(str(first), response)[1] == "wrong"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"$\boxed{1}$, $\boxed{2}$ or $x = \boxed{3}$", "1, 2, 3"),
        (r"\boxed{1}. Part 2: \boxed{2}", "2"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("<answer> 12 </answer>", "12"),
        ("The answer is 12.", "12"),
        ("The final answer to part b is: 12. I hope this helps.", "12"),
        ("答案是12。谢谢", "12"),
    ],
)
def test_final_answers(text: str, answer: str) -> None:
    found = final_answer(text)
    assert found is not None and found.text == answer


def test_no_final_answer_leaves_the_default() -> None:
    assert final_answer("I think $x = 4$") is None
    assert verdicts("4", "I think $x = 4$") == ("correct", "correct")


def test_the_option_names_the_version() -> None:
    assert EXTENDED == "extended-4"
    problem = Problem("b", "p", "q", "math", ("0.35",))
    for reading, verdict in (("default", "wrong"), (EXTENDED, "correct")):
        assert grader_of("math", GraderOptions(reading=reading))(problem, r"\boxed{35\%}")[0] == verdict
    with pytest.raises(ValueError, match="reading 'loose' must be one of default, extended-4"):
        GraderOptions(reading="loose")


@given(st.text(max_size=80), st.sampled_from([r"\boxed{", "The answer is ", "<answer>", "答案是"]))
@settings(max_examples=200, deadline=None)
def test_any_text_is_rewritten_without_an_error(text: str, before: str) -> None:
    found = final_answer(before + text + "}")
    assert found is None or isinstance(rewritten(found.text), str)


@pytest.mark.parametrize(
    "piece", [r"\boxed{", r"\boxed{1} and ", "(", "1 2/3 ", "1e5 ", "1\\,000", "'", "x'", "answer is ", "{", "个"]
)
def test_a_hundred_thousand_characters_are_rewritten_in_linear_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    started = time.process_time()
    rewritten(text)
    final_answer(text)
    assert time.process_time() - started < 60  # a second or two, unless something is quadratic


FAILING = BENCHMARKS.parent / "reports" / "failing.jsonl"


@pytest.mark.skipif(not FAILING.exists(), reason=NO_DATA)
def test_reported_faults() -> None:
    rows = [row for row in map(json.loads, FAILING.read_text().splitlines()) if row["id"].startswith("p")]
    assert len(rows) == 22
    problems = {row["id"]: Problem("b", "p", "q", "math", (row["gold"],)) for row in rows}
    got = {row["id"]: grade_math_extended(problems[row["id"]], row["response"])[0] == "correct" for row in rows}
    assert got == {row["id"]: row["expected"] == "correct" for row in rows}

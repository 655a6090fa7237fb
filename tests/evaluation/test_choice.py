r"""Multiple choice: the table of docs/grading.md, and the same kinds with other letters, fonts and words."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_math import BENCHMARKS

from verl_fgrpo.evaluation.choice import read_choice
from verl_fgrpo.evaluation.graders import grade_choice
from verl_fgrpo.evaluation.problems import Problem

NAMED = {
    "boxes": {
        r"thus \boxed{B}": "B",
        r"thus \boxed{b}": "B",
        r"thus \boxed{(B)}": "B",
        r"thus \boxed{ ( B ) }": "B",
        r"thus \boxed{[C]}": "C",
        r"\boxed{B.}": "B",
        r"\boxed{B)}": "B",
        r"\boxed{B) 3 m/s}": "B",
        r"\boxed{B. 3 m/s}": "B",
        r"\boxed{B: 3 m/s}": "B",
        r"\boxed{(B) 3 m/s}": "B",
        r"\boxed{D \text{ (iron)}}": None,
        r"\boxed{\text{B}}": "B",
        r"\boxed{\text{(B)}}": "B",
        r"\boxed{\text{ B }}": "B",
        r"\boxed{\textbf{C}}": "C",
        r"\boxed{\textbf{(C)}\ 14}": "C",
        r"\boxed{\textbf{(E)}~\frac{3}{4}}": "E",
        r"\boxed{\mathrm{A}}": "A",
        r"\boxed{\mathbf{A}}": "A",
        r"\boxed{\mathsf{F}}": "F",
        r"\boxed{\textsf{D}}": "D",
        r"\boxed{\textit{D}}": "D",
        r"\boxed{\texttt{D}}": "D",
        r"\boxed{\rm D}": "D",
        r"\boxed{\bf D}": "D",
        r"\boxed{{\bf D}}": "D",
        r"\boxed{\mathbf{\text{D}}}": "D",
        r"\boxed{\text{\textbf{G}}}": "G",
        r"\boxed{\text{Option D}}": "D",
        r"\boxed{\text{option (D)}}": "D",
        r"\boxed{\text{Choice } B}": "B",
        r"\boxed{\text{Answer: D}}": "D",
        r"\boxed{\text{The answer is D}}": "D",
        r"\boxed{\text{The correct answer is (D).}}": "D",
        r"\boxed{$D$}": "D",
        r"$\boxed{D}$": "D",
        r"\[ \boxed{\,D\,} \]": "D",
        r"\boxed{\left(D\right)}": "D",
        r"\boxed{答案是D}": "D",
        r"\boxed{选D}": "D",
        r"\boxed{D项}": "D",
        r"\boxed D": "D",
        r"\fbox{D}": "D",
        r"\boxed{\boxed{D}}": "D",
        r"\boxed{D": "D",
        r"<answer>D</answer>": "D",
        r"<answer> (D) </answer>": "D",
        r"<answer>\boxed{D}</answer>": "D",
        r"\boxed{A}, no, \boxed{C}": "C",
        r"\boxed{A} and again \boxed{A}": "A",
        r"\boxed{A B C D}": None,
        r"\boxed{ABCD}": None,
        r"\boxed{AC}": None,
        r"\boxed{A, B}": None,
        r"\boxed{A,B}": None,
        r"\boxed{A/B}": None,
        r"\boxed{A \text{ or } B}": None,
        r"\boxed{\text{A or B}}": None,
        r"\boxed{\text{A} \text{ or } \text{B}}": None,
        r"\boxed{A and C}": None,
        r"\boxed{\text{both A and C}}": None,
        r"\boxed{(A) \text{ and } (C)}": None,
        r"\boxed{A \& C}": None,
        r"\boxed{A、C}": None,
        r"\boxed{A和C}": None,
        r"\boxed{A或C}": None,
        r"\boxed{A} or \boxed{B}": None,
        r"\boxed{A} or B": None,
        r"\boxed{A}, \boxed{B}": "B",
        r"\boxed{both}": None,
        r"\boxed{a mixture of both}": None,
        r"\boxed{A mixture of two phases}": None,
        r"\boxed{\text{A mixture of two phases}}": None,
        r"\boxed{A strong acid}": None,
        r"\boxed{I am not sure}": None,
        r"\boxed{Iron}": None,
        r"\boxed{4.2}": None,
        r"\boxed{A = 5}": None,
        r"\boxed{A + B}": None,
        r"\boxed{A^2}": None,
        r"\boxed{A_1}": None,
        r"\boxed{Au}": None,
        r"\boxed{}": None,
        r"\boxed{K}": None,
        r"\boxed{\text{none of the above}}": None,
    },
    "boxes and words": {
        r"The energy is \boxed{\langle H\rangle \ll \Delta E}. **Answer: D**": "D",
        r"So x = \boxed{4.2} eV, which matches option D. The answer is D.": "D",
        r"So x = \boxed{4.2} eV, which matches option D.": "D",
        r"The answer is \boxed{C}.": "C",
        r"The answer is C, so \boxed{C}": "C",
        r"The answer is \boxed{A}. Wait, the answer is B.": "B",
        r"\boxed{A, B}. On reflection the answer is A.": "A",
        r"The answer is A. In fact \boxed{A, B}": None,
        r"\boxed{C}. The answer is not A.": "C",
        r"\boxed{C}. One might think the answer is A.": "C",
        r"The answer is A or \boxed{B}": None,
    },
    "words": {
        "The answer is D": "D",
        "The answer is D.": "D",
        "The answer is (D).": "D",
        "The answer is (d).": "D",
        "The answer is d.": "D",
        "The answer is d)": "D",
        "The answer is **D**.": "D",
        "The answer is **(D)**.": "D",
        "The answer is `D`.": "D",
        'The answer is "D".': "D",
        "The answer is “D”.": "D",
        "The answer is $D$.": "D",
        "The answer is $\\mathbf{D}$.": "D",
        "The answer is \\text{D}": "D",
        "The answer is \\(D\\).": "D",
        "The answer is: D": "D",
        "the answer is option D": "D",
        "The answer is option D.": "D",
        "The answer is choice (D).": "D",
        "The answer is therefore D.": "D",
        "The answer is most likely D.": "D",
        "The answer must be D.": "D",
        "The answer should be D, because of symmetry.": "D",
        "The answer would be D": "D",
        "The answer to the question is D.": "D",
        "The answer to question 3 is (C).": "C",
        "The answer is D because iron rusts.": "D",
        "The answer is A because iron rusts.": "A",
        "The answer is D) iron.": "D",
        "The answer is D: iron.": "D",
        "The answer is D. iron": "D",
        "The answer is (A) a mixture of both.": "A",
        "ANSWER IS D": "D",
        "THE ANSWER IS D": "D",
        "ANSWER: D": "D",
        "Answer: D": "D",
        "answer: D": "D",
        "Answer:D": "D",
        "Answer: (D)": "D",
        "Answer - D": "D",
        "Answer = D": "D",
        "Answer D": "D",
        "Answer (D)": "D",
        "Ans: D": "D",
        "Ans. D": "D",
        "**Answer:** B": "B",
        "**Answer**: B": "B",
        "**Answer: B**": "B",
        "### Answer\n\nB": "B",
        "Final Answer: B": "B",
        "Final answer: option B": "B",
        "Final answer\n\n**B**": "B",
        "The final answer is B.": "B",
        "The correct answer is B.": "B",
        "The correct option is B.": "B",
        "The correct choice is (B).": "B",
        "Correct answer: B": "B",
        "The best answer is B.": "B",
        "The right answer here is B.": "B",
        "My answer is B.": "B",
        "Answer: I think it is C": "C",
        "Answer: I believe it's C": "C",
        "Answer: it is C.": "C",
        "Answer: the correct one is C.": "C",
        "I think it is C.": "C",
        "I choose C.": "C",
        "I would choose option C.": "C",
        "I'd go with C.": "C",
        "We pick (C).": "C",
        "I select C": "C",
        "So I will go with option C.": "C",
        "Therefore, C.": "C",
        "Therefore, option C.": "C",
        "Thus (C).": "C",
        "So C.": "C",
        "By elimination, C.": "C",
        "This leaves option C.": "C",
        "This corresponds to choice C.": "C",
        "Option C is correct.": "C",
        "Option (C) is the correct answer.": "C",
        "C is the correct answer.": "C",
        "(C) is the right choice.": "C",
        "C is the answer.": "C",
        "C is therefore the best answer.": "C",
        "The answer is not A but B.": "B",
        "The answer is A. On reflection the answer is B.": "B",
        "Answer: A. On reflection the answer is B.": "B",
        "The answer is A. Wait, no, it's B.": "B",
        "The answer is A. Correction: B.": "B",
        "The answer is A? No, B.": "B",
        "Answer: A\n\nAnswer: B": "B",
        "The answer is A or B.": None,
        "The answer is A or perhaps B.": None,
        "The answer is A/B.": None,
        "The answer is either A or B.": None,
        "The answer is both A and B.": None,
        "The answer is A and B.": None,
        "The answers are A and C.": None,
        "The answer is A, B, and C.": None,
        "The answer is A, C.": None,
        "The answer is (A) or (B).": None,
        "The answer is (A), (B).": None,
        "The answer is option A or option B.": None,
        "Answer: A B": None,
        "Answer: AB": None,
        "Answer: neither A nor B": None,
        "Answer: all of the above": None,
        "The answer is a matter of taste": None,
        "The answer is A matter of taste": None,
        "THE ANSWER IS A MIXTURE": None,
        "The answer is I do not know": None,
        "The answer is not A.": None,
        "Is the answer A?": None,
        "The answer is A?": None,
        "Answer: 42": None,
        "Answer: Au": None,
        "Answer: DNA": None,
        "The answer is C++.": None,
        "The answer is E = mc^2": None,
        "The answer is A's colour.": None,
        "If the answer is A, then x = 3.": None,
        "B is tempting": None,
        "Option A is wrong.": None,
        "A and C are correct.": None,
        "I do not know": None,
        "": None,
    },
    "all of the text": {
        "D": "D",
        "d": "D",
        "D.": "D",
        "(D)": "D",
        "(d)": "D",
        "[D]": "D",
        "**D**": "D",
        "**D.**": "D",
        "$D$": "D",
        "`D`": "D",
        " D \n": "D",
        "D)": "D",
        "D) 3 m/s": "D",
        "D. 3 m/s": "D",
        "D: 3 m/s": "D",
        "(D) 3 m/s": "D",
        "**(D)** 3 m/s": "D",
        "Option D": "D",
        "option (D)": "D",
        "Ⓓ": "D",
        "Ｄ": "D",
        "（Ｄ）": "D",
        "It rusts.\n\nD": "D",
        "It rusts.\n\n**D**": "D",
        "D\n\nBecause it rusts.": "D",
        "B\n\nOn reflection:\n\nC": "C",
        "A) iron\nB) zinc\nC) tin\nD) gold": None,
        "A B": None,
        "A or B": None,
        "A dog": None,
        "Gold": None,
        "K": None,
        "AB": None,
        "A?": None,
    },
    "Chinese": {
        "答案是 C": "C",
        "答案是C。": "C",
        "答案：C": "C",
        "答案为C": "C",
        "答案为（C）。": "C",
        "答案选C": "C",
        "答案应该是C": "C",
        "正确答案是C。": "C",
        "正确答案：C": "C",
        "正确选项是C": "C",
        "所以答案是 **C**。": "C",
        "所以答案是选项C。": "C",
        "因此，答案是C，因为它最大。": "C",
        "最终答案：\\boxed{C}": "C",
        "选B": "B",
        "选B。": "B",
        "选 B": "B",
        "选择B": "B",
        "选择B项": "B",
        "故选B": "B",
        "故选：B": "B",
        "故选B。": "B",
        "应选B": "B",
        "我选B": "B",
        "本题选B。": "B",
        "选项B正确": "B",
        "B选项正确。": "B",
        "B项正确": "B",
        "B是正确答案": "B",
        "因此B。": "B",
        "答案不是A，而是B。": "B",
        "不选A，选B。": "B",
        "答案是A。不对，应该选B。": "B",
        "答案是A或B": None,
        "答案是A和B。": None,
        "答案是A、C": None,
        "答案是AC": None,
        "选A还是B": None,
        "不选A": None,
        "答案不是A": None,
        "选项A不正确": None,
        "A、B都正确": None,
        "答案是C语言": None,
        "答案是7": None,
        "我不知道": None,
    },
}
CASES = [(text, letter) for group in NAMED.values() for text, letter in group.items()]


@pytest.mark.parametrize(("text", "letter"), CASES)
def test_the_table(text: str, letter: str | None) -> None:
    assert read_choice(text) == letter


def test_the_table_is_large() -> None:
    assert len(CASES) >= 150


BOXED = ["{}", "({})", "[{}]", "{}.", r"\text{{{}}}", r"\text{{({})}}", r"\textbf{{{}}}", r"\mathrm{{{}}}", r"\rm {}"]
BOXED += [
    r"\bf {}",
    r"\mathbf{{\text{{{}}}}}",
    r"\text{{Option {}}}",
    r"\text{{Answer: {}}}",
    r"\text{{choice ({})}}",
    "$ {} $",
]
WORDED = [
    "{}",
    "{}.",
    "({})",
    "({}).",
    "**{}**",
    "**({})**.",
    r"\text{{{}}}",
    "option {}",
    "Option ({}).",
    "choice {}.",
]
CUES = [
    "The answer is ",
    "the correct answer is ",
    "Answer: ",
    "ANSWER IS ",
    "**Answer:** ",
    "Final answer: ",
    "答案是",
    "故选",
]
REASONING = [
    "Iron rusts in water. ",
    "Let A be the origin and B the point (2, 3). ",
    "Option A is wrong. Option B fails too. ",
    "So x = \\boxed{4.2} eV. ",
    "<b>Step 1</b>: I compare A and B.\n\n",
    "",
]


@given(st.sampled_from("ABCDEFGHIJ"), st.sampled_from(BOXED), st.sampled_from(REASONING))
def test_every_letter_in_every_box(letter: str, box: str, reasoning: str) -> None:
    assert read_choice(reasoning + "\\boxed{" + box.format(letter) + "}") == letter


@given(st.sampled_from("ABCDEFGHIJ"), st.sampled_from(WORDED), st.sampled_from(CUES), st.sampled_from(REASONING))
def test_every_letter_after_every_cue(letter: str, words: str, cue: str, reasoning: str) -> None:
    assert read_choice(reasoning + cue + words.format(letter)) == letter


JOINS = [" or ", " and ", ", ", "/", " & ", " or maybe ", "、", "和", "或", ", or "]
FRAMES = ["\\boxed{%s}", "The answer is %s.", "Answer: %s", "答案是%s", "\\boxed{\\text{%s}}"]


@given(st.permutations("ABCDEFGHJ"), st.sampled_from(JOINS), st.sampled_from(FRAMES), st.sampled_from(["{}", "({})"]))
def test_two_letters_are_no_answer(letters: list[str], join: str, frame: str, label: str) -> None:
    assert read_choice(frame % join.join(label.format(letter) for letter in letters[:2])) is None


@given(st.text(max_size=60), st.sampled_from(["\\boxed{", "The answer is ", "选", "<answer>", ""]))
@settings(max_examples=300)
def test_any_text_gives_a_letter_or_nothing(text: str, before: str) -> None:
    assert read_choice(before + text) in {None, *"ABCDEFGHIJ"}


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "\\text{", "The answer is ", "A or ", "(", "I ", "\\", "**", "选", "the ", "not A "]
)
def test_a_hundred_thousand_characters_are_read_in_a_second_or_two(piece: str) -> None:
    read_choice(piece * (100_000 // len(piece)))


FAILING = BENCHMARKS.parent / "reports" / "failing.jsonl"


@pytest.mark.skipif(not FAILING.exists(), reason=f"no {FAILING}")
def test_reported_faults() -> None:
    rows = [json.loads(line) for line in Path(FAILING).read_text().splitlines()]
    choices = [row for row in rows if row["kind"] == "choice"]
    got = {
        row["id"]: grade_choice(Problem("b", "p", "q", "choice", (row["gold"],)), row["response"])[0] == "correct"
        for row in choices
    }
    assert got == {row["id"]: row["expected"] == "correct" for row in choices}

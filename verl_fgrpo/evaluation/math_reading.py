r"""The extended reading of mathematical answers: stated rules that rewrite gold answer and response before math-verify.

`eval grade --reading extended` applies them; the default reading and the reward are math-verify as it is. Rules, with
examples, in docs/grading.md; `EXTENDED` names their version and is stored with the verdicts.
"""

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

EXTENDED = "extended-4"


class FinalAnswer(NamedTuple):
    """`text` as written; `corrected` if an earlier box was taken back ("That fails, so ...") or a sentence gives no
    single answer ("not 12", "at least 12", "12 or 13"): what the default finds is not what is said."""

    text: str
    corrected: bool


_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_TAG = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.IGNORECASE | re.DOTALL)
_PHRASE = re.compile(
    r"(?:\banswers?\b(?:\s+(?!is\b|are\b)\w+){0,6}?\s*(?:is|are|(?:could|may|might|must|should|would)\s+be|:|=)|答案\s*(?:应该|应)?(?:是|为|:|：)|结果\s*(?:是|为)|等于|\b答\s*:|答：)"
    r"[\s:：]*(?P<answer>[^\n。]+)",
    re.IGNORECASE,
)
_BOUND = re.compile(r"[\s$]*(?:\\(?:[gl]e|[gl]eq|[gl]eqslant|[gl]t|ne|neq)(?![A-Za-z])|[<>≤≥≠])")
_NO_ANSWER = re.compile(
    r"[\s$]*(?:not|between|less|more|greater|fewer|at\s+(?:least|most)|either)\b|[^,]*\bor\b", re.IGNORECASE
)
_FILL = r"(?:[\s$.}]|\\(?:[)\](\[,;: ]|q?quad\b|(?:text|mathrm)\s*\{))*"
_BETWEEN = re.compile(rf"{_FILL}(?:(?:,|;|、|\band\b|\bor\b|和|或)[\s}}]*)+{_FILL}(?:[A-Za-z]\w*\s*=\s*)?|[ $]*")
_CORRECTION = re.compile(
    r"\b(?:wait|fail\w*|wrong|incorrect|mistake\w*|error|actually|instead|correct(?:ed|ion|ing)|re-?check\w*|revis\w+|hmm|"
    r"oops|sorry|contradict\w*|invalid|impossible|not\s+(?:right|correct|valid|possible))\b|\bno[,.]|不对|错|重新|更正|修正",
    re.IGNORECASE,
)


def final_answer(text: str) -> FinalAnswer | None:
    r"""What a response gives as its answer: its last box, with those that "and", "or" or a comma join to it.

    Without a box: the last `<answer>...</answer>`; without one: what follows the last "answer is" or "答案是" in its
    line. None if there is none of these.
    """
    boxes = _boxes(text)
    if boxes:
        first = len(boxes) - 1
        while first and _BETWEEN.fullmatch(text, boxes[first - 1][1], boxes[first][0]):
            first -= 1
        before = {content for _, _, content in boxes[:first]} - {boxes[-1][2]}
        corrected = bool(before) and bool(_CORRECTION.search(text, boxes[0][1], boxes[first][0]))
        answer = ", ".join(content for _, _, content in boxes[first:])
    elif tags := _TAG.findall(text):
        answer, corrected = tags[-1].strip(), False
    elif phrases := list(_PHRASE.finditer(text)):
        answer = re.split(r"\.\s|,\s+(?=[a-z]{3})|，", phrases[-1]["answer"] + " ")[0].strip()
        corrected = bool(_NO_ANSWER.match(answer))
    else:
        return None
    return FinalAnswer(answer, corrected)


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of every closed box that stands in no other."""
    boxes: list[tuple[int, int, str]] = []
    position = 0
    while found := _BOX.search(text, position):
        depth, end = 1, found.end()
        for brace in _BRACE.finditer(text, found.end()):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            if depth == 0:
                end = brace.end()
                boxes.append((found.start(), end, text[found.end() : end - 1].strip()))
                break
        if depth:
            return boxes
        position = end
    return boxes


_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_SIGNS = {
    **{"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne "},
    **{"π": r"\pi ", "∞": r"\infty ", "∪": r"\cup ", "∈": r"\in ", "±": r"\pm ", "°": r"^\circ ", "′": "'"},
    "∅": r"\emptyset ",
    **{"½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"},
}


def _signs(text: str) -> str:
    digits = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
    text = _SUPERSCRIPT.sub(lambda found: "^{" + found[0].translate(digits) + "}", text)
    for sign, latex in _SIGNS.items():
        text = text.replace(sign, latex)
    text = re.sub(
        r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+|[A-Za-z]))",
        lambda found: rf"\sqrt{{{found[found.lastindex or 1]}}}",
        text,
    )
    text = re.sub(r"\\(?:mathrm|text|rm)\s*\{ *([ieE]) *\}", r"\1", text)
    text = re.sub(r"(?<=\d)\s*[xX*]\s*(?=10\s*\^)", r" \\times ", text)
    return unicodedata.normalize("NFKC", text)


_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_NAMES += ["thirteen", "fourteen", "fifteen", "sixteen"]
_NUMBERS = {name: str(number) for names in (_NAMES, "零一二三四五六七八九十") for number, name in enumerate(names)}


def _frame(text: str) -> str:
    text = re.sub("[\u200b-\u200f\u2060\ufeff]", "", text)
    text = re.sub(r"^(?:\$+|\\[(\[])\s*|\s*(?:\$+|\\[)\]])$", "", text.strip())
    text = re.sub(r"\\(?:left|right|displaystyle|bigg?|Bigg?)(?![A-Za-z])|\\color\{\w+\}", "", text)
    text = re.sub(r"\\(?:textcolor\s*\{\w+\}|underline)\s*(?=\{)|\\\\$", "", text)
    while (shorter := re.sub(r"\s*(?:(?<!\.)\.|。|(?<!\\)[,;])\s*$", "", text)) != text:
        text = shorter
    return re.sub(r"^\*\*(.*)\*\*$|^`(.*)`$", r"\1\2", text).strip()


def _sets(text: str) -> str:
    text = re.sub(r"\\varnothing(?![A-Za-z])", r"\\emptyset", text)
    none = r"\\\{\s*\\?[,;:]?\s*\\\}|(?:\\text\s*\{)? *(?:there (?:is|are) )?no (?:real )?solutions?(?: exists?)? *\}?"
    return r"\emptyset" if re.fullmatch(none, text, re.IGNORECASE) else text


def _words(text: str) -> str:
    found = re.fullmatch(r"(?:\\(?:text|mathrm)\s*\{)?\s*(\w+)\s*\}?", text)
    return _NUMBERS.get(found[1].lower(), text) if found else text


def _thousands(text: str) -> str:
    separator = r"(?:\\[,;:!]|\\ |\{,\}|\{\\,\}|~|[\u00a0\u2009\u202f']|，)"
    text = re.sub(
        rf"(?<![\d.])\d{{1,3}}(?:{separator}\d{{3}})+(?!\d)", lambda found: re.sub(separator, "", found[0]), text
    )
    whole = re.fullmatch(r"([-+]?\\?\$?\s*)(\d{1,3}(?: \d{3})+)((?:\.\d+)?)", text)
    return whole[1] + whole[2].replace(" ", "") + whole[3] if whole else text


def _scientific(text: str) -> str:
    return re.sub(
        r"(?<![\w.\\])(\d+(?:\.\d*)?|\.\d+)\s?[eE]\s?([-+]?\d+)(?![\w.])",
        lambda found: rf"{found[1]} \times 10^{{{int(found[2])}}}",
        text,
    )


_FRACTION = r"(?:(\d+)\s*/\s*(\d+)|\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\})"
_MIXED = re.compile(rf"(?<![\w.^_}}])(\d+)(?:\s|\\[,;: ]|~|\s*\band\b\s*|\\text\s*\{{ *and *\}})+{_FRACTION}(?![\d/])")


def _repeating(text: str) -> str:
    def fraction(found: re.Match[str]) -> str:
        whole, head, period = found[1] or "0", found[2], found[3]
        top = int(whole + head + period) - int(whole + head)
        value = Fraction(top, (10 ** len(period) - 1) * 10 ** len(head))
        return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"

    return re.sub(r"(?<![\d.])(\d{0,30})\.(\d{0,30})\\(?:overline|bar|dot)\s*\{\s*(\d{1,30})\s*\}", fraction, text)


def _label(text: str) -> str:
    return re.sub(r"^\\text(?:bf|rm)?\s*\{\s*\([A-J]\)\s*\}(?:\s|~|\\[ ,;:!]|\\q?quad\b)*(?=\S)", "", text)


def _mixed(text: str) -> str:
    def improper(found: re.Match[str]) -> str:
        whole = int(found[1])
        top, bottom = int(found[2] or found[4]), int(found[3] or found[5])
        if not 0 < top < bottom:
            return found[0]
        value = Fraction(top, bottom)
        return rf"\frac{{{whole * value.denominator + value.numerator}}}{{{value.denominator}}}"

    return _MIXED.sub(improper, text)


def _units(text: str) -> str:
    text = re.sub(r"\\text\{ *([\u4e00-\u9fff]+) *\}", r"\1", text)
    # not 百 千 万 亿 兆 (magnitudes), 成 折 打 (tenths, dozen), 以上 多 余 (bounds), 不对 错, but 千米 千克 千瓦
    unit = re.search(
        r"(?<![\u4e00-\u9fff])(?!千(?![米克瓦])|[百万亿兆成折打以多余几不非错])[\u4e00-\u9fff]{1,4}$", text
    )
    if unit and re.search(r"\d", text):
        text = text[: unit.start()]
    return re.sub(r"^[共约]+(?=[\d\s$\\])", "", text).strip()


def _primes(text: str) -> str:
    text = re.sub(
        r"\^\s*(?:\{((?:\s*\\prime)+)\s*\}|(\\prime)(?![A-Za-z]))", lambda found: "'" * found[0].count("prime"), text
    )
    return re.sub(r"(?<=[A-Za-z])'+", lambda found: "_{" + "p" * len(found[0]) + "}", text)


def _vectors(text: str) -> str:
    def row(found: re.Match[str]) -> str:
        rows = [line.strip() for line in re.split(r"\\\\(?:\[[^\]]*\])?", found[2]) if line.strip()]
        cells = rows if len(rows) > 1 else rows[0].split("&") if rows else []
        if len(cells) < 2 or (len(rows) > 1 and any("&" in line for line in rows)):
            return found[0]
        return "(" + ", ".join(cell.strip() for cell in cells) + ")"

    text = re.sub(r"\\begin\{([pbv]?matrix)\}(.*?)\\end\{\1\}", row, text, flags=re.DOTALL)
    return re.sub(r"^\\langle(.*,.*)\\rangle$", r"(\1)", text)


def _parentheses(text: str) -> str:
    for pair in ("()", "{}"):
        text = _without_doubles(text, *pair)
    return re.sub(r"^\(([^(),]*)\)$|^\{([^{},]*)\}$", r"\1\2", text)


def _without_doubles(text: str, left: str, right: str) -> str:
    """((x)) as (x), however deep."""
    opened: list[int] = []
    partner: dict[int, int] = {}
    for index, character in enumerate(text):
        if character == left and text[index - 1 : index] != "\\":
            opened.append(index)
        elif character == right and opened and text[index - 1 : index] != "\\":
            partner[opened.pop()] = index
    doubled = {
        place for start, end in partner.items() if partner.get(start + 1) == end - 1 for place in (start + 1, end - 1)
    }
    return "".join(character for index, character in enumerate(text) if index not in doubled)


def _percent(text: str) -> str:
    return re.sub(r"(?: |\\[ ,;:!])?(?:\\?%|\\text\{ ?percent ?\}|\bpercent\b)", r"\\%", text, flags=re.IGNORECASE)


#: name, what it does to a text; applied in this order to gold answer and response alike
RULES: dict[str, Callable[[str], str]] = {
    "frame": _frame,
    "label": _label,
    "signs": _signs,
    "sets": _sets,
    "words": _words,
    "percent": _percent,
    "units": _units,
    "thousands": _thousands,
    "scientific": _scientific,
    "repeating": _repeating,
    "mixed": _mixed,
    "primes": _primes,
    "vectors": _vectors,
    "parentheses": _parentheses,
}


def rewritten(text: str) -> str:
    """`text` after all rules."""
    for rule in RULES.values():
        text = rule(text)
    return text.strip()


_PERCENTAGE = re.compile(r"([-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+))\\%")


def alternatives(text: str) -> list[str]:
    r"""The rewritten text; for a percentage N\% N/100, and, over 1, also N (an answer to "what percentage?")."""
    text = rewritten(text)
    if not (found := _PERCENTAGE.fullmatch(text)):
        return [text]
    number = found[1].replace(",", "")
    return [rf"\frac{{{number}}}{{100}}"] + ([number] if abs(float(number)) > 1 else [])


_BASE_WORD = re.compile(r"\\text\{ *(?:base)? *(\w*) *\}")
_BASED = re.compile(r"\(?([0-9A-Za-z]+)\)?_(?:[\s{]*\{[\s{}(]*(\w+)[\s})]*|(\w))")


def is_bound(text: str) -> bool:
    r"""Whether the text begins with a relation: `\ge 12`, in which math-verify reads 12."""
    return _BOUND.match(text) is not None


def is_mixed(text: str) -> bool:
    """Whether all of the text is a mixed number with a sign; math-verify reads -2 1/2 as -2 + 1/2."""
    found = _MIXED.search(text)
    return bool(found and text[: found.start()].strip(" $") == "-" and not text[found.end() :].strip(" $"))


def same_based(gold: str, answer: str) -> bool | None:
    """Whether two numbers with a base are the same, digits and base: 2314_5 is not 2314_6; None if one has no base."""
    one, other = (_based(_BASE_WORD.sub(r"{\1}", rewritten(text))) for text in (gold, answer))
    return None if one is None or other is None else one == other


def _based(text: str) -> tuple[str, str] | None:
    found = _BASED.fullmatch(text)
    base = (found[2] or found[3]).lower() if found else ""
    base = _NUMBERS.get(base, base)
    return (found[1].lstrip("0").lower(), base) if found and base.isdigit() else None


def tiny_differ(gold: Any, answer: Any) -> bool:
    """Whether both are numbers under 0.001 that differ in three significant digits: 1/30! and 1/31!.

    math-verify compares to six decimals and to 15 digits of the difference, for which all such numbers are 0.
    """
    try:
        one, other = gold.evalf(20), answer.evalf(20)
        size = max(abs(one), abs(other))
        return bool(0 < size < 1e-3 and abs(one - other) > 1e-3 * size)
    except Exception:  # no numbers: they cannot be compared
        return False


def equal_complex(gold: Any, answer: Any) -> bool:
    """Whether both are numbers once the symbol i is the imaginary unit, and equal to 12 digits: e^{i pi/3}."""
    from sympy import I

    try:
        units = [{symbol: I for symbol in value.free_symbols if symbol.name == "i"} for value in (gold, answer)]
        if not any(units):
            return False
        one, other = (complex(value.subs(unit).evalf(20)) for value, unit in zip((gold, answer), units, strict=True))
    except Exception:  # no numbers
        return False
    return abs(one - other) <= 1e-12 * max(1.0, abs(one), abs(other))

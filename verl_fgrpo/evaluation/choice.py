r"""Which choice a response names: a small grammar, English and Chinese, that never guesses. See docs/grading.md.

    response   = statement, ...; the last statement decides
    statement  = box | cue choice | choice as all of the text, or of its first or last line
    box        = \boxed{...} | \fbox{...} | <answer>...</answer>
    cue        = "answer is" | "Answer:" | "correct option is" | "I choose" | "matches option" | "it is" | ... | "选"
    choice     = "option"? letter | "(letter)" | letter (")" | "." | ":") text
    letter     = A to J; a small one only in brackets, before ")" or as all of a box, line or sentence

Two letters ("A or B", "A, C") or "both", "neither", "all" are a statement too, that names no choice. A box with
something else in it (a number, "a mixture of both") states nothing, nor does a negation or a question.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple


class Statement(NamedTuple):
    """`letter` is None where several choices are named; `start` and `end` in the flattened text."""

    start: int
    end: int
    letter: str | None


def read_choice(text: str) -> str | None:
    r"""The letter "A" to "J" that a response without its thinking names as its answer; None if none, or several."""
    flat = _flatten(text)
    statements = sorted(_statements(flat), key=lambda statement: (statement.end, -statement.start))
    if not statements:
        return None
    last = statements[-1]
    for earlier in statements[:-1]:  # "\boxed{A} or \boxed{B}"
        if earlier.letter != last.letter and _JOINED.fullmatch(flat, earlier.end, max(earlier.end, last.start)):
            return None
    return last.letter


_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")  # joiners, directions
_OPEN, _CLOSE = "\u27e6", "\u27e7"  # stand for a box
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{|<answer>", re.IGNORECASE)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*([A-J])(?![A-Za-z])")
_FONT = r"(?:text|math)?(?:bfseries|bf|rm|sf|it|tt|sc|sl|normal|up|md)|em|displaystyle|large|Large|boldmath"
_STYLED = re.compile(
    r"\\(?:textcolor\{\w+\}|color\{\w+\}|text\w*|math\w+|mbox|hbox|operatorname|boldsymbol|bm|emph|underline)\s*\{"
)
_SWITCH = re.compile(rf"\\(?:{_FONT})(?![A-Za-z])\s*")
_SPACE = re.compile(r"\\(?:quad|qquad|left|right|[Bb]igg?[lr]?|,|;|:|!|\s)|~|&nbsp;")
_EMPHASISED = re.compile(r"(\*\*|__|[*_`$\"])\s*([A-J])\s*\1")
_MARKUP = re.compile(
    r"\*+|(?<!\w)_+|_+(?!\w)|[`${}]|(?<![A-J])#|\\[()\[\]]|</?(?:b|i|u|em|strong|p|br|span|code)\s*/?>"
)
# Letters that begin a name, not a choice: initials (A.I., J. K. Rowling), A*; and, before a word of the list, E. coli.
_INITIALS = re.compile(r"(?<![A-Za-z.])(?:(?:[A-Z]\.){2,}|(?:[A-Z]\.\s){2,}(?=[A-Z][a-z]))")
_STARRED = re.compile(r"^([^*\n]*(?<![A-Za-z])[A-J])\*(?![*\w])", re.MULTILINE)
_SPECIES = re.compile(
    r"(?<![A-Za-z])([A-J])\.\s*(coli|thaliana|elegans|melanogaster|subtilis|difficile|pylori|albicans|aegypti|gambiae|"
    r"mellifera|anthracis|cereus|baumannii|fumigatus|niger|flavus|tumefaciens|lumbricoides|afarensis|burgdorferi|"
    r"pertussis|fragilis|thuringiensis|henselae|melitensis|napus|botulinum|tetani|perfringens|jejuni|trachomatis|"
    r"neoformans|diphtheriae|familiaris|crescentus|reinhardtii|parvum|glabrata|burnetii|psittaci|pneumoniae|rerio|"
    r"discoideum|radiodurans|pulex|simulans|faecalis|faecium|histolytica|huxleyi|granulosus|cloacae|tularensis|"
    r"nucleatum|hepatica|lamblia|gallus|vaginalis|hirsutum|influenzae|sapiens|erectus|habilis|neanderthalensis|ducreyi|"
    r"salinarum|volcanii|capsulatum|scapularis|ricinus)(?![A-Za-z])",
    re.IGNORECASE,
)


def _flatten(text: str) -> str:
    """Text without markup: boxes between two brackets of their own, a letter set in a font or in quotes in (...)."""
    text = _INVISIBLE.sub("", text)
    text = re.sub(r"\\color\s*\{\w+\}(?!\s*\{)|^[ \t]*>+", "", unicodedata.normalize("NFKC", text), flags=re.MULTILINE)
    text = _BARE_BOX.sub(lambda found: f"{_OPEN}{found[1]}{_CLOSE}", text.replace(_OPEN, "").replace(_CLOSE, ""))
    parts: list[str] = []
    closers: list[str] = []  # what ends each open brace
    position = 0
    for found in re.finditer(rf"{_BOX.pattern}|{_STYLED.pattern}|</answer>|[{{}}]|\n\s*\n", text, re.IGNORECASE):
        parts.append(text[position : found.start()])
        position = found.end()
        token = found[0]
        if token == "}":
            parts.append(closers.pop() if closers else "")
        elif token.lower() == "</answer>":
            parts.append(_CLOSE)
        elif token.lower() == "<answer>":
            parts.append(_OPEN)
        elif not token.strip():  # a paragraph ends what was left open
            parts += [closer for closer in reversed(closers) if closer == _CLOSE] + [token]
            closers.clear()
        elif _BOX.fullmatch(token):
            parts.append(_OPEN)
            closers.append(_CLOSE)
        elif token == "{":
            closers.append("")
        else:
            parts.append("\u2768")
            closers.append("\u2769")
    parts += [text[position:], *reversed(closers)]
    flat = _SPACE.sub(" ", _SWITCH.sub("", "".join(parts)))
    flat = re.sub(r"(?<=[A-J])[\u2010\u2013](?=\w)", "-", _STARRED.sub(r"\1^", flat).replace("\\#", "#"))
    flat = _INITIALS.sub(lambda name: re.sub(r"[.\s]", "", name[0]).lower(), flat)
    flat = re.sub("\u2768[\u2768\\s]*([A-J])[\u2769\\s]*\u2769", r"(\1)", flat).translate({0x2768: None, 0x2769: None})
    flat = _MARKUP.sub("", _EMPHASISED.sub(r"(\2)", flat))
    flat = re.sub(r"(?<=[(\[])\s+(?=[A-Ja-j]\b)|(?<=\b[A-Ja-j])\s+(?=[)\]])", "", flat)
    return _SPECIES.sub(lambda name: f"{name[1]}{name[2]}".lower(), flat)


_LEAD = (
    r"\s*(?:(?:(?:the|my|our|a\s+clear|most|very|in\s+fact|definitely|clearly|simply|just|indeed|likely|probably|actually|"
    r"therefore|thus|hence|then|obviously|still|now|also|indisputably|certainly|surely|given\s+by|of\s+course|"
    r"final|correct|right|best|true|option|choice|letter|answer|alternative|statement|number|"
    r"i\s+(?:think|believe|guess|say|suppose|would\s+say|am\s+sure)|i'd\s+(?:say|guess)|that|it\s+(?:is|was|must\s+be)|it's|is)\b|"
    r"选项|选择|字母|答案|应该|应|就|是|为|选|:|=|-|\u2192|[\u2705\u2611\u2714]\ufe0f?)[\s,:]*)*"
)
_LABEL = re.compile(
    r"(?:[(\[<\u201c\u2018'\"\u300c\u3010\u00ab\u300a]+(?P<bracketed>[A-Ja-j])[)\]>\u201d\u2019'\"\u300d\u3011\u00bb\u300b]+"
    r"|(?P<half>[A-Ja-j])(?=\))|(?P<bare>[A-J])(?![A-Za-z0-9_^'\u2019])|(?P<small>[a-j])(?=\s*(?:[.!\u27e7\n]|$)))"
)
_FITS = r"(?:satisf|fulfil|fit|match|meet|work|hold|remain|agree)\w*"
_WORDS = (
    r"because|since|as|which|given|due|based|but|so|where|when|for|from|by|here|in|with|on|though|although|"
    r"rather|instead|not|again|then|that|choice|option|is|was|and|or|at|to|among|after|according|however|therefore|"
    + _FITS
)
_AFTER = re.compile(
    rf"\s*(?:$|[\n.,;:!)\]\u27e7(\"'\u201d\u3010\u3002\u3001\u2014\u2013/&|]|-\s|(?i:{_WORDS})\b"
    r"|[项选因是正符的为故所对吧了这而但其即最和或与及还]|不是)"
)
_OPERATOR = re.compile(
    r"\s*(?:[+=*^_<>|/]|:[A-Z]\b|\\(?:cdot|times|cup|cap|in|to|pm|le|ge|ne|sim|approx|rightarrow)\b|-(?:[^\s-]|\s*[A-Ja-j]\b)|\u2192|\u2264|\u2265)"
)
_MORE = re.compile(
    r"[)\]\u27e7.]*[ \t]*(?:(?:,|/|&|;|\u3001|\+|\|)[ \t]*)?\(?"
    r"(?:(?P<joined>(?i:and/or|or|and|nor|to|through|versus|vs\.?|maybe|perhaps|possibly)\b|[或和与及]|以及|还是|或者|/|&|\+)"
    r"[ \t,]*"
    r"(?:(?i:maybe|perhaps|possibly|also|even|option|choice|answer|equivalently|alternatively|else|both|either|the)\b"
    r"[ \t,]*|选项?)*|)[\u27e6]?[(\[]?(?P<letter>[A-J])(?![A-Za-z0-9'\u2019+#])"
)
_ROMAN = re.compile(r"[(\[]?I\b[)\]]*[\s,]*(?:and|or|&|,|、|和|或)[\s(]*(?:II|III|IV|V)\b")
_SEVERAL = re.compile(r"(?i:either|both|neither|all|none|any)\b|[A-J]{2,10}(?![A-Za-z])|都|以上")
_WRONG = re.compile(
    r"(?:[\s,]+(?:(?:and|or)\s+)?\(?[A-J]\b\)?){0,8}\s+(?:is|are)\s+(?:all\s+|both\s+)?(?:not|wrong|false|incorrect)\b"
)
_JOINED = re.compile(
    r"\u27e7[\s,]*,[\s,]*\u27e6|[\s,.)\u27e7]*(?:(?i:and/or|or|and|&)|[或和与及、/])[\s,:(\u27e6]*(?i:the\s+)?"
)


def _choice_at(flat: str, position: int) -> tuple[bool, str | None, int]:
    """(whether a choice stands at `position`, its letter, its end); the letter is None for several choices."""
    if words := _SEVERAL.match(flat, position):
        return True, None, words.end()
    label = _LABEL.match(flat, position)
    if label is None:
        return False, None, position
    end = label.end()
    if flat[end : end + 2].lstrip().startswith("?") or _ROMAN.match(flat, label.start()):
        return False, None, position
    more = _MORE.match(flat, end)
    several = more is not None and _is_label(flat, more)
    if _OPERATOR.match(flat, end) and not several:
        return False, None, position
    if more and several:
        return more["letter"] != label[0].strip("()[]").upper(), None, more.end()
    if label["bare"] and not _AFTER.match(flat, end):
        return False, None, position
    letter = label["bracketed"] or label["half"] or label["bare"] or label["small"]
    return True, letter.upper(), end


def _is_label(flat: str, more: re.Match[str]) -> bool:
    """Whether the second letter of `_MORE` is one: not a pronoun, an article or the beginning of a sentence."""
    rest = flat[more.end() :]
    if re.match(r"[ \t]+(?!(?:and|or|are)\b)[a-z]", rest) and (more["letter"] in "AI" or not more["joined"]):
        return False
    if not more["joined"] and ("." in flat[more.start() : more.end()] or _WRONG.match(rest)):
        return False
    return bool(more["joined"]) or bool(
        re.match(r"[ \t]*(?:$|[\n,.;)\]\u27e7/&\u3001。两均都]|(?:and|or|are)\b|[A-J]\b)", rest)
    )


_BE = (
    r"(?:is|are|was|'s|becomes|(?:would|must|should|will|can\s+only|(?:has|ought|seems|appears|turns\s+out)\s+to)\s+"
    r"(?:(?:therefore|thus|then|hence|clearly|surely)\s+)?be|[\"']?:|->|=>|=|-|\u2192|\u2014|\u2013)"
)
_NOUN = r"(?:ans(?:wer)?|option|choice|alternative|selection)"
_CUES = [
    # The answer (to the question) is / Answer: / Answer
    rf"\bans(?:wers?)?\b(?!\s+(?:choices|options)\b)(?:,[^,.\n]{{1,40}},)?(?:\s+(?!is\b|are\b)[\w'()-]+){{0,8}}?\s*{_BE}\s*{_LEAD}",
    rf"\bans(?:wer)?\b\.?[:\s\]]*{_LEAD}",
    rf"\b(?:correct|right|best|final|only|chosen|true)\s+(?:\w+\s+)?(?:one|option|choice|letter|statement|description|explanation)"
    rf"(?:\s+(?!is\b|are\b)[\w']+){{0,6}}?\s*{_BE}\s*{_LEAD}",
    rf"\b(?:option|choice|letter|selection|conclusion|solution|response|pick|vote|guess|verdict)[\"']?\s*(?:is|:|=)\s*{_LEAD}",
    # matches option, therefore option, not A but
    rf"\b(?:match(?:es|ing)?|correspond(?:s|ing)?\s+to|agree(?:s|ing)?\s+with|equals|gives|yields|consistent\s+with|closest\s+to|"
    rf"supports?|points?\s+to|i\.e\.|which\s+means|which\s+is|this\s+is|that\s+is|must\s+be|namely|thus|therefore|hence|so)[\s,:]+(?:exactly\s+)?"
    rf"(?:with\s+)?(?:the\s+)?{_NOUN}\s+",
    r"\b(?:leaves?|leaving|left\s+with)\s+(?:us\s+with\s+|only\s+|just\s+|with\s+)*(?:option\s+|choice\s+)?",
    r"\bnot\s+(?:option\s+)?\(?(?-i:[A-J])\b\)?\s*[,;]?\s*(?:but\s+(?:rather\s+)?|rather\s+|it's\s+|it\s+is\s+)(?:option\s+)?",
    rf"\bonly\s+(?:option\s+|choice\s+)?(?=\(?[A-J]\)?\s+{_FITS})",
    # Chinese
    rf"(?:(?:正确)?答案[\u3011\]]?|(?:正确|最符合(?:题意)?|最[恰适当合理准确]+)(?:的)?(?:选项|的是|说法)|剩下|结论|答(?=\s*:))\s*(?:应该|应当|应|只能)?(?:是|为|选(?!项|择)|即|就是|:)?\s*{_LEAD}",
    rf"(?<![不别否误错任被可])(?<!不能)(?<!不应)(?<!不该)(?:选项\s*(?:是|为|:)|选(?!项)择?\s*(?:是|为|:|了)?)\s*{_LEAD}",
    r"(?:不是|并非|不选)\s*\(?[A-J]\)?\s*,?\s*(?:而是|而应是|应是|应该是|应选|是|选)\s*",
]
_CUE = [re.compile(cue, re.IGNORECASE) for cue in _CUES]
#: these are weak: a letter counts only if its sentence ends there, or the words of its choice follow
_WEAK_CUES = [
    # therefore, it is; the option that fits is
    r"(?:\b(?:therefore|thus|hence|so|correction|actually|rather|i\s+mean|no|sorry|by\s+elimination|i\s+(?:think|believe|"
    r"guess)|i'd\s+say|finally|final|so\s+that|the\s+(?:\w+\s+)?(?:option|choice|one|alternative)(?:\s+(?!is\b|not\b|"
    r"in\w+rect|wrong|false|\w+n't|does\b|\w\b)[\w'-]+){1,8}?\s+is|the\s+(?:closest|nearest)\s+is)|\u2234|因此|所以|故|综上|我认为|我觉得|(?<!不)应该?(?=[是为]))"
    r"[\s,:;\u2014\u2013-]*(?:(?:that\s+)?(?:it\s+(?:is|must\s+be|should\s+be)|it's|the|option|choice|是|为)\s*)*",
    r"\b(?:it(?:'s|\s+is)|must\s+be|should\s+be)\s+(?:option\s+|choice\s+)?",
    # I choose
    r"\b(?:i|we|let's|let\s+us)(?:'ll|'d|'m|'re|\s+(?:will|would|must|should|can|am|are))?\s+(?:therefore\s+|thus\s+|now\s+)?"
    r"(?:choose|chose|pick|picked|select|selected|go\s+(?:with|for)|going\s+with|opt\s+for|settle\s+(?:on|for)|vote\s+for|"
    rf"conclude|answer)\s*{_LEAD}",
    rf"(?:(?:^|[.!:]\s|\n)\s*|\b(?:therefore|thus|hence|so|then),?\s+)(?:choose|pick|select|go\s+with)\s+(?:the\s+)?(?:{_NOUN}\s+)?",
]
_WEAK_CUE = [re.compile(cue, re.IGNORECASE) for cue in _WEAK_CUES]
_SENTENCE_END = re.compile(
    r"\s*(?:[.!;\n。；！]|,\s*(?:because|since|as|not)\b|(?:because|since|as\s+(?:it|this|that|my|(?:the\s+)?(?:\w+\s+)?"
    r"(?:answer|choice|option)))\b|$)"
)
#: the letter is what a sentence is about, not what it says
_SUBJECT = re.compile(
    r"\)?\s+(?:(?:is|was)\s+(?!(?:the\s+)?(?:correct|right|true|best|answer)\b)|(?:are|has|have|does|did|can|cannot|could|would|"
    r"must|might|may|will|seems|looks|fails?|violates?|contradicts?)\b)|\s*(?:为|是?错|是?不对|的(?!原因|理由|是))"
)
_BACKWARD = re.compile(
    r"(?:(?P<named>(?i:option|choice|answer)\s+|选项\s*)|(?<![A-Za-z0-9_'])(?=[(A-J]))\(?(?P<letter>[A-J])\)?\s*"
    r"(?:(?i:is|must\s+be|has\s+to\s+be)\s+(?i:(?:therefore|thus|indeed|clearly|then|hence|also|really|obviously)\s+)?"
    r"(?:(?i:the)\s+(?i:(?:only\s+)?(?:correct|right|best|true|final|most\s+\w+)\s+)?(?i:answer|option|choice|one)\b(?!\s+(?:only|if|when|unless)\b)"
    r"|(?i:our\s+(?:final\s+)?(?:answer|choice)\b)|(?i:the\s+most\s+(?:accurate|appropriate|suitable|likely|plausible|reasonable)\b(?!\s+to\b))"
    rf"|(?P<plain>(?i:correct|right|true)(?={_SENTENCE_END.pattern}|,?\s*(?:but|while|and)\s+[A-J]\s+is\s+(?:not|wrong)|,\s*as\b)))"
    r"|\s+(?i:best\s+(?:describ|explain|fit|match|represent|captur|answer|summari[sz]|illustrat)\w*s)\b"
    r"|(?:选项|项)?(?:是(?:正确)?答案|(?P<chinese>也?(?:是正确的|正确|是对的|符合题意)))(?!吗|么|\?))"
)
#: what may stand before such a letter; any other word makes it a name: angle C, vitamin C, 维生素C
_BEFORE = re.compile(
    r"(?:^|[^A-Za-z\s(\[\u4e00-\u9fff]|[选项是以此故即为知而有和或与及择中得则才只案见明上么然断剩但且说现定]|\n|\b(?:so|thus|hence|therefore|then|that|and|or|nor|but|only|both|neither|because|since|as|while|"
    r"think|believe|say|conclude|see|i\.e|option|choice|answer|letter|statement))[\s(\[]*$",
    re.IGNORECASE,
)
_JOINING = re.compile(r"(?:\b(?:and|or|nor|both|neither)|[和或与、])\s*$", re.IGNORECASE)
_NEGATED = re.compile(
    r"(?:\b(?:if|whether|not|\w+n't|cannot|never|unless|doubt|unclear|uncertain|wrong|incorrect|worst|first|second|third|fourth|"
    r"next|other|last|previous|(?:unlikely|impossible|false|untrue|not\s+the\s+case)(?=\s+that)|"
    r"(?:not|\w+n't)\s+(?:clear|obvious|certain|sure|true)|(?:\w+n't|not|never)\s+(?:think|believe|say|mean|claim|agree|know|see)|"
    r"suppos(?:e|ing)|assum(?:e|ing)|(?:(?:wrong|incorrect|tempt\w+|easy|mistake)\s+to|might|may|could|would|can|people|students|some|you)\s+"
    r"(?:\w+\s+)?(?:think|say|guess|believe|assume|argue|conclude|expect))(?:\s+that)?(?:\s+(?:the|it))?"
    r"(?:\s+(?:correct|right|final))?\s*|如果|若|设|假如|是否|(?:同学|有人|[甲乙丙丁])(?:认为|说)|以为)$",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\b(?:if|had|were|otherwise)\b[^.!?;\n]*$", re.IGNORECASE)

#: after the label of a choice: the words of the choice, but no sentence about it
_NAMED_TEXT = re.compile(
    r"[ \t]*(?:[.:\u2014])[ \t]*\S|[ \t]+[\u2013-][ \t]+[^\W\d]{2,}|"
    r",[ \t]*(?:because|since|as)\b|(?:(?<=[)\]])|[)\]])[ \t]*[.:,]?[ \t]*"
    r"(?!(?:is|was|are|can\w*|could|has|have|does|seems|looks|and|or|would|should|cannot|may|might)\b)[^\s+=*^_<>|]"
)


def _statements(flat: str) -> Iterator[Statement]:
    for box in re.finditer(f"{_OPEN}([^{_OPEN}{_CLOSE}]*){_CLOSE}?", flat):
        negated = re.search(
            r"(?:\b(?:not|never)|\w+n't|不是|并非|不选)[\s:(]*$", flat[max(0, box.start() - 20) : box.start()]
        )
        for statement in _alone(flat, box.start(1), box.end(1)) if not negated else ():
            more = _MORE.match(flat, box.end())
            several = more and more["joined"] and more["letter"] != statement.letter
            yield statement._replace(letter=None) if several else statement
    for weak, patterns in enumerate((_CUE, _WEAK_CUE)):
        for cue in (found for pattern in patterns for found in pattern.finditer(flat)):
            yield from _after_cue(flat, cue, bool(weak))
    backward = [
        found
        for found in _BACKWARD.finditer(flat)
        if not _NEGATED.search(flat, max(0, found.start() - 80), found.start())
        and (found["named"] or _BEFORE.search(flat, max(0, found.start("letter") - 80), found.start("letter")))
    ]
    correct = {found["letter"] for found in backward}
    for found in backward:
        if found["named"] or not (found["plain"] or found["chinese"]) or len(correct) == 1:
            joined = _JOINING.search(flat, max(0, found.start() - 12), found.start())
            yield Statement(found.start(), found.end(), None if joined else found["letter"])
    lines = [(line.start(), line.end()) for line in re.finditer(r"[^\n]*\S[^\n]*", flat)]
    for start, end in {lines[0], lines[-1]} if lines else ():
        yield from _alone(flat, start, end, text=len(lines) == 1)


def _after_cue(flat: str, cue: re.Match[str], weak: bool) -> Iterator[Statement]:
    before = max(0, cue.start() - 200)
    if _NEGATED.search(flat, before, cue.start()):
        return
    if re.search(r"would\s+(?:\w+\s+)?be\b", cue[0]) and _CONDITION.search(flat, before, cue.start()):
        return
    stands, letter, end = _choice_at(flat, cue.end())
    if letter and _SUBJECT.match(flat, end):
        return
    told = not weak or not letter or (not flat[end - 1].islower() and _tells(flat, end))
    if stands and told:
        yield Statement(cue.start(), end, letter)


def _tells(flat: str, end: int) -> bool:
    """Whether the sentence ends after the letter of a weak cue, or the words of its choice follow."""
    return bool(
        _SENTENCE_END.match(flat, end)
        or (flat[end - 1] == ")" or flat[end : end + 1] == ")")
        and _NAMED_TEXT.match(flat, end)
    )


def _alone(flat: str, start: int, end: int, text: bool = True) -> Iterator[Statement]:
    """A choice that is all of flat[start:end]; with `text`, the words of the choice may follow its label."""
    content = flat[start:end].rstrip(" \t.!。,;")
    lead = re.compile(_LEAD, re.IGNORECASE).match(content)
    position = lead.end() if lead else 0
    rest = content[position:]
    if re.fullmatch(r"[A-Ja-j]", rest.strip()):
        yield Statement(start, start + len(content), rest.strip().upper())
        return
    stands, letter, after = _choice_at(content, position)
    left = content[after:].strip(" \t)]选项")
    listed = letter and re.search(rf"[\s(]{chr(ord(letter) + 1)}[).]", content[after:])  # the next choice, too
    if stands and (not left or letter is None or (text and not listed and _NAMED_TEXT.match(content, after))):
        yield Statement(start, start + after, letter)

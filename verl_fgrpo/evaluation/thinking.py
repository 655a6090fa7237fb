"""A response without its thinking: what every grader of the evaluation and the reward reads."""

import re

_TAG = re.compile(
    r"(?P<open><(?:seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?)>|\[think\]|◁think▷|<\|begin_of_thought\|>"
    r"|<\|START_THINKING\|>|<\|channel\|>analysis<\|message\|>)"
    r"|</(?:seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?)>|\[/think\]|◁/think▷|<\|end_of_thought\|>"
    r"|<\|END_THINKING\|>|<\|channel\|>final<\|message\|>",
    re.IGNORECASE,
)


def answer_text(response: str) -> str:
    """`response` without its thinking; text without a thinking tag comes back as it is.

    - Finished, `<think>...</think>`: every block is taken out.
    - Finished, `</think>` without its opening tag (it stood in the prompt): all up to it is taken out.
    - Unfinished, `<think>` that is never closed: all from there on is taken out, so that a response which ends while
      it thinks has no answer, whatever stands in its thoughts.

    Tags: think, thinking, thought, reason, reasoning in angle brackets, also with `seed:`, `[THINK]`, `◁think▷`,
    `<|begin_of_thought|>`, `<|START_THINKING|>` and the channels analysis and final, in upper or lower case.
    """
    kept: list[str] = []
    start, thinking = 0, False
    for tag in _TAG.finditer(response):
        opens = tag["open"] is not None
        if opens and not thinking:
            kept.append(response[start : tag.start()])
        elif not opens and not thinking:
            kept.clear()
        if not opens:
            start = tag.end()
        thinking = opens
    if not thinking:
        kept.append(response[start:])
    return "".join(kept)

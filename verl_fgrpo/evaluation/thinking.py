"""A response without its thinking: what every grader of the evaluation and the reward reads."""

import re

_TAG = re.compile(
    r"(?P<open><(?:think(?:ing)?|thought|reasoning)>|\[think\]|◁think▷|<\|begin_of_thought\|>)"
    r"|</(?:think(?:ing)?|thought|reasoning)>|\[/think\]|◁/think▷|<\|end_of_thought\|>",
    re.IGNORECASE,
)


def answer_text(response: str) -> str:
    """`response` without its thinking; text without a thinking tag comes back as it is.

    - Finished, `<think>...</think>`: every block is taken out.
    - Finished, `</think>` without its opening tag (it stood in the prompt): all up to it is taken out.
    - Unfinished, `<think>` that is never closed: all from there on is taken out, so that a response which ends while
      it thinks has no answer, whatever stands in its thoughts.

    Tags: think, thinking, thought, reasoning in angle brackets, `[THINK]`, `◁think▷` and `<|begin_of_thought|>`, in
    upper or lower case.
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

"""ANTLR's parser remembers its full-context predictions, as it already does with all others.

Where the next tokens alone do not decide, ANTLR predicts with the whole stack of rules ("full context", LL), and
computes that anew every time: the slowest part of parsing LaTeX. But it is a function of little. The first set of
configurations depends on the decision's state, the stack of rules and the precedence; every next one on the set before
and one token. `install` remembers both, so the predictions are the same. A grammar with predicates written in Python
could break this; that of `latex2sympy2_extended` has precedences only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

__all__ = ["install", "remembering"]

REMEMBERED = 10_000  # sets of configurations, about 30 kB each; then all are forgotten


def remembering(
    start: Callable[..., Any], reach: Callable[..., Any], limit: int = REMEMBERED
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`start` and `reach` with a common memory.

    Args:
        start: `ParserATNSimulator.computeStartState`: (simulator, state, context, full_context) -> first set.
        reach: `ParserATNSimulator.computeReachSet`: (simulator, set, token, full_context) -> next set or None.
        limit: of remembered sets.
    """
    starts: dict[tuple[Any, ...], Any] = {}
    reaches: dict[int, tuple[Any, dict[int, Any]]] = {}  # by id of a set: the set, so that it lives, and what follows

    def remember(configurations: Any) -> Any:
        if len(reaches) >= limit:
            starts.clear()
            reaches.clear()
        reaches[id(configurations)] = configurations, {}
        return configurations

    @wraps(start)
    def remembered_start(simulator: Any, state: Any, context: Any, full_context: bool) -> Any:
        if not full_context or context is None:
            return start(simulator, state, context, full_context)
        stack, rule = [], context
        while rule.parentCtx is not None:
            stack.append(rule.invokingState)
            rule = rule.parentCtx
        key = (simulator.atn, state.stateNumber, simulator.parser.getPrecedence(), *stack)
        if key not in starts:
            found = remember(start(simulator, state, context, full_context))
            starts[key] = found
        return starts[key]

    @wraps(reach)
    def remembered_reach(simulator: Any, configurations: Any, token: int, full_context: bool) -> Any:
        if not full_context or id(configurations) not in reaches:
            return reach(simulator, configurations, token, full_context)
        _, following = reaches[id(configurations)]
        if token not in following:
            found = reach(simulator, configurations, token, full_context)
            following[token] = found if found is None else remember(found)
        return following[token]

    return remembered_start, remembered_reach


@lru_cache(maxsize=1)
def install() -> None:
    """Replace the two functions of ANTLR's `ParserATNSimulator` in this process."""
    from antlr4.atn.ParserATNSimulator import ParserATNSimulator as Simulator  # type: ignore[import-untyped, unused-ignore]

    start, reach = remembering(Simulator.computeStartState, Simulator.computeReachSet)
    Simulator.computeStartState, Simulator.computeReachSet = start, reach

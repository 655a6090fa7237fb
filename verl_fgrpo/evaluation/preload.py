"""Imported once in the server that grading workers are forked from: loads math-verify and fills its parser's tables.

ANTLR builds its decision tables while it parses, which makes the first expressions of every kind 10 to 100 times
slower than later ones. Workers are forked with the tables filled. Nothing here replaces anything or changes a verdict.
"""

from __future__ import annotations

from itertools import pairwise

EXPRESSIONS = (
    r"\frac{1}{2}",
    r"-\dfrac{3\sqrt{2}}{4}",
    r"\left( 3, \frac{\pi}{2} \right)",
    r"(-\infty, 0) \cup \{1\} \cup [2, 5]",
    r"\{1, 2, 3\}",
    r"1, 2, -3",
    r"x^2 + 2xy - 3y^{2}",
    r"f(x) = ax + b",
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
    r"90^\circ",
    r"7.5 \times 10^{-7}",
    r"2\pi",
    r"\sin{x} + \cos(2x) + \tan\theta",
    r"\arcsin{\frac{1}{1.3}}",
    r"e^{-t} \ln x + \log_2 8",
    r"\sqrt[3]{5} + \sqrt{a^2 + b^2}",
    r"\text{even}",
    r"\text{(A)}",
    r"x \leq 3",
    r"0 < x < 1",
    r"x \in [-2, 7)",
    r"50\%",
    r"3 + 4i",
    r"\binom{5}{2}",
    r"n!",
    r"|x - 1|",
    r"\frac{dM}{dt} = \frac{10^{5} L_{\odot}}{c^{2}} M^{6}",
    r"1{,}000",
    r"a_1 + a_2 + \cdots + a_n",
    r"\sum_{k=1}^{n} k",
    r"\int_0^1 x \, dx",
    r"2 \cdot 3 \div 4",
    r"10\text{ cm}",
    r"\$18.90",
    r"BC",
    r"\pm 2",
)


def fill_tables() -> None:
    """Parse every expression and compare neighbours, in the ways responses are parsed and compared."""
    from math_verify import parse, verify

    parsed = []
    for text in EXPRESSIONS:
        for form in (f"the answer is $\\boxed{{{text}}}$.", f"Answer: ${text}$", f"\\boxed{{{text}}}", text):
            parsed.append(parse(form))
    for one, other in pairwise(parsed[::2]):
        verify(one, other)


fill_tables()

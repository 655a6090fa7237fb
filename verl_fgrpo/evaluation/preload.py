"""Imported once in the server that grading workers are forked from: loads math-verify and fills its parser's tables.

ANTLR builds its decision tables while it parses, which makes the first expressions of every kind 10 to 100 times
slower than later ones. Workers are forked with the tables filled. Nothing here replaces anything or changes a verdict.
"""

from itertools import pairwise

from verl_fgrpo.evaluation.graders import parse_math, verify_math

_EXPRESSIONS = r"""
\frac{1}{2} ;; -\dfrac{3\sqrt{2}}{4} ;; \left( 3, \frac{\pi}{2} \right) ;;
(-\infty, 0) \cup \{1\} \cup [2, 5] ;; \{1, 2, 3\} ;; 1, 2, -3 ;; x^2 + 2xy - 3y^{2} ;; f(x) = ax + b ;;
\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} ;; 90^\circ ;; 7.5 \times 10^{-7} ;; 2\pi ;;
\sin{x} + \cos(2x) + \tan\theta ;; \arcsin{\frac{1}{1.3}} ;; e^{-t} \ln x + \log_2 8 ;;
\sqrt[3]{5} + \sqrt{a^2 + b^2} ;; \text{even} ;; \text{(A)} ;; x \leq 3 ;; 0 < x < 1 ;; x \in [-2, 7) ;;
50\% ;; 3 + 4i ;; \binom{5}{2} ;; n! ;; |x - 1| ;; \frac{dM}{dt} = \frac{10^{5} L_{\odot}}{c^{2}} M^{6} ;;
1{,}000 ;; a_1 + a_2 + \cdots + a_n ;; \sum_{k=1}^{n} k ;; \int_0^1 x \, dx ;; 2 \cdot 3 \div 4 ;;
10\text{ cm} ;; \$18.90 ;; BC ;; \pm 2
"""
EXPRESSIONS = [text.strip() for text in _EXPRESSIONS.split(";;")]


def fill_tables() -> None:
    """Parse every expression and compare neighbours, in the ways responses are parsed and compared."""
    parsed = []
    for text in EXPRESSIONS:
        for form in (f"the answer is $\\boxed{{{text}}}$.", f"Answer: ${text}$", f"\\boxed{{{text}}}", text):
            parsed.append(parse_math(form))
    for one, other in pairwise(parsed[::2]):
        verify_math(one, other)


fill_tables()

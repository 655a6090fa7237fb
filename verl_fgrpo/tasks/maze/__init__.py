"""Mazes: the paper's small experiment (arXiv 2602.06717, section 5.2, appendix K), made small enough for a CPU.

Not here: tokenizer, model, start model, sampling and reports, which all tasks share (tasks/common).
"""

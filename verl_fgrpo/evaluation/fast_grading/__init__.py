"""Opt-in (`grade --fast`): math-verify with some functions replaced, for versions that were checked.

Not here: the default grading, and the training reward, which run math-verify unchanged.
"""

"""Sibling methods: other ways to reshape group-relative advantages. One method, one module of pure tensor math.

`estimators.py` gives them verl's calling convention; the rest imports no verl.
"""

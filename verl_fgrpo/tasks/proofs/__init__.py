"""Propositional theorems with many proofs each, checked by a real Lean 4 kernel (docs/proofs.md).

Not here: tokenizer, model, start model, sampling and reports, which all tasks share (tasks/common).
"""

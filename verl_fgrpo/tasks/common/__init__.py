"""What every task shares: word-level tokenizer, small Qwen2, supervised start model, data files, sampling, reports.

Not here: anything that knows what a maze or a proof is.
"""

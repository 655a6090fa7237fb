"""What recipes need around a training run: data, preflight, run folder, reward.

Not here: evaluation after training (evaluation/), and the small tasks trained on a CPU (tasks/).
"""

"""Data preparation: training files for verl, and the evaluation benchmarks in one schema."""

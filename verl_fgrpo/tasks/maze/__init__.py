"""Mazes: the paper's small experiment (arXiv 2602.06717, section 5.2, appendix K), made small enough for a CPU.

mazes      seeded generator, solver, text form         rewards   verl's reward function
tokenizer  word-level tokenizer, Hugging Face format   dataset   verl's parquet files
model      Qwen2 from scratch                          sampling  many answers a maze, for pass@k
sft        supervised start model                      render    a maze and its paths as text or figure
prepare    all of it with one call

Nothing here imports verl; torch and transformers are imported inside the functions that need them.
"""

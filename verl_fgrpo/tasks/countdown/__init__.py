"""Countdown with SmolLM2: problems of reasoning-gym, a reward that evaluates nothing, the supervised start, the report.

What it shares with other tasks lies in `tasks/common`; the recipe is recipes/run_fgrpo_smollm2.sh.
"""

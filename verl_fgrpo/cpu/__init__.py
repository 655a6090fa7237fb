"""verl without an accelerator: a platform, FSDP2 engines, a rollout on transformers, a fast replay buffer.

Idle unless VERL_PLATFORM=cpu: then its entry point (entry.py) installs it. No other room imports this one.
"""

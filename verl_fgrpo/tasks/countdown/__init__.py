"""Countdown: make a target from given numbers. Problems of reasoning-gym, a real small language model."""

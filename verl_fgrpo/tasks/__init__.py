"""Small tasks with exact verifiers, trained by verl's own trainer on a CPU.

Not here: benchmarks of real problems (evaluation/) and the CPU platform itself (cpu/).
"""

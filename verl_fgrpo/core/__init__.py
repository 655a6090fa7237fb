"""Pure ground-floor ideas: groups and focal weight, pass@k, tail miss, verl's dumps, files, tables, figure style.

Not here: anything that needs verl, a model or a benchmark; core imports no other room.
"""

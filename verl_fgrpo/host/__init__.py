"""The one room that touches verl's trainer: registration, the seam, metrics, the contract with the host, the doctor.

Not here: formulas (methods/, core/), and the CPU platform (cpu/), which has an entry point of its own.
"""

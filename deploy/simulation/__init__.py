"""The real daemons on virtual time, in a world that goes wrong in every way it can.

`./scripts/simulate --seeds N [--from S]` runs one story per seed and checks what must always hold
after everything that happens.
"""

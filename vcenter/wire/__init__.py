"""gRPC: decode, authenticate, authorize, then a command to the ledger or a look at the table.

One file per service; `guard` is the one place where a call gets in, `rules` says who may what.
"""

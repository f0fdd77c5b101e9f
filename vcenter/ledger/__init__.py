"""The one way to change anything: `writer` decides and commits, `feed` tells what became durable.

`ledger` is how the rest of the vCenter sees it; `loading`, `past` and `keeping` are about the log's
beginning, middle and end.
"""

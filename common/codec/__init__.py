"""Between the model and the wire: the only package that knows both.

`to_*` never fails. `from_*` takes a `Checker`, which collects every malformed field with its path,
so that a caller learns of all of them at once and nothing half-read gets in.
"""

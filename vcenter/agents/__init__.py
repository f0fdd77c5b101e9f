"""Attached agents: their streams, what each should hear next, and what is asked of them."""

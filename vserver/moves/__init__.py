"""This host's part in moves: which order stands, and what each step does."""

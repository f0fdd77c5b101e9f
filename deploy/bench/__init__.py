"""Benchmarks: programs, not tests. Subject and baseline are interleaved in one run."""

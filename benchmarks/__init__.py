"""Benchmarks: each prints one table, with the machine and the spread."""

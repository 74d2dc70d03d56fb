"""Offline training, evaluation and export of purifiers (PyTorch)."""

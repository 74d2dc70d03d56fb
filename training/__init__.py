"""Offline training, evaluation and export of purifiers (PyTorch)."""

import os

# onnxruntime reports its use to its vendor unless this is set before it is first imported. Whoever
# wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

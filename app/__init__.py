"""The purifying inference service: decodes, purifies and classifies uploaded images."""

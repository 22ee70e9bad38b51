"""Quantization-aware training: layer wrappers, ranges, and the way back."""

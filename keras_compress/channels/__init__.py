"""Channels removed: a smaller dense model by surgery on the graph."""

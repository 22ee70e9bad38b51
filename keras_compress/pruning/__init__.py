"""Pruning: weights become zeros, shapes stay."""

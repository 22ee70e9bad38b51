"""Large kernels as products of two smaller ones."""

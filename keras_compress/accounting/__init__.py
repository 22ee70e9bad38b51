"""What a model costs: parameters, non-zeros and multiply-accumulates."""

"""Above all techniques: `CompressionReport`, one account of every stage."""

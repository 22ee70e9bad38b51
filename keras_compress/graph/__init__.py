"""The one place that reads and rebuilds Keras graphs."""

from keras_compress.graph.read import Graph, Ref, Step, read_graph
from keras_compress.graph.rebuild import Builder, rebuild

__all__ = ["Builder", "Graph", "Ref", "Step", "read_graph", "rebuild"]

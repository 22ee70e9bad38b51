"""Export any Keras 3 model to a checked `.tflite` file, and look into the file.

```python
import tflite_export

result = tflite_export.export(model, "m.tflite", representative_data=x_train[:200])
print(result)                                    # bytes, ops, what is left in float
print(tflite_export.inspect("m.tflite"))         # every op: shape, MACs, bytes
print(tflite_export.compare(model, "m.tflite", x_test))
print(tflite_export.benchmark("m.tflite"))
```

Importing the package does not import TensorFlow; `export` does when it is called.
"""

from tflite_export.benchmark import Latency, benchmark
from tflite_export.compare import Agreement, compare
from tflite_export.convert import export
from tflite_export.inspect import OpRow, TensorRow, TFLiteProfile, inspect
from tflite_export.predict import predict
from tflite_export.result import ExportResult

__all__ = [
    "Agreement",
    "ExportResult",
    "Latency",
    "OpRow",
    "TFLiteProfile",
    "TensorRow",
    "benchmark",
    "compare",
    "export",
    "inspect",
    "predict",
]

"""Export any Keras 3 model to a checked `.tflite` file, and look into the file.

```python
import tflite_export

result = tflite_export.export(model, "m.tflite", representative_data=x_train[:300])
print(result)                                    # bytes, agreement, ops
print(tflite_export.inspect("m.tflite"))         # every op: shape, MACs, bytes, scale
print(tflite_export.compare(model, "m.tflite", x_test))
print(tflite_export.evaluate("m.tflite", (x_test, y_test), ["accuracy"]))
print(tflite_export.benchmark("m.tflite"))
tflite_export.to_c_array("m.tflite", "m.h", "m.cc")
```

Importing the package does not import TensorFlow; `export` does when it is called.
"""

from tflite_export.agreement import Agreement, Agreements
from tflite_export.benchmark import Latency, OpTime, benchmark
from tflite_export.c_array import to_c_array
from tflite_export.compare import compare
from tflite_export.convert import export
from tflite_export.evaluate import evaluate
from tflite_export.inspect import inspect
from tflite_export.metadata import ImageMetadata, add_metadata, read_metadata
from tflite_export.micro import MicroCheck, verify_micro
from tflite_export.predict import predict
from tflite_export.result import ExportResult
from tflite_export.tflite_profile import OpRow, Signature, TensorRow, TFLiteProfile

__all__ = [
    "Agreement",
    "Agreements",
    "ExportResult",
    "ImageMetadata",
    "Latency",
    "MicroCheck",
    "OpRow",
    "OpTime",
    "Signature",
    "TFLiteProfile",
    "TensorRow",
    "add_metadata",
    "benchmark",
    "compare",
    "evaluate",
    "export",
    "inspect",
    "predict",
    "read_metadata",
    "to_c_array",
    "verify_micro",
]

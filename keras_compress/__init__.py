"""Model compression for Keras 3 on TensorFlow."""

from keras_compress.distillation.callback import Distillation
from keras_compress.distillation.objectives import SoftTargets
from keras_compress.distillation.teacher_cache import TeacherCache
from keras_compress.quantization.callback import QuantizationSchedule
from keras_compress.quantization.transform import quantize_aware, strip

__all__ = [
    "Distillation",
    "QuantizationSchedule",
    "SoftTargets",
    "TeacherCache",
    "quantize_aware",
    "strip",
]

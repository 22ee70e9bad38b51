"""Model compression for Keras 3 on TensorFlow."""

from keras_compress.distillation.callback import Distillation
from keras_compress.distillation.objectives import SoftTargets
from keras_compress.distillation.teacher_cache import TeacherCache

__all__ = ["Distillation", "SoftTargets", "TeacherCache"]

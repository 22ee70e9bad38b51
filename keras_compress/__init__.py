"""Model compression for Keras 3 on TensorFlow."""

from keras_compress.accounting.profile import LayerProfile, ModelProfile, profile
from keras_compress.channels.groups import ChannelGroup, channel_groups
from keras_compress.channels.prune import prune_channels
from keras_compress.channels.recalibrate import recalibrate_batchnorm
from keras_compress.channels.sparsity_training import ChannelSparsity
from keras_compress.clustering.callback import WeightClustering
from keras_compress.distillation.callback import Distillation
from keras_compress.distillation.decoupled import DecoupledTargets
from keras_compress.distillation.feature_match import FeatureMatch
from keras_compress.distillation.feature_objectives import (
    AttentionTransfer,
    SimilarityPreserving,
)
from keras_compress.distillation.fit_schedules import (
    ConstantValue,
    CosineValue,
    LinearValue,
)
from keras_compress.distillation.mean_teacher import MovingAverageTeacher
from keras_compress.distillation.objectives import MeanSquaredTargets, SoftTargets
from keras_compress.distillation.relational import RelationalTargets
from keras_compress.distillation.teacher_cache import TeacherCache
from keras_compress.factorization.factorize import factorize
from keras_compress.kernels import sparsity
from keras_compress.pipeline.report import CompressionReport
from keras_compress.pruning.layerwise import layerwise_sparsity
from keras_compress.pruning.magnitude import MagnitudePruning
from keras_compress.pruning.patterns import Block
from keras_compress.pruning.schedules import ConstantSparsity, PolynomialDecay
from keras_compress.pruning.sensitivity import Sensitivity, sensitivity
from keras_compress.quantization.callback import QuantizationSchedule
from keras_compress.quantization.transform import quantize_aware, strip

__all__ = [
    "AttentionTransfer",
    "Block",
    "ChannelGroup",
    "ChannelSparsity",
    "CompressionReport",
    "ConstantSparsity",
    "ConstantValue",
    "CosineValue",
    "DecoupledTargets",
    "Distillation",
    "FeatureMatch",
    "LayerProfile",
    "LinearValue",
    "MagnitudePruning",
    "MeanSquaredTargets",
    "ModelProfile",
    "MovingAverageTeacher",
    "PolynomialDecay",
    "QuantizationSchedule",
    "RelationalTargets",
    "Sensitivity",
    "SimilarityPreserving",
    "SoftTargets",
    "TeacherCache",
    "WeightClustering",
    "channel_groups",
    "factorize",
    "layerwise_sparsity",
    "profile",
    "prune_channels",
    "quantize_aware",
    "recalibrate_batchnorm",
    "sensitivity",
    "sparsity",
    "strip",
]

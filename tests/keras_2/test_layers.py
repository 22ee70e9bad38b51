"""Layers of Keras 2 and the Keras 3 layers that compute the same."""

import keras
import pytest
import tensorflow as tf
import tf_keras

from keras_compress.tfmot import from_tfmot

# tf_keras is not free of warnings on today's NumPy and TensorFlow.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:tf_keras"),
]
layers = tf_keras.layers


def image_layers():
    return [
        layers.Rescaling(0.5, -1.0),
        layers.Normalization(),
        layers.ZeroPadding2D(1),
        layers.Conv2D(8, 3, strides=2, activation="relu", kernel_regularizer="l2"),
        layers.BatchNormalization(),
        layers.LeakyReLU(0.2),
        layers.Conv2D(8, 3, padding="same", groups=2, kernel_constraint="max_norm"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, activation="swish"),
        layers.PReLU("uniform"),
        layers.SeparableConv2D(6, 3, activation=tf.nn.relu6),
        layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
        layers.UpSampling2D(2, interpolation="bilinear"),
        layers.UpSampling2D(2),
        layers.AveragePooling2D(3, strides=2, padding="same"),
        layers.MaxPooling2D(2),
        layers.Cropping2D(1),
        layers.Resizing(5, 7),
        layers.RandomFlip(),
        layers.RandomRotation(0.1),
        layers.Dropout(0.1),
        layers.SpatialDropout2D(0.2),
        layers.GaussianNoise(0.1),
        layers.LayerNormalization(),
        layers.GroupNormalization(5),
        layers.ELU(),
        layers.ThresholdedReLU(0.01),
        layers.ReLU(6.0, 0.1, 0.05),
        layers.Softmax(),
        layers.Flatten(),
        layers.Dense(4, activation="hard_sigmoid"),
        layers.Activation("gelu"),
    ]


def test_a_net_with_every_common_image_layer(assert_moves):
    old = tf_keras.Sequential([tf_keras.Input((16, 16, 4)), *image_layers()])
    new = assert_moves(old, (16, 16, 4))
    assert [layer.name for layer in new.layers] == [layer.name for layer in old.layers]


def test_one_dimensional_convolutions(assert_moves):
    old = tf_keras.Sequential(
        [
            tf_keras.Input((12, 4)),
            layers.Conv1D(6, 3, padding="causal", dilation_rate=2),
            layers.SeparableConv1D(4, 3),
            layers.DepthwiseConv1D(2),
            layers.Conv1DTranspose(4, 2),
            layers.UpSampling1D(2),
            layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"),
            layers.GlobalAveragePooling1D(),
        ]
    )
    assert_moves(old, (12, 4))


def recurrent_layers():
    return [
        layers.LSTM(5, return_sequences=True),
        layers.GRU(5, return_sequences=True),
        layers.GRU(5, reset_after=False, return_sequences=True),
        layers.SimpleRNN(4, return_sequences=True, go_backwards=True),
        layers.Bidirectional(
            layers.LSTM(3, return_sequences=True, recurrent_activation="hard_sigmoid")
        ),
        layers.TimeDistributed(layers.BatchNormalization()),
        layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)], return_sequences=True),
        layers.Bidirectional(layers.GRU(3), merge_mode="sum"),
    ]


def test_recurrent_layers_see_the_mask_of_the_embedding(assert_moves, rng):
    old = tf_keras.Sequential(
        [
            tf_keras.Input((9,)),
            layers.Embedding(20, 6, mask_zero=True, input_length=9),
            layers.SpatialDropout1D(0.1),
            *recurrent_layers(),
        ]
    )
    assert_moves(old, rng.integers(0, 3, (4, 9)))


class Doubled(layers.Layer):
    def call(self, x):
        return 2 * x


@keras.saving.register_keras_serializable(package="tests")
class Doubled3(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def test_a_layer_that_keras_3_lacks_is_named_with_its_remedy(assert_moves):
    old = tf_keras.Sequential([tf_keras.Input((3,)), Doubled(name="twice")])
    with pytest.raises(ValueError, match=r"'twice'.*Received: Doubled.*custom_objects"):
        from_tfmot(old)
    for remedy in ({"Doubled": Doubled3}, {"twice": Doubled3(name="twice")}):
        assert_moves(old, (3,), custom_objects=remedy)


def test_a_lambda_layer_is_refused_unless_a_layer_stands_for_it(assert_moves):
    doubled = layers.Lambda(lambda x: 2 * x, name="twice")
    old = tf_keras.Sequential([tf_keras.Input((3,)), doubled])
    with pytest.raises(ValueError, match=r"'twice'.*Received: Lambda"):
        from_tfmot(old)
    remedy = {"twice": Doubled3(name="twice")}
    assert_moves(old, (3,), custom_objects=remedy)


def test_a_setting_that_keras_3_lacks_is_an_error_not_a_silent_change():
    old = tf_keras.Sequential(
        [tf_keras.Input((3, 4)), layers.LSTM(2, time_major=True, name="rows")]
    )
    with pytest.raises(ValueError, match=r"'rows'.*time_major"):
        from_tfmot(old)

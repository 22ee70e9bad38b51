"""TensorFlow functions in Keras 2 graphs become functions of keras.ops."""

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


FUNCTIONS = [
    lambda x: 1.0 - x * 0.5 + tf.ones((3,)),
    lambda x: -x / 2.0,
    lambda x: x[:, ::-1, tf.newaxis, 1],
    lambda x: x[0:2],
    lambda x: tf.concat([x, tf.nn.relu(x)], axis=-1),
    lambda x: tf.reduce_mean(x, axis=1, keepdims=True),
    lambda x: tf.reduce_sum(x, keepdims=True),
    lambda x: tf.nn.gelu(x),
    lambda x: tf.nn.softmax(x, axis=1),
    lambda x: tf.nn.leaky_relu(x, 0.3),
    lambda x: tf.math.l2_normalize(x, axis=-1),
    lambda x: tf.split(x, [1, 2], axis=-1),
    lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 0]], constant_values=2.0),
    lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 0]], "REFLECT"),
    lambda x: tf.matmul(x, x, transpose_b=True),
    lambda x: tf.transpose(tf.reshape(x, (-1, 2, 6)), (0, 2, 1)),
    lambda x: tf.gather(x, [2, 0], axis=1),
    lambda x: tf.einsum("abc,abd->acd", x, x),
    lambda x: tf.where(x > 0.0, x, tf.exp(x)),
    lambda x: tf.image.resize(x[..., None], (7, 5), method="nearest"),
    lambda x: tf.cast(tf.argmax(x, -1), tf.float32),
    lambda x: tf.squeeze(tf.stack([x, x], 1)[:, :1], 1),
    lambda x: tf.clip_by_value(x, -0.5, tf.math.rsqrt(2.0)),
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=range(len(FUNCTIONS)))
def test_tensorflow_functions_in_the_graph(function, assert_moves):
    x = tf_keras.Input((4, 3))
    # Keras 3 would number its own op like this layer.
    old = tf_keras.Model(x, function(layers.Add(name="add")([x, x])))
    new = assert_moves(old, (4, 3))
    names = {layer.name for layer in old.layers}
    assert names & {operation.name for operation in new.operations} >= {"add"}


def test_a_function_without_counterpart_is_named_with_its_remedy(assert_moves):
    x = tf_keras.Input((4, 4, 4))
    old = tf_keras.Model(x, tf.nn.depth_to_space(x, 2))
    with pytest.raises(ValueError, match=r"Received: tf\.nn\.depth_to_space"):
        from_tfmot(old)

    def unfold(x, block_size, data_format="NHWC", name=None):
        x = keras.ops.reshape(x, (-1, 4, 4, block_size, block_size, 1))
        x = keras.ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return keras.ops.reshape(x, (-1, 8, 8, 1))

    remedy = {"tf.nn.depth_to_space": unfold}
    assert_moves(old, (4, 4, 4), custom_objects=remedy)

"""Graphs of Keras 2: nested, shared, with several inputs and outputs."""

import keras
import pytest
import tf_keras

from keras_compress.tfmot import from_tfmot

# tf_keras is not free of warnings on today's NumPy and TensorFlow.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:tf_keras"),
]
layers = tf_keras.layers


def test_an_encoder_hands_its_state_to_a_decoder(assert_moves):
    source, target = tf_keras.Input((5, 3)), tf_keras.Input((4, 3))
    _, *state = layers.LSTM(6, return_state=True)(source)
    decoded = layers.LSTM(6, return_sequences=True)(target, initial_state=state)
    attended = layers.MultiHeadAttention(2, 3)(decoded, value=source)
    mixed = layers.Attention(use_scale=True)([decoded, attended])
    old = tf_keras.Model([source, target], [decoded, attended, mixed])
    assert_moves(old, (5, 3), (4, 3))


def test_shared_layers_and_nested_models_stay_shared(assert_moves):
    first, second = tf_keras.Input((4,)), tf_keras.Input((4,))
    shared = layers.Dense(4, name="tower/shared")
    inner = tf_keras.Sequential([layers.Dense(3), tf_keras.Sequential([layers.ReLU()])])
    a, b = shared(first), shared(second)
    joined = layers.Add()([inner(a, training=False), inner(b)])
    outputs = {"joined": joined, "others": [layers.Concatenate()([a, b]), a]}
    old = tf_keras.Model([first, second], outputs)
    new = assert_moves(old, (4,), (4,))
    assert new.count_params() == old.count_params()
    assert new.get_layer("tower_shared").count_params() == 20
    assert set(new.output) == {"joined", "others"}


def test_a_model_inside_time_distributed(assert_moves):
    frame = tf_keras.Sequential([tf_keras.Input((6, 6, 2)), layers.Conv2D(3, 3)])
    old = tf_keras.Sequential(
        [tf_keras.Input((3, 6, 6, 2)), layers.TimeDistributed(frame)]
    )
    assert_moves(old, (3, 6, 6, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["MobileNetV2", "ResNet50V2", "EfficientNetB0", "DenseNet121"]
)
def test_models_of_applications(name, assert_moves):
    build = getattr(tf_keras.applications, name)
    old = build(weights=None, input_shape=(32, 32, 3), classifier_activation=None)
    new = assert_moves(old, (32, 32, 3))
    assert new.count_params() == old.count_params()


class Subclassed(tf_keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Subclassed(), "no graph to read.*Received: Subclassed"),
        (lambda: tf_keras.Sequential([layers.Dense(2)]), "Give a Sequential its input"),
        (lambda: keras.Sequential([keras.Input((2,))]), "must be a model of Keras 2"),
        (lambda: "model.h5", "Received: 'model.h5'"),
    ],
)
def test_what_has_no_keras_2_graph_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        from_tfmot(model())

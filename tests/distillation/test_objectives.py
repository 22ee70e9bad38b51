import keras
import numpy as np
import pytest

import keras_compress as kc


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected(teacher, student, temperature):
    t, s = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * np.sum(t * np.log(t / s), axis=-1)


@pytest.fixture
def logits():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 6, 10)).astype("float32") * 3


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_the_loss_is_t_squared_times_kl_in_nats(logits, temperature):
    loss = kc.SoftTargets(temperature=temperature)(*logits)
    assert float(loss) == pytest.approx(expected(*logits, temperature).mean(), rel=1e-4)


def test_sample_weights_weigh_each_example_and_divide_by_the_batch(logits):
    w = np.array([0, 1, 2, 0, 0.5, 1], "float32")
    loss = kc.SoftTargets(temperature=2.0)(*logits, sample_weight=w)
    assert float(loss) == pytest.approx(np.mean(w * expected(*logits, 2.0)), rel=1e-5)


def test_probabilities_give_the_loss_of_their_logits(logits):
    loss = kc.SoftTargets(from_logits=False)(*softmax(logits))
    assert float(loss) == pytest.approx(expected(*logits, 4.0).mean(), rel=1e-3)


def test_equal_outputs_cost_nothing(logits):
    assert float(kc.SoftTargets()(logits[0], logits[0])) == 0.0


def test_large_logits_stay_finite():
    loss = kc.SoftTargets(temperature=1.0)(
        np.array([[1e4, -1e4]]), np.array([[-1e4, 1e4]])
    )
    assert float(loss) == pytest.approx(2e4)


def test_the_config_makes_the_same_objective():
    objective = kc.SoftTargets(temperature=7.0, weight=0.3, from_logits=False)
    config = keras.saving.serialize_keras_object(objective)
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again, kc.SoftTargets)
    assert again.get_config() == objective.get_config()


@pytest.mark.parametrize("arguments", [{"temperature": 0}, {"weight": -0.1}])
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        kc.SoftTargets(**arguments)

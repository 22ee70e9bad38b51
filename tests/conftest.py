import keras
import pytest
import tensorflow as tf


@pytest.fixture(scope="session", autouse=True)
def two_cpus():
    """Two logical CPUs, for `tf.distribute`; must be set before TensorFlow starts."""
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    return ["CPU:0", "CPU:1"]


@pytest.fixture(scope="session")
def two_replicas(two_cpus):
    """A strategy on two logical CPUs.

    One for all tests: the collective operations of a second one in the same process
    would have the keys of the first one's (TensorFlow 2.21).
    """
    return tf.distribute.MirroredStrategy(two_cpus)


@pytest.fixture(autouse=True)
def fresh_keras():
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)

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


@pytest.fixture(autouse=True)
def fresh_keras():
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)

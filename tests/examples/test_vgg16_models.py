import keras
import numpy as np
import pytest
import vgg16_models


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((16, 28, 28, 1), "float32")


def test_the_student_has_under_100_thousand_parameters():
    student = vgg16_models.build_student()
    assert student.count_params() == 84634
    assert student.output_shape == (None, 10)


def test_the_teacher_is_a_whole_vgg16():
    teacher = vgg16_models.build_teacher()
    head = (512 + 1) * 256 + (256 + 1) * 10
    assert teacher.count_params() == 14_714_688 + head


def test_normalizing_gives_unit_activations_and_the_same_features(images):
    keras.utils.set_random_seed(0)
    teacher = vgg16_models.build_teacher()
    vgg16 = teacher.get_layer("vgg16")
    features = keras.Model(teacher.input, teacher.layers[-3].output)
    before = features.predict(images, verbose=0)
    vgg16_models.normalize_activations(teacher, images)
    after = features.predict(images, verbose=0)
    factor = np.linalg.norm(after) / np.linalg.norm(before)
    np.testing.assert_allclose(after, before * factor, rtol=1e-3, atol=1e-4)
    centred = keras.Model(teacher.input, teacher.layers[3].output)
    outputs = keras.Model(
        vgg16.input, [layer.output for layer in vgg16_models.convolutions(vgg16)]
    ).predict(centred.predict(images, verbose=0), verbose=0)
    deviations = [np.sqrt(np.mean(np.square(output))) for output in outputs]
    np.testing.assert_allclose(deviations, 1, atol=1e-3)


def test_a_weights_file_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match=r"no_such\.weights\.h5"):
        vgg16_models.load_teacher_weights(
            vgg16_models.build_teacher(), "no_such.weights.h5"
        )

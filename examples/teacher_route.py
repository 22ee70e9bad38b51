"""The second route: VGG16 itself made smaller, with the whole one as its teacher."""

import keras
import train_vgg16_teacher

import keras_compress as kc


def make_smaller(teacher, cache, data, *, macs, params, epochs, seed):
    """Takes channels out of the teacher, writes large kernels as products, trains it.

    The batch size and the dtype policy of the training are the flags of
    examples/train_vgg16_teacher.py.

    Args:
        teacher: a trained VGG16; it is not changed.
        cache: `kc.TeacherCache` of its outputs for the training images.
        data: `image_data.ImageData`.
        macs: share of the multiply-accumulates that the channels left make.
        params: share of the parameters then left that low-rank kernels keep; 1: all.
        epochs, seed: as in Keras.

    Returns:
        The smaller `keras.Model`, its weights float32.
    """
    keras.utils.set_random_seed(seed)
    smaller = kc.prune_channels(teacher, macs=macs)
    if params < 1:
        smaller = kc.factorize(smaller, params=params)
    flags = train_vgg16_teacher.flags.FLAGS
    images = data.x_train, data.y_train
    batches = train_vgg16_teacher.augmented(*images, flags.batch_size, cache)
    rate = keras.optimizers.schedules.CosineDecay(3e-4, epochs * len(batches))
    smaller.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.02, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    targets = kc.RelationalTargets(temperature=1.0)
    distillation = kc.Distillation(cache, targets, student_loss_weight=1.0)
    *hidden, _ = smaller.layers
    try:
        for layer in hidden:
            layer.dtype_policy = flags.policy
        options = {"epochs": epochs, "shuffle": False}  # the dataset is shuffled
        smaller.fit(batches, callbacks=[distillation], **options)
    finally:
        for layer in hidden:
            layer.dtype_policy = "float32"
    return smaller

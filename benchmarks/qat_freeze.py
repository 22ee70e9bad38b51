"""Freeze BatchNormalization during a fit, for Keras 3 and for tf_keras."""

# When every method of `qat_accuracy.py` does so, as a share of its fine-tuning.
FREEZE_AT = 0.5


def freeze_batch_norm(keras, at: float):
    """A callback after whose step `at` the layers use their moving statistics."""

    class FreezeBatchNorm(keras.callbacks.Callback):
        frozen = False

        def on_train_batch_begin(self, batch, logs=None):
            if self.frozen or int(self.model.optimizer.iterations) < at:
                return
            self.frozen = True
            for layer in self.model.layers:
                # TFMOT's wrappers hold the layer.
                inner = getattr(layer, "layer", layer)
                if isinstance(inner, keras.layers.BatchNormalization):
                    inner.trainable = False
            self.model.make_train_function(force=True)

    return FreezeBatchNorm()

"""From a Keras model to the bytes of a working `.tflite` file."""

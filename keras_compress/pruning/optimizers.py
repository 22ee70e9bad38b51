"""What pruning must know of the optimizer it works through."""

from keras_compress.optimizer_steps import inner_optimizer


def averages_of(model, variable) -> list:
    """The moving average of a variable that an optimizer with `use_ema` holds.

    Keras (checked on 3.15.1) averages weights before constraints, and names the average
    after the path of its variable.

    Raises:
        ValueError: If averages of several variables have the same name.
    """
    optimizer = inner_optimizer(model.optimizer)
    if not optimizer.use_ema:
        return []
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    name = f"{variable.path.replace('/', '_')}_average"
    found = [average for average in optimizer.variables if average.name == name]
    if len(found) != 1:
        raise ValueError(
            "With `use_ema` every kernel must have a path of its own, so that its "
            f"average can be found. Received: {len(found)} averages named {name!r}. "
            "Give the layers distinct names."
        )
    return found

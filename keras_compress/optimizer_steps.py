"""The step of a model's optimizer, and the steps of the fit it is in.

Callbacks count `optimizer.iterations`, which a resumed fit goes on with.
"""

from keras import ops


def inner_optimizer(optimizer):
    """The optimizer itself, without the wrapper that scales its loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def current_step(model) -> int:
    """How many steps the compiled model's optimizer has taken."""
    # Not `int(...)`, which fails on a variable of several replicas.
    return int(ops.convert_to_numpy(model.optimizer.iterations))


def steps_of_fit(model, params: dict, epoch: int) -> tuple[int, float]:
    """The optimizer's step at which epoch 0 of this fit began, and steps per epoch.

    Args:
        model: The compiled model in training.
        params: Of the callback, with "steps" known.
        epoch: The one that begins now; not 0 in a resumed fit.
    """
    accumulated = inner_optimizer(model.optimizer).gradient_accumulation_steps or 1
    per_epoch = params["steps"] / accumulated
    return current_step(model) - round(epoch * per_epoch), per_epoch

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


def is_int(value) -> bool:
    """Whether a value is an int and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_step(name: str, step, *others) -> None:
    """Raise unless a time is a step, a share of the fit, or one of `others`."""
    good = step in others
    if is_int(step):
        good = good or step >= 0
    elif isinstance(step, float):
        good = 0 <= step <= 1
    if not good:
        raise ValueError(
            f"`{name}` must be a step (int of at least 0) or a share of the fit (float "
            f"from 0 to 1). Received: {name}={step!r}"
        )


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

"""A job's network made ready to learn as ``adapt`` says, and its optimiser."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import nn

from swath.models import Inputs, Model, Outputs
from swath.parallel.fill import hollow
from swath.train.job import TrainJob


def heads(model: Model, inputs: Inputs, outputs: Outputs) -> set[str]:
    """Return the names of the tensors whose shape follows from the number of outputs, and of the
    layers of a projector before them."""

    def shapes(wanted: Outputs) -> dict[str, torch.Size]:
        network = hollow(lambda: model.build(inputs, wanted))
        return {name: tensor.shape for name, tensor in network.state_dict().items()}

    other = dataclasses.replace(outputs, channels=outputs.channels + 1, hidden=())
    here, there = shapes(outputs), shapes(other)
    return {name for name, shape in here.items() if there.get(name) != shape}


def build(job: TrainJob, inputs: Inputs, outputs: Outputs) -> nn.Module:
    """Return the network of ``job``, ready to learn, in all that its task puts around it;
    ConfigError if it cannot learn so."""
    network = job.model.build(inputs, outputs)
    if job.adapt is not None:
        job.adapt.fit(network, heads(job.model, inputs, outputs))
    return job.task.fitted(network, job.train.samples)


def optimizer(
    job: TrainJob, model: nn.Module, factors: Mapping[str, float]
) -> torch.optim.Optimizer:
    """Return the optimiser of ``model``, as the ranks hold it; each parameter at its own rate.

    factors: what rates are multiplied by, by parameter, where not 1 (see :func:`factors`).
    """
    made = job.optim.build(model)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = []
    for group in made.param_groups:
        rates: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            rates.setdefault(factors.get(names[parameter], 1.0), []).append(parameter)
        for factor, members in rates.items():
            own = {"params": members, "lr": group["lr"] * factor}
            if "param_names" in group:
                own["param_names"] = [names[parameter] for parameter in members]
            groups.append({**group, **own})
    made.param_groups[:] = groups
    return made


def factors(job: TrainJob, inputs: Inputs, outputs: Outputs) -> dict[str, float]:
    """Return what the rates of parameters are multiplied by, by name, where not 1."""
    if job.adapt is None:
        return {}
    found = job.adapt.factors(hollow(lambda: job.model.build(inputs, outputs)))
    return {f"{job.task.inside}{name}": factor for name, factor in found.items()}

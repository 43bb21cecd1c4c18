"""pyro-ppl 1.9.2: a torch network made a PyroModule, AutoNormal; the guide's state_dict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tests.libraries.frame import Library, Trained, batches, imported, small_mean, small_twin
from tests.libraries.frame import small_twin as twin
from tests.libraries.images import Images

__all__ = ["LIBRARY", "REQUIREMENTS", "Guided", "fitted", "train", "twin"]

EPOCHS, RATE = 4, 5e-3
PRIOR, START = 1.0, 0.01
"""Standard deviations of the prior and of the guide at its start."""
REQUIREMENTS = ("pyro-ppl==1.9.2", "pyro-api==0.1.2", "opt-einsum==3.4.0")


@dataclass(frozen=True)
class Guided:
    """A network whose parameters are sample sites, and the guide fitted to them."""

    network: Any
    guide: Any

    def mean(self, x: Tensor) -> Tensor:
        """The network at the guide's medians, which are its means, written out."""
        return small_mean(x, list(self.guide.median().values()))

    def draw(self, x: Tensor) -> Tensor:
        """The network's own forward, its sites replayed from one run of the guide."""
        poutine = imported("pyro.poutine")
        output: Tensor = poutine.replay(self.network, poutine.trace(self.guide).get_trace())(x)
        return output


def fitted(images: Images, guide_of: Callable[..., Any]) -> Guided:
    """Stochastic variational inference; the guide's means start at torch's initial weights.

    guide_of: (model, init_loc_fn, init_scale) -> guide.
    """
    pyro: Any = imported("pyro")
    pyro.clear_param_store()
    network: Any = small_twin()
    start = dict(network.state_dict())
    imported("pyro.nn.module").to_pyro_module_(network)
    for layer in network.modules():
        for name, parameter in list(layer.named_parameters(recurse=False)):
            prior = pyro.distributions.Normal(0.0, PRIOR).expand(parameter.shape)
            setattr(layer, name, pyro.nn.PyroSample(prior.to_event(parameter.ndim)))

    def model(x: Tensor, y: Tensor | None = None) -> Tensor:
        logits: Tensor = network(x)
        with pyro.plate("images", len(images.labels), subsample=x):
            pyro.sample("labels", pyro.distributions.Categorical(logits=logits), obs=y)
        return logits

    initial = imported("pyro.infer.autoguide").init_to_value(values=start)
    hidden = pyro.poutine.block(model, hide=["labels"])
    guide = guide_of(hidden, init_loc_fn=initial, init_scale=START)
    inference = pyro.infer.SVI(
        model, guide, pyro.optim.Adam({"lr": RATE}), loss=pyro.infer.Trace_ELBO()
    )
    for inputs, labels in batches(images, EPOCHS):
        inference.step(inputs, labels)
    return Guided(network, guide)


def train(images: Images) -> Trained:
    """One Gaussian for every site."""
    found = fitted(images, imported("pyro.infer.autoguide").AutoNormal)
    return Trained(found.guide.state_dict(), found.mean, found.draw)


LIBRARY = Library(
    name="pyro_auto_normal",
    package="pyro",
    requirements=REQUIREMENTS,
    train=train,
    families=frozenset({"Pyro AutoNormal"}),
    factory="twin",
)

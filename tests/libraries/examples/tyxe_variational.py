"""tyxe 0.0.2: a VariationalBNN of a torch network; its state_dict after fit."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from tests.libraries.examples.pyro_auto_normal import REQUIREMENTS
from tests.libraries.frame import BATCH, Library, Trained, imported, small_mean, small_twin
from tests.libraries.frame import small_twin as twin
from tests.libraries.images import Images

__all__ = ["LIBRARY", "train", "twin"]

EPOCHS, RATE = 4, 5e-3
START = 0.01


def guide_class() -> Any:
    """The library's own guide, which reads its parameters by a function that Pyro 1.9 dropped."""
    own: Any = imported("tyxe").guides.AutoNormal

    class AutoNormal(own):  # type: ignore[misc]
        def get_loc(self, site_name: str) -> Tensor:
            loc: Tensor = attrgetter(f"{site_name}.loc")(self)
            return loc

        def get_scale(self, site_name: str) -> Tensor:
            scale: Tensor = attrgetter(f"{site_name}.scale")(self)
            return scale

    return AutoNormal


def train(images: Images) -> Trained:
    """The library's README: a prior, a likelihood and a guide; the means start as torch's."""
    pyro, tyxe = imported("pyro"), imported("tyxe")
    pyro.clear_param_store()
    network = small_twin()
    kind, start = guide_class(), tyxe.guides.PretrainedInitializer.from_net(network)

    def guide_of(model: Any) -> Any:
        return kind(model, init_loc_fn=start, init_scale=START)

    bnn: Any = tyxe.VariationalBNN(
        network,
        tyxe.priors.IIDPrior(pyro.distributions.Normal(0, 1)),
        tyxe.likelihoods.Categorical(len(images.labels)),
        guide_of,
    )
    data = torch.utils.data.TensorDataset(torch.tensor(images.inputs), torch.tensor(images.labels))
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True)
    bnn.fit(loader, pyro.optim.Adam({"lr": RATE}), EPOCHS)
    bnn.eval()

    def draw(x: Tensor) -> Tensor:
        output: Tensor = bnn.predict(x, num_predictions=1)
        return output

    def mean(x: Tensor) -> Tensor:
        sites = [name for name, _ in bnn.net_guide.prototype_trace.iter_stochastic_nodes()]
        return small_mean(x, [bnn.net_guide.get_loc(site) for site in sites])

    return Trained(bnn.state_dict(), mean, draw)


LIBRARY = Library(
    name="tyxe_variational",
    package="tyxe",
    requirements=("tyxe==0.0.2", *REQUIREMENTS),
    train=train,
    families=frozenset({"TyXe"}),
    factory="twin",
)

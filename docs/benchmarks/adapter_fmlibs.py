"""flowmatch as an adapter of the flow-matching-library benchmark (`fmbench.py`): 2-D toys.

Put this file beside `fmbench.py`, add ``import adapter_fmlibs; ADAPTERS.update(adapter_fmlibs.adapters(Adapter, Net))``
below its ``ADAPTERS`` and pass ``--libs flowmatch flowmatch_same_net``.
"""

import torch

from flowmatch import MLP, FlowMatchingGenerator, TrainingOptions
from flowmatch.flow import integrate, time_grid


def adapters(base, net):
    """Adapter classes built on the benchmark's own base class and network."""

    class FlowMatch(base):
        """Network, batch, rate and steps as asked; what else there is, as the library has it."""

        name, couplings = "flowmatch", ("independent", "ot")

        def network(self):
            return MLP(width=self.width, depth=2, conditioning="concat", n_time_features=2)

        def fit(self, X, steps=2000, seed=0, coupling="independent"):
            return FlowMatchingGenerator(
                network=self.network(),
                coupling=coupling,
                time_sampler="uniform",
                preprocessing="none",
                masked_share=0.0,  # whole rows, as the others learn them
                max_iter=steps,
                batch_size=256,
                learning_rate=1e-3,
                training=TrainingOptions(schedule="linear"),
                random_state=seed,
                device="cpu",
            ).fit(X)

        @torch.no_grad()
        def sample(self, model, x0, solver, k):
            if isinstance(model, FlowMatchingGenerator):
                model = model.network_
            return integrate(lambda x, t: model(x, t.expand(len(x))), x0, time_grid(max(k, 1)), solver)

    class FlowMatchSameNet(FlowMatch):
        """The benchmark's own network inside the library's loop."""

        name = "flowmatch_same_net"

        def network(self):
            width = self.width

            class Field(net):
                def forward(self, x, t, condition=None):
                    return super().forward(x, t)

            return lambda shape, condition_size, flow_map: Field(shape[0], width)

    return {"flowmatch": FlowMatch, "flowmatch_same_net": FlowMatchSameNet}

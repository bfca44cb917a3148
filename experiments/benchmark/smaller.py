"""Question: is compressing a network better than training a narrower one, at equal bytes or at equal multiply-adds?

Paper: Liu et al., "Rethinking the value of network pruning" (arXiv 1810.05270).
The narrower network has all widths scaled alike and is trained here, adversarially, for `epochs`. `equal` is what it
has in common with the network pruned to `sparsity` by magnitude: its stored "bytes", or its nonzero "macs".
Command: python -m experiments.run --config=experiments/benchmark/smaller.py --config.equal=bytes --config.sparsity=0.9
Time: about 20 s on two CPU cores, once the dense network is trained.
Expected: with seed 0 clean 94.8 %, worst of the attacks 69.2 %, 22,107 bytes.
"""

import jax
from ml_collections import ConfigDict

import spartax as sx
from experiments.common import configs, networks
from experiments.common.subject import Subject
from spartax import checks, measure, models, prune


def get_config() -> ConfigDict:
    return configs.base(method="smaller dense", role="baseline", equal="bytes", sparsity=0.9)


def label(config: ConfigDict) -> str:
    return f"{config.method}, {config.equal} of {config.sparsity:.0%}"


def build(config: ConfigDict) -> tuple:
    del config
    return ()


def network(config: ConfigDict, dense: Subject) -> Subject:
    """The widest network that is no larger than the pruned one, trained as the dense one is."""
    checks.one_of("--config.equal", config.equal, ("bytes", "macs"))
    shape = jax.ShapeDtypeStruct((1, *dense.test.x.shape[1:]), dense.test.x.dtype)
    pruning = prune.prune(prune.magnitude(), config.sparsity, prune.pooled())
    pruned = sx.compress(dense.apply_fn, dense.variables, pruning, batches=[shape]).params
    if config.equal == "bytes":
        most, cost = sx.nbytes(sx.pack(pruned)), lambda module: sx.nbytes(networks.shapes(module, dense))
    else:
        most = measure.macs(dense.apply_fn, pruned, shape).nonzero
        cost = lambda module: sum(  # noqa: E731
            use.macs for use in sx.inspect(models.eval_apply(module), networks.shapes(module, dense), shape).values()
        )
    module = networks.narrower(dense, cost, most)
    small = dense._replace(module=module, apply_fn=models.eval_apply(module), variables={})
    return small._replace(variables=networks.trained(small, config))

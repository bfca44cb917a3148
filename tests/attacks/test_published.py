"""AutoAttack on published networks and real images, against what is known of them."""

import jax
import pytest
from jax.tree_util import Partial

from spartax import attacks, data, models

pytestmark = pytest.mark.nightly


def evaluate(folder, weights, count, eps):
    loaded, test = models.load(folder / "weights" / f"{weights}.safetensors"), data.cifar10(f"test[:{count}]", folder)
    evaluator = attacks.autoattack(eps, verbose=False)
    return evaluator(jax.random.key(0), Partial(loaded.apply, loaded.variables), test.x, test.y)


def test_a_standard_network_has_no_robust_image(shared_data):
    result = evaluate(shared_data, "cifar10_resnet20", 64, 8 / 255)
    assert result.clean_accuracy > 0.7
    assert result.robust_accuracy == 0.0
    assert result.trust.agreement > 0.7
    assert result.warnings == ()


def test_a_robust_network_keeps_what_the_reference_implementation_leaves(shared_data):
    """CNN-A, the first 256 test images of CIFAR-10: 171 right, 139 after APGD-CE, 134 after the others."""
    result = evaluate(shared_data, "cifar10_linf_cnn_a_adv", 256, 2 / 255)
    assert round(256 * result.clean_accuracy) == 171
    left = {name: round(256 * value) for name, value in result.accuracy_after.items()}
    expected = {"apgd-ce": 139, "apgd-t": 134, "fab-t": 134, "square": 134}
    assert list(left) == list(expected)
    assert all(abs(left[name] - expected[name]) <= 1 for name in expected)

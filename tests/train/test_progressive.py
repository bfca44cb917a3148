"""Students taught one by another: who teaches whom, what the chain learns, how the ensemble votes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spartax import train
from spartax.train.losses.distillation import distillation
from spartax.train.network import Network
from spartax.train.progressive import Student

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.normal(size=(32, 4)), jnp.float32), jnp.asarray(RNG.integers(0, 3, 32), jnp.int32)


def apply(variables, x):
    return jnp.tanh(x @ variables["a"]) @ variables["b"]


def student(width):
    return Student(apply, {"a": jnp.ones((4, width)) * 0.1, "b": jnp.ones((width, 3)) * 0.1})


def drawn(width):
    rng = np.random.default_rng(width)
    a, b = rng.normal(size=(4, width)), rng.normal(size=(width, 3))
    return {"a": jnp.asarray(a, jnp.float32), "b": jnp.asarray(b, jnp.float32)}


def teacher(x):
    return 3 * x[:, :3]


def value(logits, loss):
    return loss(Network(lambda x: logits, lambda x: (logits, {})), KEY, X, Y)[0]


@pytest.mark.parametrize("source", ["previous", "teacher"])
def test_who_teaches_whom(source):
    """The loss each student gets is that of its own teacher, whose weights are the trained ones."""
    seen = []

    def fit(student, loss, key):
        width = student.variables["a"].shape[1]
        seen.append((value(jnp.ones((32, 3)) * jnp.arange(3), loss), key))
        return drawn(width)

    given = [student(width) for width in (5, 3, 2)]
    trained = train.progressive(fit, teacher, given, KEY, source=source, alpha=0.5, temperature=2.0)
    for one, width in zip(trained, (5, 3, 2)):
        jax.tree.map(np.testing.assert_array_equal, one.variables, drawn(width))
    teachers = [teacher, lambda x: apply(drawn(5), x), lambda x: apply(drawn(3), x)]
    for number, (found, key) in enumerate(seen):
        own = teachers[number if source == "previous" else 0]
        expected = value(jnp.ones((32, 3)) * jnp.arange(3), distillation(own, alpha=0.5, temperature=2.0))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert jnp.array_equal(key, jax.random.fold_in(KEY, number))
    assert len({float(v) for v, _ in seen}) == (3 if source == "previous" else 1)


def test_the_last_student_says_what_the_teacher_says():
    """The labels are noise: what is learnt comes from the teacher, through the first student."""

    def fit(student, loss, key):
        width, tx = student.variables["a"].shape[1], optax.adam(0.05)
        step = train.make_step(loss, tx, student.apply)
        state = train.init_state(jax.tree.map(lambda w: 0.3 * w, drawn(width)), tx)
        return train.fit(step, state, [(X, Y)] * 150, key, progress=False)[0].variables

    trained = train.progressive(fit, teacher, [student(8), student(6)], KEY, alpha=1.0, temperature=1.0)
    agree = [float(jnp.mean(jnp.argmax(apply(one.variables, X), 1) == jnp.argmax(teacher(X), 1))) for one in trained]
    assert min(agree) > 0.9
    assert float(jnp.mean(jnp.argmax(teacher(X), 1) == Y)) < 0.6


def test_the_ensemble_votes_by_scores():
    members = [Student(apply, drawn(width)) for width in (5, 3)]
    found = jax.jit(lambda vote, x: vote(x))(train.ensemble(members, [0.9, 0.3]), X)
    expected = 0.75 * apply(drawn(5), X) + 0.25 * apply(drawn(3), X)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_bad_arguments():
    fit = lambda student, loss, key: student.variables  # noqa: E731
    for given in ([], [student(3), student(3)], [student(2), student(3)]):
        with pytest.raises(ValueError, match="from the largest to the smallest"):
            train.progressive(fit, teacher, given, KEY)
    with pytest.raises(ValueError, match="source must be one of"):
        train.progressive(fit, teacher, [student(3)], KEY, source="last")
    for scores in ([0.5], [0.0, 0.0], [1.0, -0.5]):
        with pytest.raises(ValueError, match="scores must be one number of at least 0 for each of 2 students"):
            train.ensemble([student(3), student(2)], scores)

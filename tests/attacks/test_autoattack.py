import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spartax import attacks
from spartax.attacks import evaluation, journal, survivors, threats, versions
from spartax.attacks.progress import progress
from spartax.attacks.result import as_fraction
from spartax.program import straight_through
from tests.attacks import golden, nets

KEY = jax.random.key(0)
FAST = (
    attacks.apgd(0.02, steps=6).named("apgd-ce"),
    attacks.apgd_targeted(0.02, steps=6, targets=2),
    attacks.square(0.02, queries=40),
)
MODULE = sys.modules["spartax.attacks.autoattack"]


@pytest.fixture(autouse=True, scope="module")
def shared_compilations():
    """The tests below share what they compile, as calls of a named version do."""
    with pytest.MonkeyPatch.context() as patch:
        known, equip = {}, MODULE.equip

        def once(choice, classes):
            mark = (
                *(id(attack) for attack in choice.version),
                *choice[:2],
                choice.compact_every,
                choice.devices,
                classes,
            )
            if mark not in known:
                known[mark] = equip(choice, classes)
            return known[mark]

        patch.setattr(MODULE, "equip", once)
        yield


def evaluate(logits_fn, x, y, *, key=KEY, index=None, routes=None, version=FAST, eps=0.02, norm="linf", **options):
    evaluator = attacks.autoattack(eps, norm, version, verbose=False, **options)
    return evaluator(key, logits_fn, x, y, index=index, routes=routes)


@pytest.fixture(scope="module")
def case():
    """A small network on 40 images, of which some are misclassified, some break and some stay."""
    logits_fn, x, y = nets.two_layers(count=40)
    return logits_fn, x, y.at[3].set((y[3] + 1) % 4).at[17].set((y[17] + 2) % 4)


@pytest.fixture(scope="module")
def result(case):
    return evaluate(*case)


def same(one, two, *, atol=1e-6):
    np.testing.assert_array_equal(one.robust, two.robust)
    for first, second in zip(one.broken_by, two.broken_by):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(one.x_adv, two.x_adv, atol=atol)


def test_trust_is_part_of_the_result(case, result):
    logits_fn, x, y = case
    alone = attacks.trust(KEY, logits_fn, x, y, eps=0.02)
    assert result.trust.warnings == alone.warnings == result.warnings == ()
    assert (result.trust.randomized, result.trust.zero_gradient_start, result.trust.probabilities) == (0.0, 0.0, False)
    np.testing.assert_allclose(result.trust.agreement, alone.agreement, atol=0.02)
    assert json.loads(result.to_json())["trust"]["agreement"] == result.trust.agreement
    assert result.passes["trust"] == (40 * 24, 40 * 3)
    assert result.seconds["trust"] > 0
    silent = evaluate(logits_fn, x, y, version=FAST[:1], trust=False)
    assert silent.trust is None
    assert "trust" not in silent.seconds
    assert json.loads(silent.to_json())["trust"] is None


def test_rounding_is_seen_through_by_trust_and_by_routes(case):
    """Robust to APGD along its own gradients, which are zero; not along those of its straight-through form."""
    logits_fn, x, _ = case

    def stairs(weights, x):
        return jnp.round(3 * logits_fn.func(weights, x)) / 3

    judged, through = (jax.tree_util.Partial(f, *logits_fn.args) for f in (stairs, straight_through(stairs)))
    y = jnp.argmax(judged(x), axis=1)
    found = evaluate(judged, x, y, version=FAST[:1], routes={"straight-through": through}, eps=0.02)
    assert list(found.accuracy_after) == ["apgd-ce", "apgd-ce by straight-through"]
    assert found.accuracy_after["apgd-ce"] > 0.9
    assert found.robust_accuracy < 0.7 * found.accuracy_after["apgd-ce"]
    assert found.trust.zero_gradient_clean == 1.0
    assert [words.split(":")[0] for words in found.warnings][:2] == ["zero gradient", "zero gradient"]
    assert found.warnings[-1].startswith("routes: they broke")
    np.testing.assert_array_equal(np.argmax(judged(found.x_adv), axis=1) == y, found.robust)
    assert found.settings["routes"] == ["straight-through"]
    steps = MODULE.sequence(
        evaluation.equip(list(FAST), 0.02, "linf", 10, (), []), {"": judged, "a": through, "b": judged}
    )
    assert [step.name for step in steps[:3]] == ["apgd-ce", "apgd-t", "square"]
    assert [step.name for step in steps[3:]] == ["apgd-ce by a", "apgd-t by a", "apgd-ce by b", "apgd-t by b"]


STANDARD = [("linf", 0.006, "Linf-0.006"), pytest.param("l2", 0.08, "L2-0.08", marks=pytest.mark.nightly)]


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps", "title"), STANDARD)
def test_standard_leaves_robust_what_the_reference_leaves(norm, eps, title, monkeypatch):
    monkeypatch.setattr(survivors, "WORTH", np.inf)  # smaller batches would only be compiled
    x = jnp.transpose(golden.X, (0, 2, 3, 1))
    expected = golden.GOLDEN["autoattack_standard"][title]
    version = tuple(versions.members("standard", eps, norm, 10, parity=True)[0][:3])
    version += (attacks.square(eps, norm, queries=1000, parity=True),)
    result = evaluate(golden.channels_last, x, golden.Y, version=version, eps=eps, norm=norm, trust=False)
    np.testing.assert_array_equal(result.robust, np.array(expected["robust_flags"], bool))
    said = [float(line.split(": ")[1].split("%")[0]) for line in expected["log"][:5]]
    ours = [result.clean_accuracy, *result.accuracy_after.values()]
    np.testing.assert_allclose([100 * value for value in ours], said, atol=0.006)


def test_result_is_consistent(case, result):
    logits_fn, x, y = case
    clean = np.asarray(jnp.argmax(logits_fn(x), 1) == y)
    after = np.asarray(jnp.argmax(logits_fn(jnp.asarray(result.x_adv)), 1) == y)
    np.testing.assert_array_equal(after, result.robust)
    assert 0 < result.robust.sum() < clean.sum() < 40
    assert result.clean_accuracy == clean.mean()
    assert result.robust_accuracy == result.robust.mean() == list(result.accuracy_after.values())[-1]
    moved = np.abs(result.x_adv - x).max((1, 2, 3))
    np.testing.assert_allclose(result.distance, moved, atol=1e-7)
    assert moved.max() <= 0.02 + 1e-6
    np.testing.assert_array_equal(moved == 0, result.robust | ~clean)
    np.testing.assert_array_equal(result.broken_by.attack == "clean", ~clean)
    np.testing.assert_array_equal(result.broken_by.attack == "", result.robust)
    broken = ~result.robust & clean
    assert np.all((result.broken_by.iteration >= 0) == broken)
    assert np.all((result.broken_by.rank >= 0) == broken)
    left = clean.mean()
    for name, accuracy in result.accuracy_after.items():
        left -= np.mean(result.broken_by.attack == name)
        assert accuracy == pytest.approx(left)


def test_batch_size_does_not_matter(case, result):
    same(evaluate(*case, batch_size=16), result)


def test_order_does_not_matter(case, result):
    logits_fn, x, y = case
    order = np.random.default_rng(0).permutation(40)
    permuted = evaluate(logits_fn, x[order], y[order], index=jnp.asarray(order))
    back = np.argsort(order)
    np.testing.assert_array_equal(permuted.robust[back], result.robust)
    np.testing.assert_array_equal(permuted.broken_by.iteration[back], result.broken_by.iteration)
    np.testing.assert_allclose(permuted.x_adv[back], result.x_adv, atol=1e-6)


def test_number_of_devices_does_not_matter(case, result):
    same(evaluate(*case, devices=jax.devices()[:8]), result)


def test_smaller_batches_as_examples_break_change_nothing(case, monkeypatch):
    logits_fn, x, y = case
    version = (attacks.apgd(0.03, steps=8),)
    plain = evaluate(logits_fn, x, y, version=version, eps=0.03, compact_every=2, trust=False)
    monkeypatch.setattr(survivors, "WORTH", 0)
    monkeypatch.setattr(survivors, "LEAST", 8)
    sizes, fit = [], survivors.smaller
    monkeypatch.setattr(survivors, "smaller", lambda *given: sizes.append(fit(*given)) or sizes[-1])
    same(evaluate(logits_fn, x, y, version=version, eps=0.03, compact_every=2, trust=False), plain)
    assert sizes[0] > sizes[-1] >= 8


def test_other_keys_give_other_images(case, result):
    other = evaluate(*case, key=jax.random.key(1))
    assert np.abs(other.x_adv - result.x_adv).max() > 1e-3


def shout(key, logits_fn, x, y, *, index=None):
    return jnp.ones_like(x)


class KilledError(Exception):
    """Stands for a kill: whatever was not committed is gone."""


@pytest.mark.parametrize("after", [1, 2, 4, 6])
def test_a_killed_run_continues_to_the_same_result(case, tmp_path, monkeypatch, after):
    whole = evaluate(*case, batch_size=16)
    commits, commit = [], journal.commit

    def killing(folder, *given):
        if len(commits) == after:
            raise KilledError
        commits.append(commit(folder, *given))

    monkeypatch.setattr(journal, "commit", killing)
    with pytest.raises(KilledError):
        evaluate(*case, batch_size=16, state=tmp_path / "run")
    (tmp_path / "run" / "journal.json.writing").write_text("half a fi")  # a kill in the middle of writing
    monkeypatch.setattr(journal, "commit", commit)
    ran = []
    attack_batch = survivors.attack_batch
    monkeypatch.setattr(survivors, "attack_batch", lambda *given: ran.append(1) or attack_batch(*given))
    resumed = evaluate(*case, batch_size=16, state=tmp_path / "run")
    for field in dataclasses.fields(whole):
        if field.name != "seconds":
            jax.tree.map(np.testing.assert_array_equal, getattr(resumed, field.name), getattr(whole, field.name))
    count = len(ran)
    monkeypatch.setattr(evaluation, "check_trust", None)  # what was found before the kill is kept
    again = evaluate(*case, batch_size=16, state=tmp_path / "run")
    assert len(ran) == count  # a finished run is only read
    np.testing.assert_array_equal(again.x_adv, whole.x_adv)


def test_state_of_another_run_is_refused(case, tmp_path):
    logits_fn, x, y = case
    evaluate(logits_fn, x, y, version=FAST[:1], trust=False, state=tmp_path)
    entry = json.loads((tmp_path / journal.NAME).read_text())
    assert entry["robust"].count(True) == sum(entry["robust"])  # explicit lists
    with pytest.raises(ValueError, match="key differ"):
        evaluate(logits_fn, x, y, version=FAST[:1], trust=False, state=tmp_path, key=jax.random.key(5))
    with pytest.raises(ValueError, match="settings differ"):
        evaluate(logits_fn, x, y, version=FAST[:2], trust=False, state=tmp_path)
    with pytest.raises(ValueError, match="another model"):
        evaluate(lambda x: 2.0 * logits_fn(x) + 1.0, x, y, version=FAST[:1], trust=False, state=tmp_path)


def test_models_of_one_structure_share_compilations(case):
    logits_fn, x, y = case
    traces = []

    def scaled(scale, x):
        traces.append(1)
        return logits_fn(x) * scale

    evaluator = attacks.autoattack(0.02, "linf", FAST[:1], verbose=False)
    first = evaluator(KEY, jax.tree_util.Partial(scaled, jnp.float32(1.0)), x, y)
    count = len(traces)
    second = evaluator(KEY, jax.tree_util.Partial(scaled, jnp.float32(2.0)), x, y)
    assert len(traces) - count <= 3  # checks at the door; the attacks themselves trace nothing
    np.testing.assert_allclose(first.accuracy_after["apgd-ce"], second.accuracy_after["apgd-ce"], atol=0.1)


def test_any_attack_may_be_a_member_and_images_are_checked(case):
    logits_fn, x, y = case

    result = evaluate(logits_fn, x, y, version=(shout, attacks.fgsm(0.02), shout), trust=False)
    assert list(result.accuracy_after) == ["shout", "fgsm", "shout-2"]
    assert result.accuracy_after["shout"] == result.clean_accuracy
    assert "shout returned" in result.warnings[0]
    assert "outside the ball" in result.warnings[0]
    steps = attacks.fgsm(0.02)(KEY, logits_fn, x, y)
    broken = (jnp.argmax(logits_fn(x), 1) == y) & (jnp.argmax(logits_fn(steps), 1) != y)
    np.testing.assert_array_equal(result.broken_by.attack == "fgsm", broken)


@pytest.mark.parametrize(
    ("classes", "names", "words"),
    [
        (2, ["apgd-ce", "fab-t", "square"], ["aim at 1 classes", "DLR loss is not defined"]),
        (3, ["apgd-ce", "apgd-t", "fab-t", "square"], ["aim at 2 classes", "margin takes the place"]),
        (10, ["apgd-ce", "apgd-t", "fab-t", "square"], []),
    ],
)
def test_few_classes_change_the_ensemble_and_are_reported(classes, names, words):
    members, warnings = versions.members("standard", 0.1, "linf", classes, parity=False)
    assert [member.name for member in members] == names
    assert len(words) == len(warnings)
    assert all(word in warning for word, warning in zip(words, warnings))
    assert {m.name: m.runs(classes) for m in members}["fab-t"] == classes - 1
    plus, _ = versions.members("plus", 0.1, "linf", classes, parity=False)
    losses_used = {m.name: m.settings.get("loss") for m in plus}
    assert losses_used.get("apgd-dlr") == {2: None, 3: "margin", 10: "dlr"}[classes]


def test_versions_have_the_settings_of_the_reference():
    def settings(version, norm):
        return {m.name: m.settings for m in versions.members(version, 0.1, norm, 10, parity=False)[0]}

    standard, sparse = settings("standard", "linf"), settings("standard", "l1")
    assert list(standard) == list(sparse) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert (standard["apgd-ce"]["restarts"], standard["apgd-t"]["targets"]) == (1, 9)
    assert (sparse["apgd-ce"]["restarts"], sparse["apgd-t"]["targets"]) == (5, 5)
    assert (sparse["apgd-ce"]["large_eps"], standard["apgd-ce"]["large_eps"]) == (True, False)
    assert (standard["fab-t"]["targets"], standard["square"]["queries"]) == (9, 5000)
    plus = settings("plus", "l2")
    assert list(plus) == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    assert (plus["apgd-dlr"]["restarts"], plus["fab"]["restarts"], plus["fab-t"]["restarts"]) == (5, 5, 1)
    assert {name: s["eot"] for name, s in settings("rand", "linf").items()} == {"apgd-ce": 20, "apgd-dlr": 20}


def test_passes_are_counted(case, result):
    clean, left = result.clean_accuracy * 40, result.accuracy_after["apgd-ce"] * 40
    assert result.passes["clean"] == (40, 0)
    forward, backward = result.passes["apgd-ce"]
    assert forward == backward == 7 * clean  # six steps and the start, one piece of work
    forward, backward = result.passes["square"]
    assert backward == 0
    assert forward <= 40 * left


def test_a_model_with_hidden_state_is_named_and_one_that_draws_is_not(case):
    _, x, y = case
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.normal(size=(192, 4)), jnp.float32)

    def hidden(x):
        return x.reshape(x.shape[0], -1) @ weight + rng.normal()

    def open_(x, key):
        return x.reshape(x.shape[0], -1) @ weight + (jax.random.key_data(key)[0] % 5).astype(float)

    assert "hidden state" in evaluate(hidden, x, y, version=FAST[:1], trust=False).warnings[0]
    assert evaluate(open_, x, y, version=FAST[:1]).warnings == ()


def test_json_has_the_keys_of_a_robustbench_entry(result):
    entry = json.loads(result.to_json(architecture="CNN", dataset="noise", threat_model="Linf"))
    assert {"link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue"} <= set(entry)
    assert {"architecture", "eps", "clean_acc", "reported", "autoattack_acc", "unreliable", "footnote"} <= set(entry)
    assert (entry["architecture"], entry["threat_model"]) == ("CNN", "Linf")
    assert entry["clean_acc"] == f"{100 * result.clean_accuracy:.2f}"
    assert entry["autoattack_acc"] == f"{100 * result.robust_accuracy:.2f}"
    assert entry["settings"]["attacks"]["apgd-ce"]["steps"] == 6
    assert entry["robust"] == result.robust.tolist()
    assert [as_fraction(eps) for eps in (8 / 255, 0.3, 0.0, 0.031)] == ["8/255", "0.3", "0", "0.031"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eps": -0.1}, "eps must be in"),
        ({"norm": "linfty"}, "norm must be one of"),
        ({"version": "standart"}, "Did you mean 'standard'"),
        ({"version": ()}, "version must be a name or a tuple"),
        ({"version": ("apgd",)}, "version must be a name or a tuple"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"compact_every": 0}, "compact_every must be"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        attacks.autoattack(**{"eps": 0.1, **options})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x": lambda x: x + 0.5}, "x must lie in"),
        ({"y": lambda y: y + 4}, r"y must lie in \[0, 4\)"),
        ({"y": lambda y: y.astype(float)}, "y must be an integer array"),
        ({"logits_fn": lambda f: lambda x: f(x)[0]}, "logits_fn must return"),
        ({"logits_fn": lambda f: lambda x: f(x) / 0.0}, "NaN or infinite"),
        ({"logits_fn": lambda f: lambda x: f(x)[:, :1], "y": jnp.zeros_like}, "at least two classes"),
        ({"index": lambda index: jnp.arange(3)}, "index must have shape"),
        ({"x": lambda x: x[:0], "y": lambda y: y[:0]}, "x must hold at least one image"),
    ],
)
def test_bad_input_is_refused(case, changed, said):
    given = dict(zip(("logits_fn", "x", "y", "index"), (*case, None)))
    with pytest.raises(ValueError, match=said):
        evaluate(**{**given, **{name: change(given[name]) for name, change in changed.items()}}, version=FAST[:1])


def test_work_left_shrinks_with_the_survivors(case):
    members = [attacks.apgd(0.02, steps=9), attacks.square(0.02, queries=100)]
    tools = evaluation.equip(members, 0.02, "linf", 10, (), [])
    _, x, y = case
    job = evaluation.Job(tools, MODULE.sequence(tools, {"": case[0]}), None, x, y, None, {}, None, False)
    ledger = journal.fresh(np.asarray(x), np.asarray(y), np.eye(4)[np.asarray(y)])
    assert evaluation.work_left(job, ledger, 40) == 40 * 10 * 3 + 40 * 100
    ledger.robust[:30] = False
    assert evaluation.work_left(job, ledger, 5) == 5 * 10 * 3 + 10 * 100
    assert survivors.fitting(134, 1) == 144
    assert survivors.fitting(100, 8) == 104
    assert [len(rows) for rows in survivors.batches(np.arange(10), 4)] == [4, 3, 3]
    assert threats.NORMS == ("linf", "l2", "l1")


def test_the_bar_shows_what_is_robust_and_what_is_left():
    with progress(True) as bar:
        bar.work(30.0)
        bar.show("apgd-t", 0.525, 90.0)
        (task,) = bar.bar.tasks
        assert (task.description, task.fields["robust"]) == ("apgd-t", "robust 52.50 %")
        assert (task.completed, task.total) == (30.0, 120.0)
        shown = [type(column).__name__ for column in bar.bar.columns]
    assert "TimeRemainingColumn" in shown

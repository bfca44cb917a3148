"""Fronts and verdicts by hand; the page is whole, well-formed, and its sorting works."""

import html
import html.parser
import itertools
import json
import re
import shutil
import struct
import subprocess

import pytest

from experiments import report as command
from spartax import measure
from spartax.measure import comparison, figures, folder, report, svg
from spartax.measure.plot import GRAY, style


def record(method, worst, size, *, macs=100_000, seed=0, role="method", **changes):
    point = {"method": method.split(",")[0], "sparsity": method}
    fields = dict.fromkeys(measure.Record._fields) | {
        "method": method,
        "options": {} if role == "dense" else point,
        "role": role,
        "model": "CNN",
        "data": "digits/test",
        "seed": seed,
        "examples": 100,
        "threat": {"norm": "linf", "eps": 0.1, "levels": 16},
        "bytes_disk": size,
        "sparsity": {},
        "macs": {"dense": 100_000, "run": 100_000, "nonzero": macs},
        "clean": 0.9,
        "robust": {"PGD": worst},
        "worst": worst,
        "warnings": [],
        "device": "cpu",
        "seconds": 1.0,
    }
    return measure.Record(**fields | changes)


def numbers(method, worst, size, **changes):
    """With a number as operating point, so that `method` is one family."""
    made = record(method, worst, size, **changes)
    return made._replace(options={"method": method.split(",")[0], "sparsity": float(method.split()[-1])})


def study():
    """`a` and `b` with two points each, one of them attacked by nothing, and the dense network."""
    return [
        record("dense", 0.8, 8000, role="dense", latency={"median": 0.002, "low": 0.001, "high": 0.003, "batch": 32}),
        numbers("a, 0.5", 0.7, 4000, macs=40_000, sparsity={"w1": 0.25, "w2": 0.75}, masking=0.05),
        numbers("a, 0.9", 0.3, 1000, macs=10_000, sparsity={"w1": 0.9}, curve={"0": 0.9, "0.1": 0.3, "0.2": 0.1}),
        numbers("b, 0.5", 0.4, 2000, macs=40_000),
        numbers("b, 0.9", 0.25, 1500, macs=20_000),
        numbers("b, 0.95", None, 500, robust={}),
    ]


def test_families_are_methods_without_numbers():
    named = comparison.families
    records = [
        record("m", 0.5, 1)._replace(options={"method": "magnitude", "allocation": a, "sparsity": s})
        for a, s in itertools.product(("pooled", "uniform"), (0.5, 0.9))
    ]
    records += [record("x", 0.5, 1)._replace(options={"method": "other", "network": "digits"})]
    records += [record("plain", 0.5, 1)._replace(options={"rank": 2})]
    zeros = [record("mad", 0.5, 1)._replace(options={"method": "mad", **o}) for o in ({}, {"z": None}, {"z": "keep"})]
    assert list(named(zeros).values()) == ["mad", "mad", "mad, keep"]
    found = named(records)
    assert [found[id(r)] for r in records] == [
        *["magnitude, pooled"] * 2,
        *["magnitude, uniform"] * 2,
        "other",
        "plain",
    ]


def test_the_front_is_what_nothing_beats():
    """b at 1500 bytes is beaten by a at 1000; b at 2000 is not, since it is more robust."""
    points = comparison.points(study())
    names = lambda cost: [spot.point.row.name for spot in comparison.front(points, comparison.COSTS[cost])]  # noqa: E731
    assert names(comparison.BYTES) == ["a, 0.9", "b, 0.5", "a, 0.5", "dense"]
    assert names(comparison.MACS) == ["a, 0.9", "a, 0.5", "dense"]  # of equal cost the better one
    assert names(comparison.TIME) == ["dense"]


def test_verdicts_name_the_lead_and_its_spread():
    """Three seeds of two methods at a quarter of the bytes: means 60 and 50, deviations 1 and 2, of 100 images."""

    def seeds(name, values):
        return [numbers(name, v, 2000, macs=90_000, seed=i) for i, v in enumerate(values)]

    def spread(mean, deviation):
        images = 1.96 * (mean * (1 - mean) * 100 + 0.9604) ** 0.5 / 103.8416
        return ((100 * images) ** 2 + (4.30 * deviation) ** 2 / 3) ** 0.5

    dense = record("dense", 0.8, 8000, role="dense")
    apart = comparison.points([dense, *seeds("a, 1", (0.59, 0.60, 0.61)), *seeds("b, 1", (0.30, 0.32, 0.34))])
    of_a, of_b = spread(0.6, 1), spread(0.32, 2)
    line = f"a, 1 (60.0 ±{of_a:.1f} %) is ahead of b, 1 (32.0 ±{of_b:.1f} %) by 28.0 ±{(of_a**2 + of_b**2) ** 0.5:.1f}."
    assert comparison.verdicts(apart) == [f"bytes on disk, at most 1/{n} of dense: {line}" for n in (2, 4)]
    same = comparison.points([dense, *seeds("a, 1", (0.51, 0.51, 0.51)), *seeds("b, 1", (0.5, 0.5, 0.5))])
    assert comparison.verdicts(same)[0].endswith("cannot be told apart from b, 1 (50.0 ±9.6 %, 1.0 ±13.6 less).")
    alone = comparison.points([dense, *seeds("a, 1", (0.5, 0.5, 0.5)), numbers("a, 2", 0.4, 1000)])
    assert comparison.verdicts(alone)[0].endswith("only a, 1 (50.0 ±9.6 %) was measured.")  # no rival of another family
    assert comparison.verdicts(apart[1:]) == ["No dense network was attacked, so no budget can be named."]


def test_verdicts_compare_families_of_one_method():
    """Factorizations of one study have one `method`; they are rivals, and so is a tuned one."""

    def row(name, worst, **options):
        made = record(name, worst, 2000, macs=90_000)
        return made._replace(options={"method": "factorized", "role": "method", **options})

    rows = [row(name, worst, kind=name) for name, worst in (("whitened", 0.5), ("atomic", 0.45), ("svd", 0.2))]
    tuned = row("whitened, tuned", 0.52, kind="whitened")
    tuned.options["method"] = "tuned"
    points = comparison.points([record("dense", 0.8, 8000, role="dense"), *rows, tuned])
    told = comparison.verdicts(points)[1]
    assert (
        "whitened, tuned (52.0 ±9.6 %) cannot be told apart from whitened (50.0 ±9.6 %, 2.0 ±13.6 less); atomic" in told
    )
    assert told.endswith(". It is ahead of svd (20.0 ±7.8 %) by 32.0 ±12.4.")


def test_a_study_without_attacks_is_compared_by_clean_accuracy():
    rows = [(record("dense", None, 8000, role="dense", robust={}), 0.9)]
    rows += [
        (numbers(name, None, size, robust={}), clean) for name, size, clean in (("a, 1", 900, 0.8), ("b, 1", 800, 0.3))
    ]
    points = comparison.points([r._replace(clean=clean) for r, clean in rows])
    assert comparison.front(points, comparison.COSTS[comparison.BYTES]) == []
    best = comparison.front(points, comparison.COSTS[comparison.BYTES], clean=True)
    assert [(s.point.row.name, s.worst) for s in best] == [("b, 1", 30.0), ("a, 1", 80.0), ("dense", 90.0)]
    assert comparison.verdicts(points)[0].startswith("clean accuracy, bytes on disk, at most 1/2 of dense: a, 1 (80.0")
    assert "not attacked" in figures.heading(points)
    text = measure.page([[r for p in points for r in p.row.records]])
    assert ">clean accuracy (%)</text>" in text
    assert "a, 1\nclean 80.0 ±7.8 %" in text.replace("&#x27;", "'")
    assert "under attack" not in text


def test_seeds_are_put_together_in_curves_gaps_and_layers():
    made = [
        numbers("a, 1", 0.5, 10, seed=i, curve={"0": 0.9, "0.1": c}, masking=c / 10, sparsity={"w": c})
        for i, c in enumerate((0.2, 0.4))
    ]
    (point,) = comparison.points(made)
    assert point.curve[0.1] == pytest.approx(report.spread([0.2, 0.4], 100))
    assert point.curve[0.1][0] == pytest.approx(30.0)
    assert point.masking == pytest.approx(report.spread([0.02, 0.04], 100))
    assert point.sparsity == {"w": pytest.approx(0.3)}


class Reader(html.parser.HTMLParser):
    """Checks that what is opened is closed, and keeps what the tests ask for."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.loads = [], [], []

    def points(self):
        """Attributes of the points of charts, without the marks of legends and the cells of tables."""
        return [a for _, a in self.tags if "aria-label" in a and "data-tip" in a]

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.loads += [v for k, v in attributes if k in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(text):
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_the_page_is_whole_and_loads_nothing():
    evil = numbers("<script>alert(1)</script>, 0.5", 0.5, 3000)
    text = measure.page([[*study(), evil]], 'A "title" <b>')
    reader = read(text)
    assert reader.loads == []
    assert not re.search(r"https?://|@import|url\(", text)
    assert [tag for tag, _ in reader.tags].count("script") == 1
    tips = [a["data-tip"] for a in reader.points()]
    assert "a, 0.9\nunder attack 30.0 ±8.8 %\n1,000 bytes, 10 k MACs" in tips
    assert "a, 0.9\neps 0.2: 10.0 ±6.0 %" in tips
    assert "dense\nunder attack 80.0 ±7.8 %\n8,000 bytes, 100 k MACs\n2 ms" in tips
    assert sum(tip.startswith("b, 0.95") for tip in tips) == 0  # it was not attacked
    shaded = [a for tag, a in reader.tags if tag == "td" and "style" in a]
    assert [a["data-value"] for a in shaded] == ["25.0", "75.0", "90.0"]
    assert "A &quot;title&quot; &lt;b&gt;" in text
    assert "<li>bytes on disk, at most 1/2 of dense: a, 0.5 (70.0" in text
    with pytest.raises(ValueError, match="at least one group"):
        measure.page([])


def test_a_chart_places_points_by_the_logarithm():
    text = svg.chart([svg.Series("s", "red", [(10, 0, "a"), (100, 50, "b"), (1000, 100, "c")])], "x", "y", log=True)
    reader = read(text)
    spots = [(float(a["cx"]), float(a["cy"])) for a in reader.points()]
    (x0, y0), (x1, y1), (x2, y2) = spots
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert (y0, y2) == (svg.HEIGHT - svg.BOTTOM, svg.TOP)
    line = svg.Series("s", "red", [(10, 0, "a"), (100, 50, "b"), (1000, 100, "c")], steps=True)
    path = next(a["d"] for tag, a in read(svg.chart([line], "x", "y", log=True)).tags if "stroke-width" in a)
    assert path == f"M{x0} {y0}H{x1}V{y1}H{x2}V{y2}"  # level until the next point, as the PNG
    read(svg.chart([svg.Series("one", "red", [(0.0, 5, "a")])], "x", "y"))  # a single point at zero has an axis too
    with pytest.raises(ValueError, match="at least one point"):
        svg.chart([svg.Series("none", "red", [])], "x", "y")


def test_a_cost_of_zero_stands_on_the_left_edge_of_a_logarithmic_axis():
    some = svg.Series("s", "red", [(0, 10, "none"), (10, 50, "a"), (100, 50, "b")])
    places = [float(a["cx"]) for a in read(svg.chart([some], "x", "y", log=True)).points()]
    without = svg.Series("s", "red", some.points[1:])
    same = [float(a["cx"]) for a in read(svg.chart([without], "x", "y", log=True)).points()]
    assert places == [svg.LEFT, *same]  # nor does it move the others
    read(svg.chart([svg.Series("s", "red", [(0, 10, "none")])], "x", "y", log=True))


def test_marks_of_the_page_have_the_shapes_of_the_pictures():
    series = [svg.Series(m, "red", [(1, 0, m)], marker=m) for m in "o.sD"]
    tags = read(svg.chart(series, "x", "y")).tags
    marks = [(tag, a) for tag, a in tags if "data-tip" in a]
    assert [(tag, a.get("r")) for tag, a in marks[:2]] == [("circle", "4.5"), ("circle", "2.2")]
    x, y = float(marks[0][1]["cx"]), float(marks[0][1]["cy"])
    assert [a["transform"] for _, a in marks[2:]] == [f"translate({x} {y})"] * 2
    square, diamond = (re.findall(r"-?[\d.]+", a["d"]) for _, a in marks[2:])
    assert {abs(float(value)) for value in square} == {5.0}
    assert {abs(float(value)) for value in diamond} == {0.0, 7.1}  # a square on its corner
    keys = [a for tag, a in tags if tag in ("circle", "path") and "fill" in a and "data-tip" not in a]
    assert [a.get("d", a.get("r")) for a in keys] == [a.get("d", a.get("r")) for _, a in marks]  # the legend too


# clicks on headers, then the pointer on a point far right and on nothing; what was seen becomes the title
SCRIPTED = """
<script>{
const shown = [], heads = document.querySelector("table").tHead.rows[0].cells;
const names = () => Array.from(document.querySelector("tbody").rows, row => row.cells[0].textContent);
for (const column of [0, 0, 2, 2, 0]) {
  heads[column].firstElementChild.click();
  shown.push([names(), Array.from(heads, head => head.getAttribute("aria-sort") || "").slice(0, 3)]);
}
const tip = document.getElementById("tip"), spots = Array.from(document.querySelectorAll("circle[data-tip]"));
const move = (target, x) =>
  target.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX: x, clientY: 20}));
move(spots[0], window.innerWidth - 5);
shown.push([tip.textContent === spots[0].dataset.tip, tip.getBoundingClientRect().right <= window.innerWidth]);
move(document.body, 5);
shown.push(getComputedStyle(tip).display);
document.title = JSON.stringify(shown);
}</script>
"""
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to open the page")
def test_in_a_browser_a_click_sorts_and_the_pointer_shows_values(tmp_path):
    file = tmp_path / "page.html"
    file.write_text(measure.page([study()]).replace("</body>", SCRIPTED + "</body>"))
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    folder = f"--user-data-dir={tmp_path / 'profile'}"
    command = [CHROMIUM, *flags.split(), folder, "--enable-logging=stderr", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "CONSOLE" not in done.stderr, done.stderr
    title = re.search(r"<title>(.*)</title>", done.stdout).group(1)
    *sorted_names, at_point, elsewhere = json.loads(html.unescape(title))
    up, down = ["a, 0.5", "a, 0.9", "b, 0.5", "b, 0.9", "b, 0.95", "dense"], ["ascending", "descending"]
    by_size = ["b, 0.95", "a, 0.9", "b, 0.9", "b, 0.5", "a, 0.5", "dense"]
    assert sorted_names == [
        [up, [down[0], "", ""]],
        [up[::-1], [down[1], "", ""]],
        [by_size, ["", "", down[0]]],
        [by_size[::-1], ["", "", down[1]]],
        [up, [down[0], "", ""]],
    ]
    assert at_point == [True, True]
    assert elsewhere == "none"


def test_the_command_writes_everything_and_keeps_networks_apart(tmp_path, capsys):
    (tmp_path / "deep").mkdir()
    for r in study():
        measure.append(tmp_path / "results.jsonl", r)
        measure.append(
            tmp_path / "deep" / "results.jsonl", r._replace(model="Other", worst=None, robust={}, curve=None)
        )
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"method": "ha')
    assert command.main([str(tmp_path), "--title", "Mine"]) == 0
    names = [f"other-digits-test-100-{name}.png" for name in ("accuracy_vs_cost", "masking", "layer_sparsity")]
    names += [f"cnn-digits-test-100-{name}.png" for name in folder.PICTURES]
    printed, said = capsys.readouterr()
    assert "line 7, the last, is half-written" in said
    printed = printed.split()
    assert printed == [str(tmp_path / name) for name in ("report.md", "report.html", *names)]
    for name in names:
        data = (tmp_path / name).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert min(struct.unpack(">II", data[16:24])) > 150
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Mine\n\n## Other on 100 images of digits/test; not attacked")
    assert measure.markdown(study(), "t").split("\n\n")[1] in text
    assert "* bytes on disk, at most 1/2 of dense: a, 0.5" in text
    assert "* clean accuracy, bytes on disk, at most 1/2 of dense: b, 0.95" in text
    assert "other-digits-test-100-security_curves" not in text
    read((tmp_path / "report.html").read_text())


def test_pictures_draw_the_values(monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))
    points = comparison.points(study())
    for draw in (figures.fronts, figures.security_curves, figures.masking, figures.layer_sparsity):
        draw(points, tmp_path / "x.png", "t")
    fronts, curves, gaps, layers = drawn
    step = next(line for line in fronts.axes[0].lines if line.get_color() == "k")
    assert list(step.get_xdata()) == [1000, 2000, 4000, 8000]
    assert list(step.get_ydata()) == [30, 40, 70, 80]
    assert [axes.get_xlabel() for axes in fronts.axes] == list(comparison.COSTS)
    (line,) = curves.axes[0].lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0, 0.1, 0.2], pytest.approx([90, 30, 10]))
    assert [patch.get_width() for patch in gaps.axes[0].patches] == pytest.approx([5.0])
    assert layers.axes[0].images[0].get_array().tolist() == [[25.0, 75.0], [90.0, 0.0]]


def drawn(draw, points, title="t"):
    """The figure that a function would have written; None where there is nothing to draw."""
    from matplotlib.figure import Figure

    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, path: seen.append(figure))
        assert draw(points, "x.png", title) == bool(seen)
    return seen[0] if seen else None


def test_what_there_is_nothing_to_draw_of_is_not_drawn():
    bare = [r._replace(robust={}, worst=None, curve=None, masking=None, sparsity={}) for r in study()]
    points = comparison.points(bare)
    assert [drawn(draw, points) is None for draw in folder.PICTURES.values()] == [False, True, True, True]
    (line, *_) = drawn(figures.fronts, points).axes[0].lines
    assert list(line.get_ydata()) == [90.0]  # clean accuracy of the dense network
    assert drawn(figures.fronts, points).axes[0].get_ylabel() == "clean accuracy (%)"


def test_panels_without_a_family_are_blank_and_the_unit_is_named():
    curve = {"0": 0.9, "0.1": 0.3}
    figure = drawn(
        figures.security_curves, comparison.points([numbers(f"{c}, 1", 0.3, 9, curve=curve) for c in "abcde"])
    )
    assert [axes.axison for axes in figure.axes] == [True] * 5 + [False] * 3
    assert figure.axes[0].get_xlabel() == "eps (of the pixel range [0, 1])"


def test_rows_of_one_name_have_bars_of_their_own():
    made = [
        numbers("a, 1", 0.5, 10, masking=gap)._replace(options={"rank": rank}) for rank, gap in ((2, 0.1), (4, 0.2))
    ]
    axes = drawn(figures.masking, comparison.points(made)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a, 1, rank 2", "a, 1, rank 4"]
    assert [patch.get_width() for patch in axes.patches] == pytest.approx([10, 20])


def test_pictures_of_many_rows_show_the_most_accurate_and_say_so():
    many = [numbers(f"m{i}, 1", i / 100, 10 + i, sparsity={"w": 0.5}, masking=i / 100) for i in range(1, 80)]
    points = comparison.points([record("dense", 0.8, 100, role="dense"), *many])
    layers = drawn(figures.layer_sparsity, points)
    names = [label.get_text() for label in layers.axes[0].get_yticklabels()]
    assert (len(names), names[0], names[-1]) == (60, "m20, 1", "m79, 1")
    assert "the 60 most accurate of 79 rows" in layers.get_suptitle()
    assert "the 60 largest of 79 rows" in drawn(figures.masking, points).get_suptitle()
    legend = [text.get_text() for text in drawn(figures.fronts, points).axes[-1].get_legend().get_texts()]
    assert len(legend) == figures.FAMILIES + 1
    assert {"dense", "m79", "62 less accurate families"} <= set(legend)


def test_threats_at_one_radius_have_pictures_of_their_own(tmp_path, capsys):
    for norm in ("linf", "l2"):
        measure.append(
            tmp_path / "r.jsonl",
            record("dense", 0.8, 800, role="dense", threat={"norm": norm, "eps": 0.5, "levels": 16}),
        )
    assert command.main([str(tmp_path)]) == 0
    names = [f"cnn-digits-test-100-{norm}-eps0.5-accuracy_vs_cost.png" for norm in ("linf", "l2")]
    assert {file.name for file in tmp_path.glob("*.png")} == set(names)


def test_a_file_of_something_else_is_left_out_with_a_warning(tmp_path, capsys):
    (tmp_path / "networks.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    assert command.main([str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err
    measure.append(tmp_path / "results.jsonl", study()[0])
    assert command.main([str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path / 'networks.jsonl'}: line 1 has unknown or missing fields: ")
    assert said.endswith("; it was skipped.\n")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe")
    assert command.main([str(tmp_path)]) == 0
    assert f"{tmp_path / 'binary.jsonl'} was left out: " in capsys.readouterr().err


def test_a_line_of_something_else_costs_no_row_of_its_file(tmp_path, capsys):
    file, (dense, method, *_) = tmp_path / "results.jsonl", study()
    measure.append(file, dense)
    with file.open("a") as lines:
        lines.write('{"note": 1}\n[1]\n')
    unusable = {
        "macs": [None, {}, {"run": None, "nonzero": 1}],
        "robust": [{"PGD": None}],
        "threat": [{"norm": "linf", "eps": 0.1}],
        "warnings": [[1]],
        "latency": [{"median": 1.0}],
    }
    for name, values in unusable.items():
        for value in values:
            measure.append(file, method._replace(**{name: value}))
    measure.append(file, method)
    assert folder.read(tmp_path) == [[dense, method]]
    said = capsys.readouterr().err
    assert said.startswith(f"{file}: line 2 has unknown or missing fields: ")
    assert said.endswith("; it was skipped, as were 8 more.\n")
    file.write_text(json.dumps(method._replace(macs=None)._asdict()) + "\n" + json.dumps(dense._asdict()))
    assert command.main([str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert f"{file}: line 1 has macs null, which is not what measure.Record has there; it was skipped." in said


def test_rows_that_cost_nothing_are_reported(tmp_path):
    """A network without a weight, and bytes that nobody counted."""
    rows = [record("dense", 0.8, 8000, role="dense"), numbers("a, 1", 0.1, 100, macs=0), numbers("b, 1", 0.1, 0)]
    files = folder.written(tmp_path, [rows], "t")
    assert [file.name for file in files] == ["report.md", "report.html", "cnn-digits-test-100-accuracy_vs_cost.png"]
    tips = [a["data-tip"] for a in read((tmp_path / "report.html").read_text()).points()]
    assert "a, 1\nunder attack 10.0 ±6.0 %\n100 bytes, 0 k MACs" in tips
    assert [line[2] for line in report.cells(rows)[1]] == ["1.0x", "80.0x", ""]


@pytest.mark.parametrize("name", ["report.md", "report.html", "cnn-digits-test-100-accuracy_vs_cost.png"])
def test_a_folder_that_takes_no_files_is_said(tmp_path, capsys, name):
    measure.append(tmp_path / "results.jsonl", study()[0])
    (tmp_path / name).symlink_to("/dev/full")
    assert command.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said == f"{command.PROGRAM}: cannot write into {tmp_path}: [Errno 28] No space left on device\n"
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()  # as little to be written as a file of somebody else
    assert command.main([str(tmp_path)]) == 2
    assert f"cannot write into {tmp_path}: [Errno 21]" in capsys.readouterr().err


def test_a_hundred_families_look_different():
    assert len({style(number) for number in range(100)}) == 100


def test_baselines_are_gray_by_their_role_and_no_two_families_look_alike():
    rows = [record("dense", 0.8, 9, role="dense"), numbers("randomized_svd, 1", 0.5, 9)]
    rows += [numbers(f"m{i}, 1", 0.5, 9) for i in range(12)]
    rows += [numbers(f"{name}, 1", 0.1, 9, role="baseline") for name in ("random", "smaller")]
    looks = figures.styles(comparison.points(rows))
    assert [name for name, (color, _) in looks.items() if color == GRAY] == ["dense", "random", "smaller"]
    assert looks["randomized_svd"] == style(0)
    assert len(set(looks.values())) == len(looks) == 16
    only = figures.styles(comparison.points([r._replace(role="baseline") for r in rows[1:]]))
    assert len(set(only.values())) == len(only) == 15
    text = measure.page([rows])
    keys = re.findall(r"<span><svg[^>]*>(.*?)</svg>([^<]*)</span>", text)
    assert [name for _, name in keys][:16] == list(looks)
    assert len({key for key, _ in keys[:16]}) == 16
    curves = measure.page([[r._replace(curve={"0": 0.9, "0.1": 0.3}) for r in rows]])
    keys = re.findall(r"<span><svg[^>]*>(.*?)</svg>([^<]*)</span>", curves)[-16:]
    assert ([name for _, name in keys], len({key for key, _ in keys})) == (list(looks), 16)


def test_of_many_families_the_less_accurate_are_dots_on_the_page_too():
    """And do not use up the looks of the others."""
    many = [numbers(f"m{i}, 1", i / 100, 10 + i, curve={"0": 0.9, "0.1": 0.3}) for i in range(1, 80)]
    points = comparison.points([record("dense", 0.8, 100, role="dense"), *many])
    looks = figures.styles(points)
    named = [name for name, look in looks.items() if look != figures.OTHER]
    assert named == ["dense", *(f"m{i}" for i in range(63, 80))]
    assert len({looks[name] for name in named}) == figures.FAMILIES
    legends = re.findall(r"<figcaption.*?</figcaption>", measure.page([[r for p in points for r in p.row.records]]))
    names = [re.findall(r"</svg>([^<]*)</span>", legend) for legend in legends]
    assert names[0] == ["62 less accurate families", *named, "Pareto front"]
    assert names[-1] == ["less accurate families", *named[1:]]


def test_nothing_to_report_is_said(tmp_path, capsys):
    assert command.main([str(tmp_path)]) == 2
    assert f"{tmp_path} holds no results" in capsys.readouterr().err

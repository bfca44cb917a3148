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
from spartax.measure import comparison, figures, folder, svg
from spartax.measure.plot import style


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
    """Three seeds of two methods at a quarter of the bytes: means 60 and 50, deviations 1 and 2."""

    def seeds(name, values):
        return [numbers(name, v, 2000, macs=90_000, seed=i) for i, v in enumerate(values)]

    dense = record("dense", 0.8, 8000, role="dense")
    apart = comparison.points([dense, *seeds("a, 1", (0.59, 0.60, 0.61)), *seeds("b, 1", (0.48, 0.50, 0.52))])
    line = "a, 1 (60.0 ±1.0 %) is ahead of b, 1 (50.0 ±2.0 %) by 10.0 ±2.2."
    assert comparison.verdicts(apart) == [f"bytes on disk, at most 1/{n} of dense: {line}" for n in (2, 4)]
    close = comparison.points([dense, *seeds("a, 1", (0.50, 0.52, 0.54)), *seeds("b, 1", (0.48, 0.50, 0.52))])
    assert comparison.verdicts(close)[0].endswith("cannot be told apart (2.0 ±2.8).")
    alone = comparison.points([dense, *seeds("a, 1", (0.5, 0.5, 0.5)), numbers("a, 2", 0.4, 1000)])
    assert comparison.verdicts(alone)[0].endswith("only a, 1 (50.0 ±0.0 %) was measured.")  # no rival of another method
    assert comparison.verdicts(apart[1:]) == ["No dense network was attacked, so no budget can be named."]


def test_seeds_are_put_together_in_curves_gaps_and_layers():
    made = [
        numbers("a, 1", 0.5, 10, seed=i, curve={"0": 0.9, "0.1": c}, masking=c / 10, sparsity={"w": c})
        for i, c in enumerate((0.2, 0.4))
    ]
    (point,) = comparison.points(made)
    assert point.curve[0.1] == pytest.approx((30.0, 14.1421356))
    assert point.masking == pytest.approx((3.0, 1.41421356))
    assert point.sparsity == {"w": pytest.approx(0.3)}


class Reader(html.parser.HTMLParser):
    """Checks that what is opened is closed, and keeps what the tests ask for."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.loads = [], [], []

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
    tips = [a["data-tip"] for tag, a in reader.tags if tag == "circle"]
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
    spots = [(float(a["cx"]), float(a["cy"])) for tag, a in reader.tags if tag == "circle"]
    (x0, y0), (x1, y1), (x2, y2) = spots
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert (y0, y2) == (svg.HEIGHT - svg.BOTTOM, svg.TOP)
    read(svg.chart([svg.Series("one", "red", [(0.0, 5, "a")])], "x", "y"))  # a single point at zero has an axis too
    with pytest.raises(ValueError, match="at least one point"):
        svg.chart([svg.Series("none", "red", [])], "x", "y")


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
    names = [f"{net}-digits-test-100-{name}.png" for net in ("other", "cnn") for name in folder.PICTURES]
    printed = capsys.readouterr().out.split()
    assert printed == [str(tmp_path / name) for name in ("report.md", "report.html", *names)]
    for name in names:
        data = (tmp_path / name).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert min(struct.unpack(">II", data[16:24])) > 150
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Mine\n\n## Other on 100 images of digits/test; linf, eps 0.1 (1.6/16)")
    assert measure.markdown(study(), "t").split("\n\n")[1] in text
    assert "* bytes on disk, at most 1/2 of dense: a, 0.5" in text
    assert "* No dense network was attacked" in text
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


def test_a_hundred_families_look_different():
    assert len({style(number) for number in range(100)}) == 100


def test_nothing_to_report_is_said(tmp_path, capsys):
    assert command.main([str(tmp_path)]) == 2
    assert f"{tmp_path} holds no results" in capsys.readouterr().err

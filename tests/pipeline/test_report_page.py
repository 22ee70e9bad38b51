"""The page, as its text is written and as Chromium shows it."""

import json
import re
import shutil
import sys
import types
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from keras import layers

import keras_compress as kc
import tflite_export

SCRIPT = "<script>alert(1)</script>"
SVGS = 9
WIDTHS = (390, 1200)


def build(width, name="dense"):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(width, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(3, name=name),
        ]
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Six stages, some with names that a page and a plot must not take as markup."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("files") / "m.tflite"
    x = np.random.default_rng(0).random((40, 8, 8, 1), "float32")
    tflite_export.export(build(4), path, quantization="int8", representative_data=x)
    report = kc.CompressionReport(
        "Small & <b>fast</b>", f"python a.py && echo {SCRIPT}"
    )
    report.add_stage("teacher", build(64, "dense <b>"), {"accuracy": 0.94})
    report.add_stage(SCRIPT, build(16), {"accuracy": 0.93})
    report.add_stage("costs $5 or $6", build(8), {"accuracy": 0.935})
    report.add_stage("压缩", build(4), {"accuracy": 0.91}, training={"seconds": 3})
    report.add_stage("without a metric" + " and a long name" * 4, build(2))
    report.add_stage("int8", path, {"accuracy": 0.9})
    return report


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    for package in ("jinja2", "matplotlib"):
        pytest.importorskip(package)
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.to_html(path)
    assert [found.name for found in path.parent.iterdir()] == ["report.html"]
    return path


class Elements(HTMLParser):
    """Every element's tag and attributes, the text, and the ids."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_names_are_text_and_not_markup(page):
    elements = Elements(page.read_text())
    assert not elements.named("script") and not elements.named("b")
    text = "".join(elements.texts)
    for name in (SCRIPT, "Small & <b>fast</b>", "costs $5 or $6", "dense <b>", "压缩"):
        assert name in text


def test_the_page_names_nothing_outside_of_it(page):
    text = page.read_text()
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    for _, attributes in Elements(text).found:
        for key in ("href", "xlink:href", "src"):
            assert attributes.get(key, "#").startswith(("#", "data:"))
        assert not any(key.startswith("on") for key in attributes)


def test_every_id_is_there_once_and_every_reference_leads_to_one(page):
    text = page.read_text()
    ids = [a["id"] for _, a in Elements(text).found if "id" in a]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="#|url\(#|labelledby=")([^")]+)', text)
    assert used and set(used) <= set(ids)


def test_plots_say_in_words_what_they_show(page):
    svgs = Elements(page.read_text()).named("svg")
    assert len(svgs) == SVGS
    assert all(svg["role"] == "img" for svg in svgs)
    size = svgs[0]["aria-label"]
    assert size.startswith("accuracy against size. teacher: 94.00 % at ")
    assert SCRIPT in size and "without a metric" not in size


def test_the_table_and_the_commands_are_those_of_the_report(page, report):
    text = page.read_text()
    for number in (report.stages[0].params, report.stages[-1].bytes):
        assert f"<td>{number:,}</td>" in text
    assert "<td>—</td>" in text
    assert "python a.py &amp;&amp; echo &lt;script&gt;" in text
    assert report.stages[-1].latency.cpu in text and keras.__version__ in text
    ratio = f"{report.stages[0].bytes / report.stages[-1].bytes:.3g}"
    assert f"{ratio}\N{MULTIPLICATION SIGN}</dd>" in text


def test_a_report_of_one_stage_without_a_metric_says_what_it_lacks(tmp_path):
    pytest.importorskip("jinja2")
    report = kc.CompressionReport()
    report.add_stage("alone", build(4))
    report.to_html(tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert text.count("No stage has the numbers for this plot") == 3
    assert len(Elements(text).named("svg")) == SVGS - 4


def test_a_model_of_very_many_layers_shows_the_largest(tmp_path):
    pytest.importorskip("jinja2")
    sizes = [*range(2, 40), 40]
    dense = [layers.Dense(n, name=f"width_{n}") for n in sizes]
    report = kc.CompressionReport()
    report.add_stage("deep", keras.Sequential([keras.Input((2,)), *dense]))
    report.to_html(tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert "7 layers with the fewest weights are not drawn" in " ".join(text.split())
    assert ">width_9<" in text and ">width_8<" not in text


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_without_a_package_the_error_names_the_extra(package, tmp_path, monkeypatch):
    report = kc.CompressionReport()
    report.add_stage("a", build(2))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"keras_compress\[report\].*" + package):
        report.to_html(tmp_path / "a.html")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def chromium():
    """Debian's chromium, driven by its own chromedriver."""
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} missing: apt-get install chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    service = webdriver.ChromeService(programs["chromedriver"])
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


_MEASURE = """
const width = e => e.getBoundingClientRect().width;
const marks = e => [...e.querySelectorAll("path, use")].filter(m => width(m) > 0);
return {
  page: [document.documentElement.scrollWidth, document.body.scrollWidth],
  svgs: [...document.querySelectorAll("svg")].map(
    e => [width(e), e.getBoundingClientRect().height, width(e.parentElement)]),
  marks: [...document.querySelectorAll("svg")].map(e => marks(e).length),
  points: marks(document.querySelector('#size [id*="PathCollection"]')).length,
  labels: [...document.querySelectorAll("#size svg text")].map(e => e.textContent),
  fonts: [...document.querySelectorAll("svg text")].map(
    e => e.getBoundingClientRect().height),
  table: ["scrollWidth", "clientWidth"].map(
    key => document.querySelector(".table")[key]),
  ink: getComputedStyle(document.querySelector("svg text")).fill,
  card: getComputedStyle(document.querySelector("figure")).backgroundColor,
};
"""


def shown(chromium, page, width, scheme="light"):
    """What Chromium makes of the page at this width, and what it says meanwhile."""
    scale = {
        "width": width,
        "height": 900,
        "deviceScaleFactor": 1,
        "mobile": width < 500,
    }
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", scale)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    chromium.get(page.as_uri())
    messages = [
        json.loads(entry["message"])["message"]
        for entry in chromium.get_log("performance")
    ]
    requests = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    found = types.SimpleNamespace(**chromium.execute_script(_MEASURE))
    found.requests, found.console = requests, chromium.get_log("browser")
    return found


@pytest.mark.parametrize("width", WIDTHS)
def test_chromium_draws_every_plot_without_a_word_or_a_request(chromium, page, width):
    found = shown(chromium, page, width)
    assert found.console == []
    assert page.as_uri() in found.requests
    others = {url for url in found.requests if url != page.as_uri()}
    assert all(url.startswith("data:") for url in others)
    assert len(found.svgs) == SVGS
    assert min(found.marks) >= 2 and found.points == 5
    for drawn, height, around in found.svgs:
        assert 0.8 * around <= drawn <= around and height > 50
    assert "teacher" in found.labels and SCRIPT in found.labels


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_as_wide_as_the_screen_and_the_table_scrolls(chromium, page, width):
    found = shown(chromium, page, width)
    assert max(found.page) <= width
    content, box = found.table
    assert box < width
    assert (content > box) == (width == 390)
    assert min(found.fonts) >= 9


def test_the_colours_of_plots_follow_the_scheme(chromium, page):
    light, dark = (shown(chromium, page, 390, scheme) for scheme in ("light", "dark"))
    assert light.ink != dark.ink and light.card != dark.card
    assert "rgb(1, 1, 1)" not in (light.ink, dark.ink)

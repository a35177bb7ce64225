"""The HTML report in a browser: it draws, sorts and answers clicks, quietly, in every width and colour scheme.

Needs Chromium with its driver (Debian: ``apt-get install chromium chromium-driver``) and selenium.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_pages import HOSTILE, hostile_network

import graphprune
from graphprune.history import COLUMNS
from graphprune.reporting import Extras, content_of, page

webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium is not installed: pip install -e .[dev]"
)
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no chromium and chromedriver here: apt-get install chromium chromium-driver",
)

PATIENCE = 20
"""Seconds that a page may take on a busy machine."""

ROOT = Path(__file__).resolve().parents[1]
RESNET = ROOT / "sample_models" / "resnet20_cifar10.onnx"


class Browser:
    """A headless Chromium that keeps what pages say and ask for."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, file: Path, width: int = 1280, scheme: str = "light", media: str = "") -> None:
        """Load a page; everything is drawn when this returns."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [feature]})
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(file.as_uri())
        until = time.monotonic() + PATIENCE
        while self("return document.documentElement.dataset.ready") != "yes":
            assert time.monotonic() < until, self.said()
            time.sleep(0.05)
        self.settle()

    def __call__(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def settle(self) -> None:
        """Wait for two frames: charts draw in the next one."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )

    def said(self) -> list[str]:
        """What the console got, errors of the page included."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> list[str]:
        """Every address that the page asked for."""
        events = (json.loads(e["message"])["message"] for e in self.driver.get_log("performance"))
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def click_node(self, name: str) -> None:
        """A real click where the graph's node is drawn."""
        x, y = self(
            "const node = drawn.nodes.findIndex((n) => n.name === arguments[0]);"
            "const { chart } = charts.get('graph-chart'), box = chart.getDom();"
            "box.scrollIntoView({ block: 'center', behavior: 'instant' });"
            "const view = fold(chart.getWidth() - 16, chart.getHeight() - 16);"
            "const at = chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, placed(view, drawn.nodes[node].at));"
            "const frame = box.getBoundingClientRect(); return [frame.left + at[0], frame.top + at[1]];",
            name,
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)
        self.settle()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    if os.getuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox refuses to run as root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
    driver.set_script_timeout(20)
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned ResNet-20 with everything that a report can show."""
    result = graphprune.prune(RESNET, sparsity=0.3)
    steps = list(range(1, 101))
    rows: dict[str, list[Any]] = {name: np.linspace(1, 0.01, 100).tolist() for name in COLUMNS}
    result.training = {**rows, "step": steps, "phase": ["search"] * 80 + ["fine-tune"] * 20}
    result.metrics["before"] = 0.881
    result.curves = {"density": [1.0, 0.8, 0.7]}
    content = content_of(result.analysis, result.plan, Extras((2, 1), result.history, 'method = "smart"\n'))
    groups = [{"group": g.id, "name": g.name, "values": [0.8, 0.4]} for g in result.analysis.groups][:5]
    content["sensitivity"] = {"ratios": [0.1, 0.5], "metric": "accuracy", "groups": groups}
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_draws_quietly_and_fits(browser: Browser, report: Path, width: int, scheme: str) -> None:
    browser.open(report, width, scheme)
    assert browser("return [...charts.keys()]") == [
        *("channels-chart", "params-chart", "loss-chart", "masks-chart", "temperature-chart"),
        *("curves-chart", "sensitivity-chart", "graph-chart"),
    ]
    drawn = browser(
        "return [...charts.values()].map((c) => c.chart.getDom().querySelectorAll('svg path').length)"
    )
    assert min(drawn) >= 4
    assert browser("return document.documentElement.scrollWidth") <= width
    wide = browser("return [...charts.values()].map((c) => c.chart.getWidth())")
    assert max(wide) <= width
    page_colour, ink = browser(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    )
    assert contrast(page_colour, ink) >= 7
    assert (luminance(page_colour) < 0.2) == (scheme == "dark")
    assert browser.said() == []
    assert [u for u in browser.requested() if not u.startswith(("file:", "data:"))] == []


def test_colours_are_readable(browser: Browser, report: Path) -> None:
    """Contrast of every text against what is behind it, by WCAG 2: at least 4.5."""
    for scheme in ("light", "dark"):
        browser.open(report, 1280, scheme)
        pairs = browser(
            "const behind = (e) => { for (; e; e = e.parentElement) {"
            "  const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$|transparent/.test(c)) return c; } };"
            "return [...document.querySelectorAll('p, dt, dd, h1, h2, h3, a, button, td, th, figcaption, label, "
            "strong, .was')].filter((e) => !e.closest('.tint')).map((e) => [getComputedStyle(e).color, behind(e)])"
        )
        assert min(contrast(*pair) for pair in {tuple(p) for p in pairs}) >= 4.5


def test_the_button_changes_the_scheme(browser: Browser, report: Path) -> None:
    browser.open(report)
    before = browser("return [isDark(), charts.get('params-chart').chart.getOption().textStyle.color]")
    browser("document.getElementById('theme').click()")
    after = browser("return [isDark(), charts.get('params-chart').chart.getOption().textStyle.color]")
    assert before[0] is False
    assert after[0] is True
    assert before[1] != after[1]


def test_columns_sort(browser: Browser, report: Path) -> None:
    browser.open(report)
    column = (
        "return [...document.querySelectorAll('#layers-table tbody tr')].map((r) => +r.cells[5].dataset.sort)"
    )
    header = "document.querySelectorAll('#layers-table th')[5]"
    unsorted = browser(column)
    assert unsorted != sorted(unsorted)
    browser(f"{header}.querySelector('button').click()")
    assert browser(column) == sorted(unsorted)
    assert browser(f"return {header}.getAttribute('aria-sort')") == "ascending"
    browser(f"{header}.querySelector('button').click()")
    assert browser(column) == sorted(unsorted, reverse=True)
    operators = (
        "return [...document.querySelectorAll('#layers-table tbody tr')].map((r) => r.cells[2].textContent)"
    )
    browser("document.querySelectorAll('#layers-table thead button')[2].click()")
    assert browser(operators) == sorted(browser(operators), key=str.lower)


def test_a_click_lights_the_group(browser: Browser, report: Path) -> None:
    browser.open(report)
    content = browser("return content")
    name = next(n["name"] for n in content["graph"]["nodes"] if n["op"] == "Add")
    (group,) = next(n["groups"] for n in content["graph"]["nodes"] if n["name"] == name)
    browser.click_node(name)
    assert browser("return selected.groups") == [group]
    lit = browser(
        "return charts.get('graph-chart').chart.getOption().series.find((s) => s.name === 'nodes').data"
        ".filter((n) => n.itemStyle.opacity === 1).map((n) => n.name)"
    )
    expected = {n["name"] for n in content["graph"]["nodes"] if group in n["groups"] or group in n["reads"]}
    assert set(lit) == expected
    assert len(expected) < len(content["graph"]["nodes"]) / 2
    panel = browser("return document.getElementById('panel').textContent")
    members = next(g["members"] for g in content["groups"] if g["id"] == group)
    assert all(member["tensor"] in panel for member in members)
    browser("document.getElementById('clear').click()")
    assert browser("return document.getElementById('panel').textContent") == "Nothing is selected."


def test_search_and_tables_lead_to_the_graph(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser(
        "const find = document.getElementById('find'); find.value = 'LINEAR'; find.dispatchEvent(new Event('change'))"
    )
    browser.settle()
    panel = browser("return document.getElementById('panel').textContent")
    assert "node_linear" in panel
    assert "the model's output has these channels" in panel, "a frozen node says why"
    assert browser("return closeness(charts.get('graph-chart').chart)") > 1
    browser("document.querySelector('#groups-table .jump').click()")
    assert browser("return selected.groups") == [0]
    browser("document.getElementById('fit').click()")
    browser.settle()
    assert browser("return closeness(charts.get('graph-chart').chart)") == 1


def test_zoom_keeps_what_is_selected(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser("select(20, groupsOf(drawn.nodes[20])); document.getElementById('zoom-in').click()")
    deadline = time.monotonic() + 5
    while browser("return closeness(charts.get('graph-chart').chart)") <= 1 and time.monotonic() < deadline:
        browser.settle()
    zoomed = browser("return closeness(charts.get('graph-chart').chart)")
    assert zoomed > 1.5
    browser("select(21, groupsOf(drawn.nodes[21]))")
    browser.settle()
    assert browser("return closeness(charts.get('graph-chart').chart)") == zoomed
    assert browser.said() == []


def test_hostile_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(graphprune.prune(hostile_network(), sparsity=0.5).to_html(), encoding="utf-8")
    browser.open(path)
    title = browser("return document.title")
    browser.click_node(HOSTILE)
    assert HOSTILE in browser("return document.getElementById('panel').textContent")
    assert HOSTILE in browser("return document.getElementById('graph-chart').textContent"), "the tooltip"
    assert browser("return document.images.length") == 0
    assert browser("return document.title") == title != "broken"
    assert browser.said() == []


def test_on_paper_tables_are_whole_and_tools_are_gone(browser: Browser, report: Path) -> None:
    browser.open(report, 1280, "dark", media="print")
    hidden = browser(
        "return ['#theme', 'nav', '.tools'].map((s) => getComputedStyle(document.querySelector(s)).display)"
    )
    assert hidden == ["none"] * 3
    tables = browser(
        "return [...document.querySelectorAll('.scroll')].map((e) => e.scrollHeight <= e.clientHeight + 1)"
    )
    assert tables
    assert all(tables)
    assert luminance(browser("return getComputedStyle(document.body).backgroundColor")) == 1
    assert browser("return isDark()") is False
    assert browser("return [...charts.values()].every((c) => c.chart.getZr().painter.type === 'svg')")
    assert max(browser("return [...charts.values()].map((c) => c.chart.getWidth())")) <= 690
    pdf = browser.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert len(pdf["data"]) > 20_000
    assert browser.said() == []


def test_every_button_is_reached_by_keyboard(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert browser(
        "return [...document.querySelectorAll('button, input, a[href], .scroll')].every((e) => e.tabIndex >= 0)"
    )
    unnamed = browser(
        "return [...document.querySelectorAll('button, input')].filter((e) =>"
        " !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length"
    )
    assert unnamed == 0
    levels = browser("return [...document.querySelectorAll('h1, h2, h3')].map((e) => +e.tagName[1])")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(...)`` by WCAG 2."""
    parts = [float(p) / 255 for p in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return round(0.2126 * red + 0.7152 * green + 0.0722 * blue, 6)


def contrast(first: str, second: str) -> float:
    """Contrast of two colours by WCAG 2, from 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)

"""deploy/: rules and dashboard can be read, and name only metrics and labels that there are.

What the rules say is tested with promtool: tools/check-alert-rules, which `make check` runs.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamvibe.monitoring.metrics import QueueCollector

DEPLOY = Path(__file__).parents[2] / "deploy"
METRIC = re.compile(r"\b(streamvibe_\w+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\b(?:by|on) \(([^)]*)\)")
#: Beside those of the queue: of a worker's process; labels that Prometheus and histograms add.
OF_PROCESSES = {"streamvibe_worker_handlers_running": set[str]()}
ADDED = {"instance", "job", "le"}

RULES: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0][
    "rules"
]
TESTS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.test.yml").read_text())["tests"]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "streamvibe.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]


def known() -> dict[str, set[str]]:
    """The labels of every series there is, by its name."""
    found = dict(OF_PROCESSES)
    described: list[Any] = list(QueueCollector("", lambda _schedule, _last: None).describe())
    for family in described:
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}[
            family.type
        ]
        found |= {family.name + ending: set(family._labelnames) for ending in endings}
    return found


def check(expression: str) -> set[str]:
    """The metrics of an expression, all of which there are, with the labels that it asks for."""
    series = known()
    used = set()
    for name, selectors in METRIC.findall(expression):
        assert name in series, f"{name}: {expression}"
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors))
        assert labels <= series[name] | ADDED, f"{name}: {labels}"
        used.add(name)
    labels = {
        label.strip() for group in GROUPED.findall(expression) for label in group.split(",") if label.strip()
    }
    assert labels <= set.union(ADDED, *(series[name] for name in used)), expression
    return used


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert(rule: dict[str, Any]) -> None:
    """Of metrics that there are, over all targets; it says how bad it is, what it means and what to do."""
    assert check(rule["expr"])
    assert rule["labels"].keys() == {"severity"} and rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description"}
    # Several targets say the same: a number of the queue is never added up over them.
    bare = re.sub(
        r"\b(?:max|count|absent)(?: by \([^)]*\))? ?\((?:rate\(|increase\()?streamvibe_\w+", "", rule["expr"]
    )
    assert "streamvibe_" not in bare, bare
    for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
        assert re.search(rf"by \([^)]*\b{label}\b", rule["expr"]), label


def test_every_alert_has_tests() -> None:
    """One in which it fires, as it should, and one in which it does not, with series that look real."""
    for rule in RULES:
        cases = [
            (test["input_series"], case["exp_alerts"])
            for test in TESTS
            for case in test["alert_rule_test"]
            if case["alertname"] == rule["alert"]
        ]
        assert {bool(expected) for _, expected in cases} == {True, False}, rule["alert"]
        used = check(rule["expr"]) | {"streamvibe_pauses"}
        for series, expected in cases:
            assert {name for one in series for name in check(one["series"])} <= used
            for alert in expected:
                assert alert["exp_labels"]["severity"] == rule["labels"]["severity"]
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    "panel", [panel for panel in PANELS if panel["type"] != "row"], ids=lambda panel: panel["title"]
)
def test_a_panel(panel: dict[str, Any]) -> None:
    """Of metrics that there are, from the data source that is chosen."""
    assert panel["targets"] and panel["fieldConfig"]["defaults"]["unit"]
    for target in panel["targets"]:
        assert check(target["expr"])
        assert panel["datasource"] == target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_the_dashboard() -> None:
    """Panels have ids of their own and lie beside each other; everything that alerts ask for is shown."""
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    shown = {
        name for panel in PANELS for target in panel.get("targets", ()) for name in check(target["expr"])
    }
    asked = {name for rule in RULES for name in check(rule["expr"])}
    assert {name.removesuffix("_sum").removesuffix("_count") for name in asked} <= {
        name.removesuffix("_bucket") for name in shown
    }
    [variable] = [one for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    assert check(variable["definition"]) == {"streamvibe_jobs"}

"""The dashboard that operators import asks for metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from kit import ScriptBackend, client_of

DASHBOARD = json.loads(
    (Path(__file__).parents[2] / "deploy" / "grafana-dashboard.json").read_text()
)
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


async def test_every_metric_of_the_dashboard_is_exposed(model_dir):
    async with client_of(ScriptBackend(model_dir)) as client:
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        page = (await client.get("/metrics")).text
    # Families that have no sample yet (labels of what has not happened) still have a type.
    exposed = set(re.findall(r"^(rtp:\w+)", page, re.MULTILINE))
    for name, kind in re.findall(r"^# TYPE (rtp:\w+) (\w+)$", page, re.MULTILINE):
        exposed |= {name, f"{name}_total"} if kind == "counter" else {name}
    asked = {name for one in EXPRESSIONS for name in re.findall(r"rtp:\w+", one)}
    assert len(asked) > 15
    assert asked <= exposed, sorted(asked - exposed)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_follows_the_chosen_model(expression):
    selectors = re.findall(r"rtp:\w+(\{[^}]*\})?", expression)
    assert selectors
    assert all(one == '{model_name=~"$model_name"}' for one in selectors)
    assert expression.count("(") == expression.count(")")


def test_panels_do_not_overlap_and_have_one_source():
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}

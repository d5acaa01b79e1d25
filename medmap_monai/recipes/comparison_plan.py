"""The plan of a comparison of methods: protocol, groups of subsets, suites and variants, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medmap_monai.utils.json_file import read_json


def load_plan(path: Path) -> dict[str, Any]:
    """A plan; with ``base`` everything that it does not say comes from the plan of that name beside it.

    Variants of both are kept, its own win. A protocol is its own from end to end, unless it says ``"like": "base"``:
    then only what it names differs.
    """
    plan: dict[str, Any] = read_json(path, "plan")
    if "base" not in plan:
        return plan
    base = load_plan(path.parent / plan.pop("base"))
    protocol = plan.get("protocol", {})
    if protocol.pop("like", None) == "base":
        plan["protocol"] = _merged(base["protocol"], protocol)
    return {**base, **plan, "variants": {**base["variants"], **plan.get("variants", {})}}


def resolved(variants: dict[str, Any], name: str) -> dict[str, Any]:
    """A variant with what it takes over from the one that it is ``like``; its own values win, at any depth."""
    own = {key: value for key, value in variants[name].items() if key != "like"}
    return _merged(resolved(variants, variants[name]["like"]), own) if "like" in variants[name] else own


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {key for key, value in over.items() if isinstance(value, dict) and isinstance(base.get(key), dict)}
    return {**base, **over, **{key: _merged(base[key], over[key]) for key in both}}

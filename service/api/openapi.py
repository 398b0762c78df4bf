"""What several routes say of themselves in /openapi.json."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from service import problems

BYTES = {"type": "string", "format": "binary"}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems of these statuses (of all, where none is given) as OpenAPI responses."""
    grouped: dict[int | str, dict[str, Any]] = {}
    for problem in problems.tree():
        if statuses and problem.status not in statuses:
            continue
        entry = grouped.setdefault(problem.status, {"description": "", "content": {problems.MEDIA_TYPE: {}}})
        entry["description"] += ("; " if entry["description"] else "") + problem.title
    return grouped


def list_problems(app: FastAPI) -> None:
    """Put the list of problems into /openapi.json, from where /docs takes it."""
    document: dict[str, Any] = app.openapi()
    document["x-problems"] = [
        {"reason": problem.reason(), "status": problem.status, "title": problem.title, "when": problem.when}
        for problem in problems.tree()
    ]

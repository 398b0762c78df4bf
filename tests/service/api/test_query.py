"""Queries with more than anybody asks for."""

from __future__ import annotations

import pytest
from starlette.datastructures import QueryParams

from service.api import query
from service.problems import BadParameter


def test_thousands_of_parameters_cost_no_more_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("starlette.datastructures.ImmutableMultiDict.getlist")  # goes through all of them
    given = QueryParams("&".join(f"{number:x}=" for number in range(10_000)))
    with pytest.raises(BadParameter) as refused:
        query._read(given)
    assert len(refused.value.extra["errors"]) <= len(query.SegmentQuery.model_fields) + 1


def test_what_is_unknown_is_found_behind_all_that_is_known() -> None:
    known = "model=a&threshold=0.5&format=png&channel=0&page=0&split=distance&min_area=1&timeout_ms=1&priority=low"
    assert query._read(QueryParams(known)).min_area == 1
    for added in ("&more=1", "&model=b"):
        with pytest.raises(BadParameter):
            query._read(QueryParams(known + added))

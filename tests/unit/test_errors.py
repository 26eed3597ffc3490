"""How problems are told."""

import tidegate.errors as errors
from tidegate.errors import ConfigError, EngineFailure, Place, Problem, TidegateError, in_order


def test_a_problem_is_one_line() -> None:
    place = Place("gateway.yaml", 3, 5, "routes[0].to")
    assert str(Problem(place, "there is no upstream 'caht'", "did you mean 'chat'?")) == (
        "gateway.yaml:3:5: routes[0].to: there is no upstream 'caht'; did you mean 'chat'?"
    )
    assert str(Problem(place, "odd", severity="warning")) == "gateway.yaml:3:5: warning: routes[0].to: odd"
    assert str(Problem(Place("gateway.yaml"), "is empty")) == "gateway.yaml: is empty"


def test_a_problem_for_scripts() -> None:
    problem = Problem(Place("a.yaml", 1, 2, "workers"), "expected a number", "did you mean '4'?")
    assert problem.as_json() == {
        "file": "a.yaml",
        "line": 1,
        "column": 2,
        "key": "workers",
        "message": "expected a number",
        "hint": "did you mean '4'?",
        "severity": "error",
    }


def test_problems_are_sorted_and_told_once() -> None:
    late, early = Problem(Place("a", 2, 1), "late"), Problem(Place("a", 1, 9), "early")
    assert in_order([late, early, late]) == [early, late]
    assert str(ConfigError([late, early])) == "a:1:9: early\na:2:1: late"


def test_a_failure_of_the_engine_may_have_a_place() -> None:
    problem = Problem(Place("a", 1, 1, "listeners.web.bind"), "address in use")
    assert str(EngineFailure("address in use", problem)) == str(problem)
    assert str(EngineFailure("no threads")) == "no threads"


def test_the_tree_is_drawn_in_the_docstring() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TidegateError)]
    assert [kind.__name__ for kind in kinds if kind.__name__ not in (errors.__doc__ or "")] == []
    assert [kind for kind in kinds if kind.__module__ != "tidegate.errors"] == []

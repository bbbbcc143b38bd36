"""The checks of notebook 10 accept what is right in every form, and say what is wrong with typical wrong answers."""

import math

import pytest
import torch

from minigen.course.check import real_data as check


def first_of_four(video, start, names):
    for stem in (f"{video}_{start}", video, f"Y{video}_{start}", f"Y{video}"):
        if f"{stem}.wav" in names:
            return f"{stem}.wav"


def by_intersection(video, start, names):
    wanted = {f"{sign}{video}{end}.wav" for sign in ("", "Y") for end in ("", f"_{start}")}
    return next(iter(wanted & names), None)


@pytest.mark.parametrize("function", [first_of_four, by_intersection])
def test_the_clip_of_a_row_is_accepted_however_it_is_found(function):
    assert check.clip_of(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda v, s, n: f"{v}_{s}.wav", "Give the name of a file that is there"),
        (lambda v, s, n: f"{v}_{s}.wav" if f"{v}_{s}.wav" in n else None, "leave the start_time out"),
        (lambda v, s, n: next((x for x in (f"{v}_{s}.wav", f"{v}.wav") if x in n), None), "put a Y before"),
        (lambda v, s, n: next((x for x in sorted(n) if v in x), None), "Compare whole names"),
        (lambda v, s, n: None, "Try <youtube_id>_<start_time>"),
        (lambda v, s, n: v + s + 1, "stopped with TypeError"),
        (lambda v, s, n: ..., "no answer"),
    ],
)
def test_a_clip_that_is_not_found_gets_its_diagnosis(function, diagnosis):
    verdict = check.clip_of(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def test_the_gathered_rows_are_accepted_however_they_are_made():
    for function in (by_cat, by_mask, in_place):
        assert check.gathered(function).right


def by_cat(rows, own):
    seen = rows.detach()
    return torch.cat([seen[: own.start], rows[own], seen[own.stop :]])


def by_mask(rows, own):
    mine = torch.zeros(len(rows), 1, dtype=torch.bool)
    mine[own] = True
    return torch.where(mine, rows, rows.detach())


def in_place(rows, own):
    seen = rows.detach().clone()
    seen[own] = rows[own]
    return seen


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda rows, own: rows.detach(), "no row carries a gradient"),
        (lambda rows, own: rows, "3 times too much"),
        (lambda rows, own: by_cat(rows.detach(), own) + rows - by_cat(rows, own), "the others' rows"),
        (
            lambda rows, own: torch.cat([rows[own], rows.detach()[own.stop :], rows.detach()[: own.start]]),
            "order than the rows",
        ),
        (lambda rows, own: rows[own], "the shape is [2, 3]"),
        (lambda rows, own: rows.nothing, "AttributeError"),
        (lambda rows, own: ..., "no answer"),
    ],
)
def test_wrong_gathered_rows_get_their_diagnosis(function, diagnosis):
    verdict = check.gathered(function)
    assert not verdict.right
    assert diagnosis in verdict.text


@pytest.mark.parametrize("function", [
    lambda free, weights, row: max(0, int((free - 28 * weights) / row)),
    lambda free, weights, row: max(0, (free - 4 * 7 * weights) // row),
    lambda free, weights, row: torch.tensor(max(0.0, math.floor((free - 28 * weights) / row))),
])  # fmt: skip
def test_the_rows_that_fit_are_accepted_as_any_whole_number(function):
    assert check.rows_that_fit(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda f, w, r: f // r, "no room for the weights"),
        (lambda f, w, r: max(0, (f - 4 * w) // r), "keep the weights only"),
        (lambda f, w, r: max(0, (f - 7 * w) // r), "A float32 has four"),
        (lambda f, w, r: max(0, (f - 28 * w) / r), "not whole"),
        (lambda f, w, r: max(0, math.ceil((f - 28 * w) / r)), "rounded up"),
        (lambda f, w, r: (f - 28 * w) // r, "Give 0 there"),
        (lambda f, w, r: int((f - 28 * w) / r), "Give 0 there"),
        (lambda f, w, r: 7, "gives 7, not 16"),
        (lambda f, w, r: "many", "not a number"),
        (lambda f, w, r: ..., "no answer"),
    ],
)
def test_a_wrong_number_of_rows_gets_its_diagnosis(function, diagnosis):
    verdict = check.rows_that_fit(function)
    assert not verdict.right
    assert diagnosis in verdict.text

"""Findings: what a run of the demo can and cannot say, in sentences made from its numbers.

    Results (facts, examples, losses, measurements) --findings--> paragraphs of the report

No number is typed in: another run, another corpus or another seed gives other sentences.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from minigen.evaluation.caption_effect import CaptionEffect
from minigen.evaluation.measure import CODEC, NOISE, REAL, SHUFFLED, Measurement, difference, of_codec
from minigen.metrics import caution

LIVE, PLAIN, GUIDED, REGULARIZED = "live model", "no guidance", "guidance", "guidance + regulariser"
MISMATCHED, LIVE_MISMATCHED = "the same, shuffled captions", "live model, shuffled captions"


@dataclass(frozen=True)
class Facts:
    """What was done, in numbers. Where the corpus came from, how large it was, how long it took.

    source: such as "the built-in corpus". train_clips, reference_clips: rows of the token cache, clips FAD is taken to.
    parameters, shipped_parameters: weights of the live and of the shipped models. embedder: what FAD listens with, and
    embedding_width its numbers a clip. codebook_size: V. times: (stage, seconds).
    """

    source: str
    train_clips: int
    reference_clips: int
    seconds: float
    minutes: float
    steps: int
    parameters: int
    shipped_parameters: int
    codebook_size: int
    guidance: float
    embedder: str
    embedding_width: int
    judge: str
    seed: int
    times: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Example:
    """One held-out caption: the kinds asked for (empty where not known), its sounds by label, and what was heard."""

    caption: str
    asked: list[str]
    sounds: Mapping[str, Tensor]  # label -> [1, samples]
    heard: Mapping[str, list[str]] = field(default_factory=dict)  # label -> kinds


@dataclass(frozen=True)
class Results:
    """Everything on the page. live: history of the training (`minigen.train.train`). effect: of the captions on it."""

    facts: Facts
    examples: list[Example]
    live: list[dict]
    effect: CaptionEffect
    rows: list[Measurement]
    sweep: Mapping[str, Mapping[float, Measurement]]


def findings(results: Results) -> list[str]:
    """What the numbers of this run can and cannot say, in sentences made from them."""
    rows = {row.name: row for row in results.rows}
    texts = [_live_says(results), _early_says(rows), _recall_says(results.rows, rows)]
    texts += [_pair_says("Guidance", rows.get(GUIDED), rows.get(PLAIN))]
    texts += [_pair_says("The regulariser", rows.get(REGULARIZED), rows.get(GUIDED)), _limits(results, rows)]
    return [text for text in texts if text]


def _live_says(results: Results) -> str:
    first, last, effect = results.live[0]["valid"], results.live[-1]["valid"], results.effect
    text = (
        f"On held-out clips the live model's loss fell from {first:.2f} to {last:.2f} nats per code in training. "
        f"Does it use the captions? {effect.clips} held-out clips cost {effect.own:.3f} nats per code with their own "
        f"captions, {effect.other:.3f} with captions of other clips: a difference of {effect.mean:+.3f} "
        f"(95% interval {effect.low:+.3f} to {effect.high:+.3f}). "
    )
    if effect.helps:
        return text + "The interval excludes 0: the model uses the captions."
    return text + "The interval includes 0: so short a training does not show that the model uses the captions."


def _early_says(rows: Mapping[str, Measurement]) -> str:
    """What the loss cannot show after a few minutes, and what the sounds of the live model show."""
    text = (
        "After a few minutes the loss says little about the sound: most of it is spent on details that no caption "
        "tells, such as the exact course of a noise."
    )
    live, mismatched = rows.get(LIVE), rows.get(LIVE_MISMATCHED)
    if live is None or mismatched is None or math.isnan(live.recall):
        return text
    return (
        f"{text} The sounds show more. In those of the live model the tagger detects {live.recall:.0%} of the events "
        f"that the captions ask for, and {mismatched.recall:.0%} if the captions are those of other clips."
    )


def _recall_says(table: list[Measurement], rows: Mapping[str, Measurement]) -> str:
    best = rows.get(REGULARIZED)
    if best is None or math.isnan(best.recall):
        return "The true events of these clips are not known, so recall and order cannot be measured here."
    low, high = best.recall_interval
    text = (
        f"Of the {sum(best.asked)} events that the captions ask for, the tagger hears {rows[REAL].recall:.0%} in the "
    )
    text += f"real clips, {rows[CODEC].recall:.0%} after the codec, and {best.recall:.0%} "
    text += f"(95% interval {100 * low:.0f} to {100 * high:.0f}) "
    text += (
        f"in what the shipped model with guidance and regulariser makes: {of_codec(best, table):.0%} of the codec's. "
    )
    chance = rows.get(MISMATCHED, rows[SHUFFLED])
    text += f"Beside other clips' captions the same sounds are credited with {chance.recall:.0%}, real clips with "
    return text + f"{rows[SHUFFLED].recall:.0%}, and noise with {rows[NOISE].recall:.0%}: that is what chance gives."


def _pair_says(what: str, one: Measurement | None, other: Measurement | None) -> str:
    if one is None or other is None:
        return ""
    gains = [("recall", 100, " points", *difference(one, other, "found"))] if any(one.asked) else []
    gains += [("the CLAP score", 1, "", *difference(one, other, "matches"))]
    parts = [_gain(*gain) for gain in gains]
    one_run = " Each model is one training run: this compares two models, not two methods." if "regul" in what else ""
    return f"{what}, on the same captions with the same noise, {' and '.join(parts)}.{one_run}"


def _gain(name: str, scale: float, unit: str, mean: float, low: float, high: float) -> str:
    digits = 0 if scale == 100 else 3
    if low == high == 0:
        return f"leaves {name} where it was"
    verb = "raises" if mean > 0 else "lowers"
    sure = "the interval leaves out 0" if low > 0 or high < 0 else "the interval holds 0, so this sample cannot tell"
    by, low, high = (f"{scale * value:{sign}.{digits}f}" for value, sign in ((abs(mean), ""), (low, "+"), (high, "+")))
    return f"{verb} {name} by {by}{unit} (95% interval {low} to {high}: {sure})"


def _limits(results: Results, rows: Mapping[str, Measurement]) -> str:
    facts, real = results.facts, rows[REAL]
    text = f"FAD compares {real.clips} clips with {facts.reference_clips} others in {facts.embedding_width} dimensions"
    text += f"; real clips themselves come out at {real.fad:.3g}, and differences of that order mean nothing. "
    text += (
        f"All of it is heard by {facts.embedder} and {facts.judge}, which have never heard what a codec or a language "
    )
    text += "model does to a sound: they can be fooled, and miss what you hear. One seed, one set of captions: another "
    text += "run gives other digits. Listen before you believe a row."
    few = caution(real.clips, facts.reference_clips, facts.embedding_width)
    return text + (f" {few[0].upper()}{few[1:]}." if few else "")

"""Findings: the results of a demo in sentences, and their limits.

    Results (facts, examples, losses, measurements) --findings--> paragraphs of the report

Every number is computed from the results, so that another run, corpus or seed gives other sentences.
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
    """Facts about a run: corpus, sizes, settings and times.

    Args:
        source: name of the corpus, such as "the built-in corpus".
        train_clips: number of clips for training.
        reference_clips: number of real clips that FAD compares with.
        seconds: length of a clip.
        minutes: time of the live training.
        steps: steps of the live training.
        parameters: number of weights of the live model.
        shipped_parameters: number of weights of a shipped model.
        codebook_size: V.
        guidance: scale of the guidance of the shipped models.
        live_guidance: scale of the guidance of the live model.
        embedder: name of the model whose features FAD compares.
        embedding_width: number of these features.
        judge: name of the audio-text model.
        seed: seed of the run.
        times: (stage, seconds) of each stage.
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
    live_guidance: float
    embedder: str
    embedding_width: int
    judge: str
    seed: int
    times: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Example:
    """One held-out caption: kinds of event in it (empty if unknown), its sounds, and the kinds detected in each."""

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
    """Paragraphs for the page: what the numbers of this run show, and what they do not."""
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
    chance = rows.get(MISMATCHED, rows[SHUFFLED])
    return (
        f"Of the {sum(best.asked)} events that the captions ask for, the tagger detects {rows[REAL].recall:.0%} in the "
        f"real clips, {rows[CODEC].recall:.0%} after the codec, and {best.recall:.0%} (95% interval {100 * low:.0f} to "
        f"{100 * high:.0f}) in the sounds of the shipped model with guidance and regulariser, which is "
        f"{of_codec(best, table):.0%} of the codec's value. Chance level: {chance.recall:.0%} if the same sounds are "
        f"compared with other clips' captions, {rows[SHUFFLED].recall:.0%} for real clips compared so, and "
        f"{rows[NOISE].recall:.0%} for noise."
    )


def _pair_says(what: str, one: Measurement | None, other: Measurement | None) -> str:
    if one is None or other is None:
        return ""
    gains = [("recall", 100, " points", *difference(one, other, "found"))] if any(one.asked) else []
    gains += [("the CLAP score", 1, "", *difference(one, other, "matches"))]
    parts = [_gain(*gain) for gain in gains]
    text = f"{what}, on the same captions with the same noise, {' and '.join(parts)}."
    if one.name == REGULARIZED:
        text += " Each model comes from one training, so this compares two models, not two methods."
    return text


def _gain(name: str, scale: float, unit: str, mean: float, low: float, high: float) -> str:
    digits = 0 if scale == 100 else 3
    if low == high == 0:
        return f"does not change {name}"
    verb = "raises" if mean > 0 else "lowers"
    sure = "it excludes 0" if low > 0 or high < 0 else "it includes 0, so this sample does not tell"
    by, low, high = (f"{scale * value:{sign}.{digits}f}" for value, sign in ((abs(mean), ""), (low, "+"), (high, "+")))
    return f"{verb} {name} by {by}{unit} (95% interval {low} to {high}; {sure})"


def _limits(results: Results, rows: Mapping[str, Measurement]) -> str:
    facts, real = results.facts, rows[REAL]
    text = (
        f"FAD compares {real.clips} clips with {facts.reference_clips} others in {facts.embedding_width} dimensions. "
        f"Real clips have an FAD of {real.fad:.3g} themselves, so differences of that size mean nothing. "
        f"All events and scores come from {facts.embedder} and {facts.judge}, which were not trained on sounds of "
        "codecs or language models: both can be wrong, and miss what you hear. The run has one seed and one set of "
        "captions; another run gives other numbers. Listen before you trust a row."
    )
    few = caution(real.clips, facts.reference_clips, facts.embedding_width)
    return text + (f" {few[0].upper()}{few[1:]}." if few else "")

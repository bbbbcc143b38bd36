"""Model cards of the text encoder, for both of its trainings; all figures come from the run."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from minigen.display.tables import markdown_table
from minigen.recipes.text.teacher import NAME

COLUMNS = ("max", "mean", "teacher, max", "teacher, mean", "teacher, mean, as shown", "tf-idf")
AUDIOCAPS = """ AudioCaps' captions (Kim, Kim, Lee and Kim, "AudioCaps: Generating Captions for Audios in The
Wild", NAACL-HLT 2019) are for academic use. The weights contain none of them; the vocabulary of pieces
was made from them."""
TEACHER = f""" The teacher, {NAME} (Apache 2.0), computed vectors of the
captions. The weights contain none of its weights, and using them does not need it."""


def card(run, figures: dict[str, float], minutes: float, audiocaps: bool) -> str:
    """The card of the first training in Markdown: architecture, command, data, losses, figures, limits.

    run: the finished `TextTraining`. figures: areas, named "set, column". minutes: the budget that was given.
    """
    taught = run.lessons.view is not None
    parameters = sum(weight.numel() for weight in run.model.parameters()) / 1e6
    return f"""# Compact T5 text encoder

A T5 encoder (`minigen.t5`, the format of `transformers.T5EncoderModel`) of \
{parameters:.2f} M parameters with a Unigram tokenizer of {run.tokenizer.get_vocab_size()} pieces (256 of them bytes, so
that no character is lost; case is folded). float16.

**Made by** `minigen train-text --minutes {minutes:g}{" --audiocaps FOLDER" if audiocaps else ""}\
{" --teacher FOLDER" if taught else ""} --seed {run.seed}`:
{run.step} steps of {run.recipe.batch} texts in {run.seconds / 3600:.2f} hours of wall time on \
{torch.get_num_threads()} processor thread(s){_asking(run)}.

**Data.** {_data(run, audiocaps)}

**Losses**, mean of each tenth of the steps: hidden pieces (cross-entropy) / \
{"similarity to the teacher" if taught else "paraphrases (InfoNCE)"}, max- and mean-pooled:
{_curve(run.curve)}.

**Config.** {", ".join(f"{name} {value}" for name, value in asdict(run.recipe).items())}, seed {run.seed}.

**Figures.** Area under the ROC curve of the cosine of pooled states, captions of one clip against captions of two;
captions that were not trained on (corpus: test wordings of new scenes; AudioCaps: validation split, five per clip).
{"As shown: the teacher's vectors as used in the training, relative to the mean of the captions." if taught else ""}

{_table(figures)}

**Limits.** It knows short English captions of sounds. Other subjects, other languages and rare words are represented
by their nearest pieces. It hardly represents order: the states of "X, then Y" and "Y, then X" are nearly the same,
because it was trained on similarity alone.

**Licence.** The weights are the project's own, under its licence, made from the captions named under Data.\
{AUDIOCAPS if audiocaps else ""}{TEACHER if taught else ""}
"""


def order_card(run, figures: dict[str, float], start, minutes: float, audiocaps: bool) -> str:
    """The card of the second training, on order, in Markdown; the rest is in the card of the encoder it started from.

    run: the finished `OrderTraining`. figures: areas, named "set, column", and the shares of the probe.
    """
    parameters = sum(weight.numel() for weight in run.model.parameters()) / 1e6
    tenths = [np.mean(tenth, axis=0) for tenth in np.array_split(run.curve, min(10, len(run.curve)))]
    curve = ", ".join(f"{question:.2f} / {unlike:.3f} / {right:.2f}" for question, unlike, right in tenths)
    table = markdown_table(("captions, pooling", "figure"), [(name, f"{value:.3f}") for name, value in figures.items()])
    return f"""# Compact T5 text encoder, trained on order

A T5 encoder (`minigen.t5`, the format of `transformers.T5EncoderModel`) of \
{parameters:.2f} M parameters with a Unigram tokenizer of {run.tokenizer.get_vocab_size()} pieces. float16.

**Made by** `minigen train-text --from {Path(start).name} --minutes {minutes:g}\
{" --audiocaps FOLDER" if audiocaps else ""} --seed {run.seed}`:
{run.step} steps in {run.seconds / 60:.1f} minutes on {torch.get_num_threads()} processor thread(s).
Method and reason: `minigen/recipes/text/order.py`.

**Data.** {len(run.ordered)} captions of the corpus that name an order, and {len(run.others)} others\
{", also of AudioCaps" if audiocaps else ""}; training wordings only.

**Losses**, mean of each tenth of the steps: order (cross-entropy) / change of the similarities / pieces placed rightly:
{curve}.

**Config.** {", ".join(f"{name} {value}" for name, value in asdict(run.recipe).items())}, seed {run.seed}.

**Figures.** Areas under the ROC curve of the cosine of pooled states, captions of one clip against captions of two, on
captions that were not trained on. Order: accuracy of a linear probe, fitted on other wordings, that reads from the
state of a piece whether it sounds first or second (0.5 is guessing).

{table}

**Limits.** It knows short English captions of sounds. It represents order where "then", "followed by", "before" or
"after" stands between two sounds.

**Licence.** The weights are the project's own, under its licence.{AUDIOCAPS if audiocaps else ""}
"""


def _asking(run) -> str:
    """Note on the teacher's vectors, whose time is not counted, since they are stored between runs."""
    return f", after the teacher's vectors of {len(run.lessons.first)} lessons" if run.lessons.view else ""


def _data(run, audiocaps: bool) -> str:
    sizes = ", ".join(f"{size} {name}" for name, size in run.lessons.sizes.items())
    real = "AudioCaps' training captions (equal ones once), their common parts, single words, and " if audiocaps else ""
    return f"""Lessons of two wordings each from {real}pairs of
captions of the built-in corpus' scenes (synthetic): {sizes}. Of the corpus, no wording of the
validation or test split, and no scene with a held-out pair of sounds."""


def _curve(losses: list[tuple[float, float]]) -> str:
    tenths = [np.mean(tenth, axis=0) for tenth in np.array_split(losses, min(10, len(losses)))]
    return ", ".join(f"{guess:.2f} / {like:.3f}" for guess, like in tenths)


def _table(figures: dict[str, float]) -> str:
    """Rows: the sets; columns: those of COLUMNS that were measured."""
    names = [key.removesuffix(", tf-idf") for key in figures if key.endswith(", tf-idf")]
    columns = [column for column in COLUMNS if f"{names[0]}, {column}" in figures]
    rows = [[name, *(f"{figures[f'{name}, {column}']:.3f}" for column in columns)] for name in names]
    return markdown_table(("captions", *columns), rows)

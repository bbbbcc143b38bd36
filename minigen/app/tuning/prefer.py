"""`minigen prefer`: tune a model to the sounds that a CLAP model, or people, prefer (`minigen.tuning.preference`).

    captions ─► own samples ranked by CLAP, or answers of `minigen listen` ─► pairs ─► DPO ─► adapter in --out
    held-out captions ─► sounds before and after, with the same seeds ─► CLAP, recall, FAD, diversity

The tuning aims at the CLAP score, and the table also shows measures that it does not aim at: a rising CLAP score alone
says that the judge is pleased. The reference is the base model, frozen; under LoRA it takes no memory of its own.
"""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, NamedTuple

from minigen.app.commands import default_corpus
from minigen.app.preflight import check_writable
from minigen.app.tuning.start import best_row, load_base, plan_steps, train_tuned, tuned_config, usage
from minigen.engine.errors import MinigenError

if TYPE_CHECKING:
    from torch import Tensor

    from minigen.corpus.clip import Clip
    from minigen.corpus.token_cache import TokenSet
    from minigen.evaluation.measure import Measurement, Yardstick
    from minigen.generate import TextToAudio

MEASURED = "measured.safetensors"
MEASUREMENTS = 2  # of the loss of the held-out pairs, in the course of the training
REFERENCE = 240  # real clips that FAD compares with, at the most


def prefer(options: Namespace) -> None:
    """`minigen prefer`: make pairs, tune the model to them, and measure it before and after."""
    if (options.by is None) == (options.answers is None):
        raise MinigenError("give one source of preferences: --by clap, or --answers and a folder of minigen listen.")
    check_writable(options.out)
    _tune(options, load_base(options.start))


def _tune(options: Namespace, base: TextToAudio) -> None:
    """Make the pairs, train, and measure before and after."""
    import copy

    from minigen.engine.distributed import device
    from minigen.tuning.lora import add_lora, without_adapter
    from minigen.tuning.preference import PreferenceObjective

    pairs, held = _split(_pairs(options, base))
    ruler = _ruler(options)
    before = _measure(options, base, ruler, "before")
    base.lm.to(device())  # before the reference is made, which copies or shares these weights
    if options.all_weights:
        reference = copy.deepcopy(base.lm)
    else:
        reference = without_adapter(add_lora(base.lm, options.lora, options.start, options.seed))
    config = tuned_config(options)
    objective = PreferenceObjective(base.lm.config, base.encoder, reference, options.beta)
    config = plan_steps(config, options, base.lm, base.encoder, pairs, objective, MEASUREMENTS)
    history = train_tuned(options, base, pairs, held, config, objective)
    _report(options, [before, _measure(options, base, ruler, "after")], ruler.yardstick.reference, history)
    print(f"hear it: {usage(options, 'a dog barks')}")


def _pairs(options: Namespace, base: TextToAudio) -> TokenSet:
    """Pairs ranked by CLAP, or of people's answers."""
    from minigen.corpus import read_corpus
    from minigen.evaluation.clap import load_judge
    from minigen.tuning.pairs import answered_pairs, sampled_pairs, stored_pairs

    if options.answers:
        return answered_pairs(options.answers, base, options.seconds)
    if options.pairs:
        return stored_pairs(options.pairs, base, options.least)
    corpus = read_corpus(options.data or default_corpus(), "train", seconds=options.seconds)
    captions = list(dict.fromkeys(corpus.captions))[: options.captions]
    strengths = " and ".join(f"{guidance:g}" for guidance in options.pair_guidance)
    print(f"{options.samples} samples for each of {len(captions)} captions at guidance {strengths}", flush=True)
    return sampled_pairs(
        base, load_judge(options.judge), captions, options.out / "pairs.safetensors", options.samples, options.seconds,
        options.pair_guidance, options.seed, least=options.least,
    )  # fmt: skip


def _split(pairs: TokenSet) -> tuple[TokenSet, TokenSet]:
    """Pairs to learn from, and every tenth caption's pairs to measure on.

    Raises:
        MinigenError: pairs of fewer than two captions.
    """
    from minigen.app.commands import subset

    captions = list(dict.fromkeys(pairs.captions))
    if len(captions) < 2:
        raise MinigenError(
            f"pairs of {len(captions)} caption are too few to hold any out. Give answers to two or more."
        )
    held = set(captions[::10])
    rows = range(len(pairs))
    return (
        subset(pairs, [row for row in rows if pairs.captions[row] not in held]),
        subset(pairs, [row for row in rows if pairs.captions[row] in held]),
    )


class _Ruler(NamedTuple):
    """The yardstick, and the held-out clips that it measures on, with their sounds [n, 1, samples]."""

    yardstick: Yardstick
    clips: list[Clip]
    real: Tensor


def _ruler(options: Namespace) -> _Ruler:
    import torch

    from minigen.corpus import read_corpus
    from minigen.corpus.subsets import load_some
    from minigen.evaluation.clap import load_judge, load_tagger
    from minigen.evaluation.measure import Yardstick

    data = options.data or default_corpus()
    clips, real = load_some(read_corpus(data, "test", seconds=options.seconds), options.clips)
    _, reference = load_some(read_corpus(data, "validation", seconds=options.seconds), REFERENCE)
    return _Ruler(Yardstick(load_judge(options.judge), load_tagger(), reference), clips, torch.cat(real))


def _measure(options: Namespace, base: TextToAudio, ruler: _Ruler, name: str) -> Measurement:
    """Measure the model on held-out captions, always with the same random numbers."""
    from minigen.evaluation.measure import generate_for

    captions = [clip.caption for clip in ruler.clips]
    wavs = generate_for(base, captions, options.seconds, options.guidance, options.seed, label=name)
    return ruler.yardstick.measure(name, wavs, ruler.clips, ruler.real)


def _report(options: Namespace, rows: list[Measurement], reference: Tensor, history: list[dict]) -> None:
    """Print the table and the changes. Save the table, the changes, and the values of the clips that they come from."""
    from minigen.evaluation.change import changes_table, measure_changes, save_changes, save_rows
    from minigen.evaluation.measure import save_csv, table

    best = best_row(history)
    print(f"held-out pairs: loss {history[0]['valid']:.3f} before, {best['valid']:.3f} after (chance: 0.693)")
    if best["step"] == 0:
        print("worse: the loss of the held-out pairs only rose, so the start is kept: the result changes nothing.")
    changes = measure_changes(rows[:1], rows[1:], reference)
    print(f"{table(rows)}\n\n{changes_table(changes)}")
    save_csv(options.out / "table.csv", rows)
    save_changes(options.out / "changes.csv", changes)
    save_rows(options.out / MEASURED, rows, reference)

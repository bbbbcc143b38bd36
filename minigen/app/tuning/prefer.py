"""`minigen prefer`: tune a model to the sounds that a CLAP model, or people, prefer (`minigen.tuning.preference`).

    captions ─► own samples ranked by CLAP, or answers of `minigen listen` ─► pairs ─► DPO ─► adapter in --out
    held-out captions ─► sounds before and after, with the same seeds ─► CLAP, recall, FAD, diversity

The tuning aims at the CLAP score, and the table also shows measures that it does not aim at: a rising CLAP score alone
says that the judge is pleased. The reference is the base model, frozen; under LoRA it takes no memory of its own.
"""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from minigen.app.commands import default_corpus
from minigen.app.preflight import check_writable
from minigen.app.tuning.start import best_row, load_base, plan_steps, train_tuned, tuned_config, usage
from minigen.engine.errors import MinigenError

if TYPE_CHECKING:
    from minigen.corpus.token_cache import TokenSet
    from minigen.evaluation.measure import Measurement
    from minigen.generate import TextToAudio

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

    from minigen.tuning.lora import add_lora, without_adapter
    from minigen.tuning.preference import PreferenceObjective

    pairs, held = _split(_pairs(options, base))
    rows = [_measure(options, base, "before")]
    if options.all_weights:
        reference = copy.deepcopy(base.lm)
    else:
        reference = without_adapter(add_lora(base.lm, options.lora, options.start, options.seed))
    config = tuned_config(options)
    objective = PreferenceObjective(base.lm.config, base.encoder, reference, options.beta)
    config = plan_steps(config, options, base.lm, base.encoder, pairs, objective)
    history = train_tuned(options, base, pairs, held, config, objective)
    rows.append(_measure(options, base, "after"))
    _report(options, rows, history)
    print(f"hear it: {usage(options, 'a dog barks')}")


def _pairs(options: Namespace, base: TextToAudio) -> TokenSet:
    """Pairs ranked by CLAP, or of people's answers."""
    from minigen.corpus import read_corpus
    from minigen.evaluation.clap import load_judge
    from minigen.tuning.pairs import answered_pairs, sampled_pairs

    if options.answers:
        return answered_pairs(options.answers, base, options.seconds)
    corpus = read_corpus(options.data or default_corpus(), "train", seconds=options.seconds)
    captions = list(dict.fromkeys(corpus.captions))[: options.captions]
    print(f"{options.samples} samples for each of {len(captions)} captions", flush=True)
    return sampled_pairs(
        base, load_judge(options.judge), captions, options.out / "pairs.safetensors", options.samples, options.seconds,
        options.guidance, options.seed,
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


def _measure(options: Namespace, base: TextToAudio, name: str) -> Measurement:
    """Measure the model on held-out captions, always with the same random numbers."""
    import torch

    from minigen.corpus import read_corpus
    from minigen.corpus.subsets import load_some
    from minigen.evaluation.clap import load_judge, load_tagger
    from minigen.evaluation.measure import Yardstick, generate_for

    data = options.data or default_corpus()
    clips, real = load_some(read_corpus(data, "test", seconds=options.seconds), options.clips)
    _, reference = load_some(read_corpus(data, "validation", seconds=options.seconds), REFERENCE)
    yardstick = Yardstick(load_judge(options.judge), load_tagger(), reference)
    captions = [clip.caption for clip in clips]
    wavs = generate_for(base, captions, options.seconds, options.guidance, options.seed, label=name)
    return yardstick.measure(name, wavs, clips, torch.cat(real))


def _report(options: Namespace, rows: list[Measurement], history: list[dict]) -> None:
    """Print the table and the differences, and save the table as CSV."""
    from minigen.evaluation.measure import difference, save_csv, table

    best = best_row(history)
    print(f"held-out pairs: loss {history[0]['valid']:.3f} before, {best['valid']:.3f} after (chance: 0.693)")
    if best["step"] == 0:
        print("worse: the loss of the held-out pairs only rose, so the start is kept: the result changes nothing.")
    print(table(rows))
    before, after = rows
    for title, of in (("CLAP", "matches"), ("recall", "found")):
        mean, low, high = difference(after, before, of)
        print(f"after less before: {title} {mean:+.3f}, 95 % interval [{low:+.3f}, {high:+.3f}]")
    save_csv(options.out / "table.csv", rows)

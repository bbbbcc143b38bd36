"""Captions for the training of the judge: wordings of a clip, captions of the opposite order, and the tokenizer."""

from dataclasses import replace

import numpy as np

from minigen.corpus.synthesis.builtin import describe_clip
from minigen.corpus.synthesis.captions import PHRASES, caption, paraphrases, split_of
from minigen.corpus.synthesis.scenes import Scene
from minigen.recipes.judge.data import SECONDS

WORDINGS = 8  # captions of a scene to choose from


def train_tokenizer(captions: list[str], vocabulary: int = 2048):
    """Train a byte-level BPE tokenizer (arXiv 1508.07909) as RoBERTa's on captions; it can encode any text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(special.values()), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def wordings(seed: int, index: int) -> tuple[list[str], list[str]]:
    """Captions of a training clip, and captions of the opposite order (none unless one event follows another)."""
    scene, text, _ = describe_clip(seed, "train", index, SECONDS)
    rng = np.random.default_rng([seed, index])
    right = [text, *(c for c in paraphrases(scene, rng, WORDINGS) if split_of(c) == "train")]
    return right, [caption(opposite(scene), rng) for _ in range(2)] if scene.relation == "followed by" else []


def opposite(scene: Scene) -> Scene:
    """The scene with its first and its last foreground event exchanged."""
    first, last = scene.foreground[0], scene.foreground[-1]
    swapped = {first: replace(first, onset=last.onset, offset=last.offset),
               last: replace(last, onset=first.onset, offset=first.offset)}  # fmt: skip
    events = sorted((swapped.get(event, event) for event in scene.events), key=lambda event: event.onset)
    return replace(scene, events=tuple(events))


def plain_wordings(kind: str) -> list[str]:
    """Captions of a recording whose kind alone is known: the kind's clauses and nouns, without adjectives."""
    clauses = (clause.replace("{}", "").split("|") for clause in PHRASES[kind].clauses)
    return [f"{subject} {verb}" for subject, verb, _ in clauses] + [n.replace("{}", "") for n in PHRASES[kind].nouns]

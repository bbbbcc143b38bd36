"""Tokenizer of the "mini" text encoder, and start vectors for its pieces, from counts or from the teacher.

    "A puppy's bark 🐕"  ->  ▁a ▁puppy ' s ▁bark ▁ <0xF0> <0x9F> <0x90> <0x95> </s>

Sources: Unigram (Kudo, arXiv 1804.10959); PPMI and SVD as word vectors (Levy and Goldberg, NeurIPS 2014).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from minigen.recipes.text.teacher import View

if TYPE_CHECKING:
    from minigen.recipes.text.teacher import Teacher

PAD, END, UNKNOWN = range(3)  # the first pieces of every T5 vocabulary
MASK = "<extra_id_0>"  # stands for a hidden piece in training


def train_tokenizer(captions: list[str], pieces: int) -> Tokenizer:
    """Unigram tokenizer in T5's form (`<pad>` 0, `</s>` 1, `<unk>` 2, `</s>` at the end), with two differences.

    A character that no caption contains becomes its UTF-8 bytes instead of `<unk>`, so that no text is lost. Upper case
    is folded, because it carries no meaning in captions. `<extra_id_0>` is the mask of the training.
    """
    space = {"replacement": "▁", "prepend_scheme": "always", "split": True}
    words = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**space), pre_tokenizers.Punctuation()]
    )
    folded = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner = Tokenizer(models.Unigram())
    learner.normalizer, learner.pre_tokenizer = folded, words
    visible = [chr(i) for i in range(33, 127)]
    trainer = trainers.UnigramTrainer(
        vocab_size=pieces, initial_alphabet=visible, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    learner.train_from_iterator(captions, trainer)
    # Single letters that no caption needs get scores that differ from run to run, so all of them get the same score.
    learned = {name: round(score, 4) for name, score in json.loads(learner.to_str())["model"]["vocab"][1:]}
    lowest = min(learned.values())
    learned |= {letter: lowest for letter in visible if learned[letter] < lowest + 0.1}
    learned = sorted(learned.items(), key=lambda pair: (-pair[1], pair[0]))
    known = [(name, 0.0) for name in ("<pad>", "</s>", "<unk>")] + [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    tokenizer = Tokenizer(models.Unigram([*known, *learned, (MASK, 0.0)], unk_id=UNKNOWN, byte_fallback=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = folded, words
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(**space)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", END)]
    )
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>", MASK])
    return tokenizer


def embeddings_from_counts(tokenizer: Tokenizer, captions: list[str], width: int, reach: int = 3) -> Tensor:
    """Start vectors of the pieces, [vocabulary, width], of unit mean square, similar for similar neighbours.

    PPMI(a, b) = max(0, log p(a, b) / (p(a) p(b)^0.75)) over pieces at most `reach` apart, then its `width` largest
    singular directions, weighted by the root of the singular value. Pieces that do not occur get random vectors.
    """
    size = tokenizer.get_vocab_size()
    count = np.zeros((size, size))
    for encoding in tokenizer.encode_batch(captions, add_special_tokens=False):
        ids = encoding.ids
        for apart in range(1, reach + 1):
            np.add.at(count, (ids[:-apart], ids[apart:]), 1)
    count += count.T
    share = count.sum(1) / count.sum()
    expected = np.outer(share, share**0.75 / (share**0.75).sum())
    ratio = np.divide(count / count.sum(), expected, out=np.ones_like(count), where=count > 0)
    left, strength, _ = torch.svd_lowrank(torch.from_numpy(np.log(np.maximum(ratio, 1))).float(), width, niter=3)
    vectors = left * strength.sqrt()
    unseen = vectors.norm(dim=1) < 1e-4
    vectors[unseen] = torch.randn(int(unseen.sum()), vectors.shape[1])
    start = torch.zeros(size, width)
    start[:, : vectors.shape[1]] = vectors
    return F.normalize(start, dim=1) * width**0.5


def embeddings_from_teacher(tokenizer: Tokenizer, teacher: Teacher, view: View) -> Tensor:
    """Start vectors of the pieces, [vocabulary, width], of unit mean square: the teacher's vector of each piece.

    Relative to the mean of the pieces, along the axes of the captions, since most pieces are words and not captions.
    """
    names = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    vectors = teacher.teach([name.replace("▁", " ").strip() or "." for name in names])
    return View(vectors.mean(0, keepdim=True), view.axes)(vectors) * view.axes.shape[1] ** 0.5

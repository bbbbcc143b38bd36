"""Checks of notebook 08: the loss of a training step, a repaired regulariser, the pattern alone, its correlation."""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import normalize

from minigen.course.check.verdict import UNANSWERED, Verdict, as_float, stopped
from minigen.lm import AudioLM, AudioLMConfig, shift_right
from minigen.loss import cross_entropy
from minigen.patterns import DelayPattern
from minigen.regularizer import similarity_loss

WEIGHT = 0.5
Loss = Callable[..., Tensor]


def step_loss(function: Loss) -> Verdict:
    """function(lm, sequence, memory, mask, drop, weight) must be the loss of a training step: a scalar.

    Cross-entropy of the sequence given the text; where the text is dropped, of the sequence alone, plus weight times
    the similarity loss of the text states and the hidden states without text.
    """
    lm, sequence, memory, mask = _toy_step()
    given = []
    for drop in (False, True):
        answer = _call(function, lm, sequence, memory, mask, drop, WEIGHT)
        if isinstance(answer, Verdict):
            return answer
        if answer.numel() != 1:
            return Verdict(False, f"the shape is {list(answer.shape)}. The loss of a step is one number.")
        given.append(answer)
    right = [_step(lm, sequence, memory, mask, drop) for drop in (False, True)]
    if _equal(given, right):
        return Verdict(True, "with text the cross-entropy alone; without text the regulariser is added to it.")
    for changes, text in STEP_MISTAKES:
        if _equal(given, [_step(lm, sequence, memory, mask, drop, **changes) for drop in (False, True)]):
            return Verdict(False, text)
    with_text, without = (
        "right" if _equal([one], [other]) else "wrong" for one, other in zip(given, right, strict=True)
    )
    return Verdict(False, f"the step with text is {with_text}, the step without text is {without}. Read the comments.")


STEP_MISTAKES = (
    ({"regularise": (True, True)}, "the regulariser is on in the step with text as well. Add it where drop is true."),
    ({"regularise": (True, False)}, "the regulariser is on with text and off without: the other way round."),
    ({"regularise": (False, False)}, "the regulariser is never added. Where drop is true: + weight · similarity_loss."),
    ({"reads": (True, True)}, "the model still reads the text in the step without it. Give memory=None there."),
    ({"reads": (False, False)}, "the model never reads the text. Give memory and mask where drop is false."),
    ({"weight": 1.0}, "the similarity loss is added without its weight."),
    ({"masked": False}, "the padding of the captions takes part in pooling. Give the mask to similarity_loss."),
    ({"shifted": False}, "the model reads the column that it should predict. Shift the sequence right first."),
    ({"entropy": 0.0}, "the cross-entropy is missing in the step without text. Both are added there."),
)  # fmt: skip


def _toy_step() -> tuple[AudioLM, Tensor, Tensor, Tensor]:
    """A small model, a sequence [B, K, S], text states [B, N, D_text] and their mask [B, N]; the same in each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lm = AudioLM(AudioLMConfig(2, 8, width=16, layers=1, heads=2, ffn=32, memory_width=6, delays=(0, 1))).eval()
        memory, codes = torch.randn(4, 5, 6) - 1, torch.randint(8, (4, 2, 6))
        for parameter in lm.parameters():
            parameter.data.mul_(4)  # so that text and order matter in a model that has learnt nothing
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]]).bool()
    return lm, DelayPattern((0, 1)).apply(codes, 8), memory.masked_fill(~mask[..., None], 0), mask


def _step(
    lm: AudioLM, sequence: Tensor, memory: Tensor, mask: Tensor, drop: bool, reads=(True, False),
    regularise=(False, True), weight: float = WEIGHT, masked: bool = True, shifted: bool = True, entropy: float = 1.0,
) -> Tensor:  # fmt: skip
    """Loss of a step as `minigen.train` computes it; the named arguments make typical mistakes."""
    read = shift_right(sequence, lm.config.codebook_size) if shifted else sequence
    text = (memory, mask) if reads[drop] else (None, None)
    hidden = lm.hidden_states(read, *text)
    total = cross_entropy(lm(read, *text), sequence) * (entropy if drop else 1.0)
    if regularise[drop]:
        total = total + weight * similarity_loss(memory, hidden, mask if masked else None)
    return total


def _equal(given: list[Tensor], wanted: list[Tensor]) -> bool:
    return all(abs(a.item() - b.item()) < 1e-4 for a, b in zip(given, wanted, strict=True))


def _call(function: Callable, *arguments) -> Tensor | Verdict:
    """The answer of a reader's function as a tensor, or the verdict on what went wrong."""
    try:
        answer = function(*arguments)
        return UNANSWERED if answer is ... else torch.as_tensor(answer)
    except Exception as error:  # a reader's function may raise anything
        return stopped("the function", error)


BUGS = {  # mistakes of the function to repair, in the order of its lines
    "padding": "the padding of the captions takes part in pooling (set it to −inf before the maximum)",
    "lengths": "the entries are products, not cosines (divide each row by its length)",
    "diagonal": "the diagonal is in the mean (divide the sum by B (B − 1))",
    "text": "the text gets a gradient (detach it)",
}


def repaired(function: Loss) -> Verdict:
    """function(text [B, N, D_text], mask [B, N], audio [B, S, D]) must be the regulariser's loss, max pooled.

    Names each of the four mistakes that is still in it.
    """
    _, _, text, mask = _toy_step()
    audio = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(1))
    words, frames = text.clone().requires_grad_(), audio.clone().requires_grad_()
    answer = _call(function, words, mask, frames)
    if isinstance(answer, Verdict):
        return answer
    if answer.numel() != 1 or not answer.requires_grad:
        return Verdict(False, f"{answer!r} is not a scalar with a gradient. Return the loss as a tensor.")
    answer.backward()
    unmoved = words.grad is None or not words.grad.any()
    if frames.grad is None or not frames.grad.any():
        return Verdict(False, "the audio gets no gradient, so nothing is trained. Detach the text only.")
    for padding, lengths, diagonal in product((False, True), repeat=3):
        if _equal([answer], [_broken(text, mask, audio, padding, lengths, diagonal)]):
            bugs = {"padding": padding, "lengths": lengths, "diagonal": diagonal, "text": not unmoved}
            left = [BUGS[name] for name, there in bugs.items() if there]
            if not left:
                return Verdict(True, "all four are mended: mask, cosines, B (B − 1), no gradient into the text.")
            begun = "" if len(left) < len(BUGS) else "no answer so far: "
            return Verdict(False, f"{begun}{len(left)} of 4 left: {'; '.join(left)}.")
    return Verdict(False, f"{answer.item():.4f} is the loss with none of the four mistakes nor with any of them left.")


def _broken(text: Tensor, mask: Tensor, audio: Tensor, padding: bool, lengths: bool, diagonal: bool) -> Tensor:
    """The loss with the named mistakes."""
    one = text.amax(1) if padding else text.masked_fill(~mask[..., None], -torch.inf).amax(1)  # [B, D_text]
    other = audio.amax(1)  # [B, D]
    if not lengths:
        one, other = normalize(one, dim=-1), normalize(other, dim=-1)
    squared = (one @ one.T - other @ other.T).square()  # [B, B]
    if diagonal:
        return squared.mean()
    return squared.fill_diagonal_(0).sum() / (len(text) * (len(text) - 1))


def pattern(function: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """function(text, audio), similarity matrices [B, B], must be the variance of text − audio off the diagonal."""
    generator = torch.Generator().manual_seed(3)
    rows = normalize(torch.randn(2, 5, 3, generator=generator, dtype=torch.float64), dim=-1)
    text, audio = rows @ rows.mT
    got = _call(function, text.clone(), audio.clone())
    if isinstance(got, Verdict):
        return got
    if got.numel() != 1:
        return Verdict(False, f"the shape is {list(got.shape)}. The loss is one number.")
    off = (text - audio)[~torch.eye(5, dtype=torch.bool)]
    if torch.isclose(got.double(), off.var(correction=0)):
        return Verdict(True, "the level is gone: adding a constant to all cosines of the sounds changes nothing.")
    mistakes = (
        (off.square().mean(), "this is the whole loss, level included. Subtract the mean difference first."),
        (off.mean().square(), "this is the level. The pattern is what remains of the loss without it."),
        ((text - audio).var(correction=0), "the diagonal is in it: five differences of 0 that say nothing."),
        (off.var(), "this divides by the number of pairs less 1. Use the mean, correction=0: level + pattern = loss."),
        (off.std(correction=0), "this is the root of it. No root."),
        (off.abs().mean(), "this is the mean absolute difference. Square."),
    )
    for value, hint in mistakes:
        if torch.isclose(got.double(), value):
            return Verdict(False, hint)
    return Verdict(False, "not the variance of the differences off the diagonal, for the matrices tried.")


def raised(answer: object, least: float = 0.2) -> Verdict:
    """Correlation of the model's cosines with the captions', off the diagonal, after a training of forty steps."""
    if answer is ...:
        return UNANSWERED
    given = as_float(answer)
    if given is None or not -1 <= given <= 1:
        return Verdict(False, f"{answer!r} is no correlation. Give the third value of level_and_pattern, −1 to 1.")
    if given >= least:
        return Verdict(True, f"{given:.2f}: without the level in the loss, the same forty steps move the pattern.")
    return Verdict(False, f"{given:.2f} is below {least:g}. Is your loss used, in steps without text, and is λ large "
                          "enough? The pattern is some twenty times smaller than the whole loss.")  # fmt: skip

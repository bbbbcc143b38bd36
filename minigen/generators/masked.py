"""Masked generation: a clip is made in a few steps, many cells at a time, in any order.

Training hides a share of the cells and learns to restore them. Sampling starts with every cell hidden. Each step
predicts all hidden cells, keeps those with the highest confidence, and hides the rest again:

    step 1  ? ? ? ? ? ?   step 2  ? 7 ? ? 2 ?   step 3  4 7 ? 9 2 ?   step 4  4 7 1 9 2 5

Share of hidden cells (MaskGIT, arXiv 2202.04200, section 3.2): cos(π u / 2). In training u is drawn uniformly from
(0, 1), so that on average 2/π = 0.64 of the cells are hidden. In sampling u = i / S after step i of S:

    hidden after step i of L cells = max(1, min(hidden before - 1, floor(L cos(π/2 · i/S))))          0 after the last

Confidence of a drawn cell (same paper): log p(code) + τ · Gumbel noise, with τ falling linearly to 0. Without the noise
the cells of high confidence, such as silence, are decided first, and the clip stays silent.

Two orders:

    "joint"   all K · T cells are one set (VampNet's coarse model, arXiv 2307.04686)
    "stages"  codebook after codebook, the coarser ones given, the finer ones hidden (MAGNeT, arXiv 2401.04577).
              Self-attention of the stages after the first sees |i - j| ≤ 5 frames, as there.

The loss is the cross-entropy of the hidden cells (of this stage). Unlike the language model, a masked model can fill a
hole from both sides, vary a clip, and continue it backwards.

Sources: MaskGIT; SpecMaskGIT (arXiv 2406.17672) for sound in fewer than 16 steps; MAGNeT; VampNet.
Symbols: B batch · K codebooks · T frames · V codebook size, and the mask · L cells · S steps · τ `noise`.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minigen.engine import distributed
from minigen.engine.errors import MinigenError
from minigen.engine.settings import COUNT, GUIDANCE, check_number
from minigen.generators.denoiser import Denoiser, DenoiserConfig
from minigen.generators.filling import blank, check_known, fill, missing_cells
from minigen.generators.iterate import Guidance, iterate
from minigen.guidance import Condition
from minigen.loss import heads_cross_entropy
from minigen.optim import TrainConfig
from minigen.text import TextEncoder

WINDOW = 5  # frames to either side that the finer stages see
SHORTEST = 50  # frames of the shortest crop in training: one second
NOISE = 4.5  # τ, as in MaskGIT
CLIP_NOISE = 10.0  # τ of whole clips: of 4.5, 10 and 16 it gave mini-masked the highest recall on validation captions
FIRST_STAGE = 0.4  # share of the steps that codebook 0 takes in the order "stages"; the others share the rest


def cosine_counts(steps: int, cells: int) -> list[int]:
    """Number of hidden cells after each of `steps` steps, for `cells` hidden cells at the start; the last is 0.

    Raises:
        MinigenError: no steps, or more steps than cells.
    """
    if not 1 <= steps <= cells:
        raise MinigenError(f"{steps} steps for {cells} cells. Give at least 1 step, and at most as many as cells.")
    counts, hidden = [], torch.tensor([cells])
    for step in range(1, steps):
        hidden = _counts(torch.tensor([cells]), hidden, step / steps)
        counts.append(hidden.item())
    return [*counts, 0]


def mask_jointly(codes: Tensor, rng: np.random.Generator) -> Tensor:
    """Hide a share cos(π u / 2) of all cells of each clip: codes [B, K, T] -> bool [B, K, T], True = hidden."""
    rows, streams, frames = codes.shape
    scores = torch.from_numpy(rng.random((rows, streams * frames)))  # [B, K T]
    return _hide_lowest(scores, rng.random(rows)).view(rows, streams, frames).to(codes.device)


def mask_stage(codes: Tensor, stage: int, rng: np.random.Generator, span: int = 3) -> Tensor:
    """Hide spans of codebook `stage` and all of the finer ones: codes [B, K, T] -> bool [B, K, T], True = hidden.

    The loss of a stage takes its own cells only: `mask_stage(...)[:, stage]`. Spans of `span` frames lie at random
    places and may overlap (MAGNeT, section 3.2, hides spans because neighbouring frames are alike).
    """
    rows, streams, frames = codes.shape
    starts = torch.from_numpy(rng.random((rows, frames)))  # [B, T]: a span may start at any frame
    hidden = torch.zeros(rows, streams, frames, dtype=torch.bool)
    hidden[:, stage] = _hide_spans(starts, rng.random(rows), span)
    hidden[:, stage + 1 :] = True
    return hidden.to(codes.device)


def _hide_lowest(scores: Tensor, draws: np.ndarray) -> Tensor:
    """Hide the share cos(π u / 2) of each row that has the lowest scores, at least one cell: [B, L] -> bool [B, L]."""
    shares = np.cos(np.pi / 2 * draws)
    counts = torch.from_numpy(np.maximum(1, np.floor(shares * scores.shape[1]))).long()  # [B]
    places = scores.argsort(1).argsort(1)  # [B, L]: rank of each cell
    return places < counts[:, None]


def _hide_spans(starts: Tensor, draws: np.ndarray, span: int) -> Tensor:
    """Hide spans at the places with the lowest scores until the share cos(π u / 2) of a row is reached."""
    rows, frames = starts.shape
    hidden = torch.zeros(rows, frames, dtype=torch.bool)
    for row, order in enumerate(starts.argsort(1)):
        wanted = max(1, math.floor(frames * math.cos(math.pi / 2 * draws[row])))
        for start in order.tolist():
            if hidden[row].sum() >= wanted:
                break
            hidden[row, start : start + span] = True
    return hidden


@dataclass(frozen=True)
class MaskSampler:
    """Sampling of the module, for `iterate`. States are codes [B, K, T] in which `mask` marks hidden cells.

    Attributes:
        mask: V, the mark of a hidden cell.
        order: "joint" or "stages".
        temperature: divides the logits of each draw; 0 takes the most likely code.
        noise: τ at the first step; it falls linearly to 0.
        span: in "stages", number of frames that are decided together, by their highest confidence.

    Raises:
        MinigenError: an unknown order, a negative temperature or noise, a span below 1.
    """

    mask: int = 1024
    order: str = "joint"
    temperature: float = 1.0
    noise: float = NOISE
    span: int = 1

    def __post_init__(self):
        if self.order not in ("joint", "stages"):
            raise MinigenError(f'order is {self.order!r}. Choose "joint" or "stages".')
        if not (0 <= self.temperature < math.inf and 0 <= self.noise < math.inf):
            raise MinigenError(f"temperature {self.temperature} and noise {self.noise} are 0 or more.")
        if self.span < 1:
            raise MinigenError(f"span is {self.span}. Give 1 or more frames.")

    def start(self, known: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Give the first state: the known cells, and `mask` at all others."""
        return known.clone()

    def times(self, steps: int, known: Tensor) -> list[float]:
        """List the ends of the steps: 0 … 1 in "joint"; k … k + 1 for codebook k in "stages".

        Raises:
            MinigenError: fewer steps than codebooks in "stages".
        """
        if self.order == "joint":
            return [step / steps for step in range(steps + 1)]
        times = [0.0]
        for stage, count in enumerate(stage_steps(steps, known.shape[1])):
            times += [stage + step / count for step in range(1, count + 1)]
        return times

    def noise_level(self, time: float) -> None:
        """Give None: the model sees the number of hidden cells, which is the noise level."""
        return None

    def attend(self, state: Tensor, time: float) -> Tensor | None:
        """Give the window of the finer stages, bool [T, T]; None for joint masks and codebook 0."""
        return None if self.order == "joint" or time < 1 else window(state.shape[-1], state.device)

    def step(
        self, state: Tensor, known: Tensor, t: float, s: float, predicted: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Draw the hidden cells, and hide those with the lowest confidence again.

        Args:
            state: [B, K, T].
            known: [B, K, T], the cells that were given.
            t: time before the step, from `times`.
            s: time after it.
            predicted: logits [B, K, T, V].
            generator: source of chance.
        """
        rows, stage = _cells(self.order, t, state.shape[1])
        part, logits = state[:, rows].flatten(1), predicted[:, rows].flatten(1, 2)  # [B, L'], [B, L', V]
        made = (known[:, rows] == self.mask).flatten(1)  # [B, L']: cells that this order makes here
        drawn, confidence = self._draw(part, logits, t - stage, s - stage, generator)
        if s - stage < 1:
            counts = _counts(made.sum(1), (part == self.mask).sum(1), s - stage)  # [B]
            drawn = torch.where(_least_sure(confidence, counts, self.span), self.mask, drawn)
        state = state.clone()
        state[:, rows] = drawn.unflatten(1, (-1, state.shape[2]))
        return state

    def _draw(self, part: Tensor, logits: Tensor, t: float, s: float, generator) -> tuple[Tensor, Tensor]:
        """Draw the hidden cells of [B, L']; confidence [B, L'] is infinite where a cell was not hidden."""
        hidden = part == self.mask
        if self.temperature == 0:
            probabilities, drawn = logits.float().softmax(-1), logits.argmax(-1)
        else:
            probabilities = (logits.float() / self.temperature).softmax(-1)  # [B, L', V]
            drawn = torch.multinomial(probabilities.flatten(0, 1), 1, generator=generator).view(part.shape)
        sure = probabilities.gather(-1, drawn[..., None])[..., 0]  # [B, L']
        confidence = sure.clamp(min=1e-20).log() + self.noise * _falling(t, s) * gumbel(sure, generator)
        return torch.where(hidden, drawn, part), confidence.masked_fill(~hidden, math.inf)


def stage_steps(steps: int, stages: int) -> list[int]:
    """Steps of each stage: two fifths for the first, the rest shared by the others as evenly as possible."""
    if steps < stages:
        raise MinigenError(f"{steps} steps for {stages} stages. Give at least one for each codebook.")
    first = steps if stages == 1 else min(max(1, round(FIRST_STAGE * steps)), steps - stages + 1)
    rest = steps - first
    return [first] + [rest // (stages - 1) + (k < rest % (stages - 1)) for k in range(stages - 1)]


def window(frames: int, device: torch.device | str = "cpu") -> Tensor:
    """Self-attention mask of the finer stages: bool [T, T], True where |i - j| ≤ 5."""
    place = torch.arange(frames, device=device)
    return (place[:, None] - place).abs() <= WINDOW


def gumbel(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Gumbel noise, -log(-log(u)) for uniform u, in the shape of a tensor."""
    uniform = torch.zeros_like(like).uniform_(0, 1, generator=generator)
    return -torch.log((-torch.log(uniform.clamp(1e-20))).clamp(1e-20))


def _cells(order: str, t: float, streams: int) -> tuple[slice, int]:
    """Codebooks that a step works on, and the stage's number (0 in "joint")."""
    if order == "joint":
        return slice(0, streams), 0
    stage = min(int(t), streams - 1)
    return slice(stage, stage + 1), stage


def _falling(t: float, s: float) -> float:
    """Factor of the noise: 1 at the first of S = 1 / (s - t) steps, 0 at the last, linear between."""
    step = s - t  # 1 / S
    return 1 - t / (1 - step) if step < 1 else 0.0


def _counts(made: Tensor, hidden: Tensor, s: float) -> Tensor:
    """Number of cells to hide after a step, for each clip [B]; see the formula of the module."""
    share = torch.cos(torch.tensor(s, dtype=torch.float32) * math.pi / 2)
    return torch.minimum((made * share).floor().long(), hidden - 1).clamp(min=1)


def _least_sure(confidence: Tensor, counts: Tensor, span: int) -> Tensor:
    """Choose the `counts` cells of each row with the lowest confidence: bool [B, L'].

    With a span, neighbouring cells share their highest confidence.
    """
    if span > 1:
        whole = torch.nn.functional.pad(confidence, (0, -confidence.shape[1] % span), value=-math.inf)
        best = whole.unflatten(1, (-1, span)).amax(2, keepdim=True).expand(-1, -1, span).flatten(1)
        confidence = torch.where(confidence.isinf(), confidence, best[:, : confidence.shape[1]])
    places = confidence.argsort(dim=1, stable=True).argsort(dim=1)
    return (places < counts[:, None]) & ~confidence.isinf()


# the generator


class MaskedGenerator:
    """A masked model as a generator of the pipeline (`minigen.generators.base.Generator`), which can also fill holes.

    Args:
        model (Denoiser): of codes, without time.

    Raises:
        MinigenError: a denoiser of another kind.
    """

    name = "masked"

    def __init__(self, model: Denoiser):
        self.model, self.config = model, model.config
        if self.config.kind != "codes" or self.config.timed:
            raise MinigenError(
                f"the model predicts {self.config.kind}, timed: {self.config.timed}. A masked generator needs a model "
                "of codes that is not timed."
            )

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.norm.weight.device

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "MaskedGenerator":
        """Load the model, see `Denoiser.from_pretrained`."""
        return cls(Denoiser.from_pretrained(folder, dtype))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Save the model, see `Denoiser.save_pretrained`."""
        self.model.save_pretrained(folder, dtype)

    def generate(
        self,
        text: Condition,
        frames: int,
        guidance: Guidance = 3.0,
        generator: torch.Generator | None = None,
        progress: bool = False,
        prompt: Tensor | None = None,
        noise: float = CLIP_NOISE,
        **options,
    ) -> Tensor:
        """Codes int64 [B, K, frames]; the options are those of `fill`.

        prompt: codes [B, K, P] or [1, K, P] with P < frames, which become the first P frames.
        noise: see `MaskSampler`; more than `fill` takes, because no neighbours are known that a clip must go on from.
        """
        known = blank(text, frames, self.config, self.device, prompt)  # [B, K, frames]
        return self.fill(text, known, guidance, generator, progress, noise=noise, **options)

    def fill(
        self,
        text: Condition,
        known: Tensor,
        guidance: Guidance = 3.0,
        generator: torch.Generator | None = None,
        progress: bool = False,
        steps: int = 16,
        temperature: float = 1.0,
        noise: float = NOISE,
        order: str = "joint",
        span: int = 1,
    ) -> Tensor:
        """Make the missing cells of codes: int64 [B, K, T], where V marks a missing cell, -> int64 [B, K, T].

        Args:
            text: states of B captions.
            known: the codes; given cells stay as they are.
            guidance: a number, see `minigen.guidance.guide`, or a function of the progress from 0 to 1.
            generator: source of chance on the device of the weights; None: PyTorch's.
            progress: whether to show a bar on stderr.
            steps: number of steps, at most that of the missing cells; of each window where a clip has several
                (`minigen.generators.filling`).
            temperature: see `MaskSampler`.
            noise: see `MaskSampler`.
            order: see `MaskSampler`.
            span: see `MaskSampler`.

        Raises:
            MinigenError: codes of another shape or outside 0 … V, no steps or too many, options out of range.
        """
        mask = self.config.codebook_size
        check_known(known, self.config, text)
        if not callable(guidance):
            check_number("guidance", guidance, GUIDANCE)
        sampler = MaskSampler(mask, order, temperature, noise, span)
        if cells := missing_cells(known, mask):
            check_number("steps", steps, COUNT)
            cosine_counts(steps, cells)  # refuses more steps than cells

        def make(part: Tensor, bar: bool) -> Tensor:
            # The last window may have few cells. The order "stages" needs a step for each codebook.
            own = min(steps, max(missing_cells(part, mask), part.shape[1]))
            texts = text.memory, text.memory_mask
            return iterate(self.model, sampler, part, *texts, own, guidance, generator, bar).state

        return fill(known, mask, make, progress)


# training


class MaskedObjective:
    """Cross-entropy of hidden cells, as an objective of `minigen.train`.

    The first half of a batch is hidden jointly, the second half by stages, each row at a stage of its own. Every batch
    is a crop of `SHORTEST` frames or more, so that the model learns clips of any length. The text of the whole batch is
    left out with probability `text_dropout`, as for the language model.

    Args:
        sizes (DenoiserConfig): sizes of the model that is trained.
        encoder (TextEncoder): the frozen text encoder.
        config (TrainConfig): text_dropout.
    """

    generator = "masked"
    same_shapes = False  # crops have other lengths in every step

    def __init__(self, sizes: DenoiserConfig, encoder: TextEncoder, config: TrainConfig):
        self.encoder, self.config, self.mask = encoder, config, sizes.codebook_size

    def batch(
        self, codes: Tensor, captions: list[str], rng: np.random.Generator, drop: bool | None = None
    ) -> dict[str, Tensor]:
        """Hide cells, crop and encode the text; validation (`drop` given) hides the same way, without cropping."""
        if drop is None:
            drop = rng.random() < self.config.text_dropout
            codes = crop(codes, rng)  # [B, K, T']
        hidden, stages = hide(codes, rng)  # [B, K, T'], [B]
        target = torch.where(hidden & counted(stages, codes.shape[1])[..., None], codes, self.mask)  # [B, K, T']
        batch = {"state": torch.where(hidden, self.mask, codes), "target": target, "stages": stages}
        if not drop:
            batch["memory"], batch["memory_mask"] = self.encoder(captions)  # [B, N, M], [B, N]
        return batch

    def loss(
        self,
        model: Denoiser,
        state: Tensor,
        target: Tensor,
        stages: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy of the hidden cells: state and target [B, K, T] (V in target: not counted).

        Clips have different numbers of hidden cells, so the mean is taken over the cells of all processes.
        """
        frames = state.shape[-1]
        everywhere = torch.ones(frames, frames, dtype=torch.bool, device=state.device)
        fine = (stages > 0)[:, None, None, None]  # [B, 1, 1, 1]
        attend = torch.where(fine, window(frames, state.device), everywhere)  # [B, 1, T, T]
        hidden = model.hidden_states(state, memory, memory_mask, attend=attend)  # [B, T, D]
        cells = distributed.average((target < self.mask).sum())
        entropy = heads_cross_entropy(hidden, model.heads, target, cells)
        return entropy, {"loss": entropy}


def crop(codes: Tensor, rng: np.random.Generator) -> Tensor:
    """Cut the same stretch out of all clips, [B, K, T] -> [B, K, T'].

    Half of the batches stay whole; for the others T' is drawn from SHORTEST … T.
    """
    frames = codes.shape[-1]
    if frames <= SHORTEST or rng.random() < 0.5:
        return codes
    length = int(rng.integers(SHORTEST, frames + 1))
    start = int(rng.integers(0, frames - length + 1))
    return codes[..., start : start + length]


def hide(codes: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Hide cells of a batch: bool [B, K, T], and the stage of each row [B], -1 for the rows that are hidden jointly."""
    joint = (len(codes) + 1) // 2
    stages = torch.full((len(codes),), -1, device=codes.device)
    parts = [mask_jointly(codes[:joint], rng)]
    for row in range(joint, len(codes)):
        stages[row] = int(rng.integers(codes.shape[1]))
        parts.append(mask_stage(codes[row : row + 1], int(stages[row]), rng))
    return torch.cat(parts), stages


def counted(stages: Tensor, streams: int) -> Tensor:
    """Codebooks whose hidden cells the loss counts: bool [B, K]; all of a joint row, one of a staged row."""
    return (stages[:, None] < 0) | (stages[:, None] == torch.arange(streams, device=stages.device))

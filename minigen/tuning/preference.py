"""Direct preference optimisation (DPO): a language model learns which of two clips of one caption is preferred.

    caption x, clips y_w (chosen) and y_l (rejected) --pattern--> sequences [2 B, K, S]
        policy (trained)    --> log π(y_w | x), log π(y_l | x)      --.
        reference (frozen)  --> log ref(y_w | x), log ref(y_l | x)  --+--> preference_loss

    log p(y | x) = Σ log softmax(logits_ks)[code_ks]                 over the pattern's real cells (k, s)
    margin = β [(log π(y_w) - log ref(y_w)) - (log π(y_l) - log ref(y_l))]
    loss = -log σ(margin)                                            ∂loss / ∂margin = -(1 - σ(margin))

The reference is the model before the tuning. At the start the policy equals it and the loss is log 2. The gradient
raises the chosen clip's likelihood and lowers the rejected one's, most where the margin is still small. A larger β
keeps the policy closer to the reference. An autoregressive model gives log p exactly; diffusion models need a bound.

The loss is Rafailov et al., "Direct Preference Optimization" (arXiv 2305.18290), equation 7. Tango 2 (arXiv 2404.09956)
tunes a text-to-audio model with it; its pairs are ranked by the CLAP score, as in `minigen.tuning.pairs`.

Symbols: B pairs · K codebooks · T frames · S columns · V codebook size · π policy · σ logistic function
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.corpus.token_cache import TokenSet
from minigen.engine.errors import MinigenError
from minigen.lm import AudioLM, AudioLMConfig, shift_right
from minigen.loss import heads_cross_entropy
from minigen.patterns import DelayPattern
from minigen.text import TextEncoder

BETA = 0.1  # the value of the DPO paper


def preference_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float = BETA
) -> Tensor:
    """Mean DPO loss over pairs of clips.

    Args:
        chosen (Tensor): [B], log-likelihoods in nats of the preferred clips under the policy.
        rejected (Tensor): [B], those of the other clips.
        ref_chosen (Tensor): [B], log-likelihoods of the preferred clips under the frozen reference.
        ref_rejected (Tensor): [B], those of the other clips.
        beta (float): β, above 0.

    Returns:
        A scalar; log 2 where the policy is the reference.

    Raises:
        MinigenError: shapes that differ, or a beta that is not above 0.
    """
    shapes = [list(each.shape) for each in (chosen, rejected, ref_chosen, ref_rejected)]
    if shapes.count(shapes[0]) < 4:
        raise MinigenError(f"log-likelihoods of shapes {shapes}. Give one of each kind for each pair.")
    if not beta > 0:
        raise MinigenError(f"beta is {beta}. Give a number above 0; {BETA} is usual.")
    margin = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))  # [B]
    return -F.logsigmoid(margin).mean()


def log_likelihood(lm: AudioLM, sequence: Tensor, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Exact log-likelihood of each sequence in nats: the sum over its real codes.

    Args:
        lm (AudioLM): the model.
        sequence (Tensor): int64 [B, K, S], codes under the delay pattern; V where there is no code.
        memory (Tensor or None): text states [B, N, M].
        mask (Tensor or None): bool [B, N], True = a token.

    Returns:
        [B], float32 or finer.
    """
    hidden = lm.hidden_states(shift_right(sequence, lm.config.codebook_size), memory, mask)  # [B, S, D]
    one = torch.ones((), device=hidden.device)  # the sum over the codes is wanted, not the mean
    clips = zip(hidden.split(1), sequence.split(1), strict=True)
    return -torch.stack([heads_cross_entropy(states, lm.heads, codes, one) for states, codes in clips])


class PreferenceObjective:
    """The DPO loss as the objective of a training (`minigen.train.Objective`).

    A row of the token set is a pair (`pair_tokens`): the codes of the chosen clip, then those of the rejected one.

    Args:
        sizes (AudioLMConfig): of the model that is trained.
        encoder (TextEncoder): the frozen text encoder.
        reference (AudioLM): the model before the tuning, on the device of the training. Under LoRA it is
            `minigen.tuning.lora.without_adapter(lm)`, which takes no memory of its own.
        beta (float): β.
    """

    generator = "language_model"
    same_shapes = True

    def __init__(self, sizes: AudioLMConfig, encoder: TextEncoder, reference: AudioLM, beta: float = BETA):
        self.encoder, self.beta = encoder, beta
        self.reference = reference.eval().requires_grad_(False)
        self.pattern, self.fill = DelayPattern(sizes.delays), sizes.codebook_size

    def batch(
        self, codes: Tensor, captions: list[str], rng: np.random.Generator, drop: bool | None = None
    ) -> dict[str, Tensor]:
        """Sequences of both clips, each [B, K, S], and the text. codes: int64 [B, K, 2 T].

        In training the text is never dropped.
        """
        clips = codes.chunk(2, dim=-1)  # each [B, K, T]
        chosen, rejected = (self.pattern.apply(clip, self.fill) for clip in clips)  # each [B, K, S]
        batch = {"chosen": chosen, "rejected": rejected}
        if not drop:
            batch["memory"], batch["mask"] = self.encoder(captions)  # [B, N, M], [B, N]
        return batch

    def loss(
        self,
        model: AudioLM,
        chosen: Tensor,
        rejected: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean DPO loss of the pairs."""
        sequence = torch.cat([chosen, rejected])  # [2 B, K, S]
        if memory is not None and mask is not None:
            memory, mask = torch.cat([memory, memory]), torch.cat([mask, mask])  # [2 B, N, M], [2 B, N]
        policy = log_likelihood(model, sequence, memory, mask).chunk(2)  # chosen [B], rejected [B]
        with torch.no_grad():
            reference = log_likelihood(self.reference, sequence, memory, mask).chunk(2)
        loss = preference_loss(*policy, *reference, self.beta)
        return loss, {"loss": loss}


def pair_tokens(chosen: Tensor, rejected: Tensor, captions: list[str], frame_rate: float, size: int) -> TokenSet:
    """Pairs of clips as a token set whose rows hold both clips, one after the other: codes [n, K, 2 T].

    Args:
        chosen (Tensor): int64 [n, K, T], codes of the preferred clips.
        rejected (Tensor): int64 [n, K, T], codes of the other clips.
        captions (list of str): n captions.
        frame_rate (float): codec frames a second.
        size (int): V.
    """
    codes = torch.cat([chosen, rejected], dim=-1).cpu().numpy().astype(np.int16)  # [n, K, 2 T]
    nothing: list = [() for _ in captions]
    return TokenSet(codes, list(captions), nothing, [[] for _ in captions], frame_rate, size)

"""Classifier-free guidance: between the language model's logits and the sampler.

The same network has learnt p(audio | text) and, by dropping the text in some training steps, p(audio). At every step of
sampling it is run with and without the text, and the difference, which is what the text changed, is made larger:

    uncond ----------> cond ----------------------------> logits
    scale 0            scale 1                            scale 3

Sources: Ho and Salimans (arXiv 2207.12598), AudioGen (arXiv 2209.15352), MusicGen-Style (arXiv 2407.12563).
"""

from torch import Tensor


def guide(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: move away from what the model would say without the text.

        logits = uncond + scale * (cond - uncond)

    scale 0 ignores the text, 1 is plain conditional sampling, 3 is AudioGen's default.
    cond, uncond: [B, K, V] logits of the same step. Source: AudioGen (arXiv 2209.15352), section 3.2.
    """
    return uncond + scale * (cond - uncond)


def guide_two(both: Tensor, style: Tensor, uncond: Tensor, scale: float, style_scale: float) -> Tensor:
    """Guidance by two conditions, text and a style excerpt, so that neither drowns the other.

        logits = uncond + scale * (style + style_scale * (both - style) - uncond)

    The inner step goes from the style alone towards style and text together: style_scale 0 ignores the text, 1 is
    `guide` with both conditions, more lets the text speak up against the style. The outer step is `guide` again.
    both, style, uncond: [B, K, V] logits of the same step with text and style, with style only, with neither.
    Source: MusicGen-Style (arXiv 2407.12563), double classifier-free guidance; scale is its alpha, style_scale its
    beta (3 and 6 in its examples that mix text and style).
    """
    return guide(guide(both, style, style_scale), uncond, scale)

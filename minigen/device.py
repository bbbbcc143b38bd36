"""What the processor at hand does well."""

import torch


def fast_bf16() -> bool:
    """Whether this processor (or GPU) multiplies bfloat16 natively; elsewhere it would be slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()

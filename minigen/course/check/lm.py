"""Checks of notebook 05: attention with a window, a key-value cache, writing a sequence, a test for leaks."""

from collections.abc import Callable

import torch
from torch import Tensor

from minigen.course.check.verdict import Verdict, call

WINDOWS = (3, 1, 20)  # inside, itself alone, wider than the sequence
SHAPE = (2, 3, 7, 4)  # B, heads, S, d
VOCABULARY = 5  # of the model that writes


def _queries_keys_values() -> Tensor:
    """Random q, k and v, stacked: [3, B, heads, S, d]."""
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))


def _attention(q: Tensor, k: Tensor, v: Tensor, read: Tensor, scale: float = 0.5, dim: int = -1) -> Tensor:
    """Attention of [.., S, d] to the columns where `read` [S, S] is True. scale: 1 / sqrt(d), with d = 4."""
    return (q @ k.mT * scale).masked_fill(~read, -torch.inf).softmax(dim).nan_to_num() @ v


def _back() -> Tensor:
    """S - n, [S, S]."""
    columns = torch.arange(SHAPE[2])
    return columns[:, None] - columns


# attention with a window


def window_attention(function: Callable[[Tensor, Tensor, Tensor, int], object]) -> Verdict:
    """Column s reads s - width + 1 ... s: function(q, k, v, width) -> [B, heads, S, d]."""
    q, k, v = _queries_keys_values()
    back = _back()
    for width in WINDOWS:
        value, failed = call(f"window_attention(q, k, v, {width})", function, q.clone(), k.clone(), v.clone(), width)
        if failed:
            return failed
        window = (back >= 0) & (back < width)
        if _equal(value, _attention(q, k, v, window)):
            continue
        mistakes = (
            (_attention(q, k, v, back < width), "the future is read. Only columns n ≤ s may be."),
            (
                _attention(q, k, v, back >= 0),
                "all of the past is read. Leave out `width` columns back and more.",
            ),
            (_attention(q, k, v, back.abs() < width), "the window reaches to both sides: it reads the future."),
            (
                _attention(q, k, v, (back >= 0) & (back <= width)),
                "one too wide: s itself is one of `width`.",
            ),
            (_attention(q, k, v, (back > 0) & (back < width)), "the column itself is left out."),
            (_attention(q, k, v, window, scale=1.0), "the scores are not divided by √d."),
            (_attention(q, k, v, window, scale=0.25), "the scores are divided by d. Divide by √d."),
            (_attention(q, k, v, window, dim=-2), "the softmax runs over the columns that ask. Use dim −1, the keys."),
            (_attention(q, k, v, ~window), "the mask is the wrong way round: True may be read."),
            ((q @ k.mT / 2).softmax(-1).masked_fill(~window, 0) @ v, "the weights are masked after the softmax."),
        )
        return _diagnose(value, mistakes, f"width {width}: ", "Scores, mask, softmax, values: compare each step.")
    return Verdict(True, "0 ≤ s − n < width before the softmax, 1/√d, and the weights of each column add up to 1.")


# a cache


def attend_next(function: Callable[[Tensor, Tensor, Tensor, dict], object]) -> Verdict:
    """Attention with a cache: function(q, k, v, past), each [B, heads, 1, d], once for each column, in order."""
    q, k, v = _queries_keys_values()
    past: dict = {}
    columns = []
    for s in range(SHAPE[2]):
        one = (part[:, :, s : s + 1].clone() for part in (q, k, v))
        value, failed = call(f"attend_next for column {s}", function, *one, past)
        if failed:
            return failed
        if tuple(getattr(value, "shape", ())) != (*SHAPE[:2], 1, SHAPE[3]):
            found = list(getattr(value, "shape", [])) or type(value).__name__
            return Verdict(False, f"column {s} gives {found}, not [B, heads, 1, d] = {[*SHAPE[:2], 1, SHAPE[3]]}.")
        columns.append(torch.as_tensor(value))
    return _cache_verdict(torch.cat(columns, dim=2), q, k, v)


def _cache_verdict(given: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Verdict:
    back = _back()
    if _equal(given, _attention(q, k, v, back >= 0)):
        return Verdict(True, "the same as causal attention over all columns, with one new column a step.")
    mistakes = (
        (_attention(q, k, v, back == 0), "each column reads itself only. Keep the keys and values of earlier ones."),
        (_attention(q, k, v, (back >= 0) & (back < 2)), "only the last column is kept. Keep all of them."),
        (_attention(q, k, v, back > 0), "a column does not read itself: store its key and value before attending."),
        (_attention(q, k, v, (back == 0) | (back == _back()[:, :1])), "only the first column is kept."),
        (_attention(q, k, v, back >= 0, scale=1.0), "the scores are not divided by √d."),
    )
    first = next(s for s in range(SHAPE[2]) if not _equal(given[:, :, s], _attention(q, k, v, back >= 0)[:, :, s]))
    return _diagnose(given, mistakes, "", f"columns before {first} are right, column {first} is not.")


# writing


def write_on(function: Callable) -> Verdict:
    """Draw columns one after the other: function(model, start, steps, temperature, generator) -> [B, K, S + steps]."""
    start = torch.randint(VOCABULARY, (2, 3, 2), generator=torch.Generator().manual_seed(0))
    value, failed = _written(function, _counting, start, 4, 1.0)
    if failed:
        return failed
    if not torch.is_tensor(value) or value.shape != (2, 3, 6):
        found = list(value.shape) if torch.is_tensor(value) else type(value).__name__
        return Verdict(False, f"{found} comes back for start [2, 3, 2] and 4 steps, not [2, 3, 6].")
    if not torch.equal(value[:, :, :2], start):
        return Verdict(False, "the columns of `start` have changed. Append the new ones behind them.")
    wanted = (start[:, :, -1:] + torch.arange(1, 5)) % VOCABULARY
    if not torch.equal(value[:, :, 2:], wanted):
        return Verdict(False, _writing_mistake(value[:, :, 2:], start))
    return _temperature_verdict(function)


def _written(function: Callable, model: Callable, start: Tensor, steps: int, temperature: float):
    generator = torch.Generator().manual_seed(0)
    return call("write_on(...)", function, model, start.clone(), steps, temperature, generator)


def _counting(sequence: Tensor) -> Tensor:
    """Logits [B, K, S, V] that are certain: the code after c is c + 1, modulo V."""
    return 100.0 * torch.nn.functional.one_hot((sequence + 1) % VOCABULARY, VOCABULARY)


def _writing_mistake(new: Tensor, start: Tensor) -> str:
    if torch.equal(new, ((start[:, :, -1:] + 1) % VOCABULARY).expand_as(new)):
        return "all new columns follow from `start` alone. Each new column must be read before the next one is drawn."
    if torch.equal(new[:, :, 0], (start[:, :, 0] + 1) % VOCABULARY):
        return "the first column's logits are used. Those of the last column predict the next one."
    if not torch.equal(new[:, 0] - new[:, 1], (start[:, 0] - start[:, 1])[:, -1:].expand_as(new[:, 0])):
        return "the codebooks are mixed up: keep [B, K] in order when you reshape."
    return "the model counts up by one each column, and what you wrote does not. Which logits do you draw from?"


def _temperature_verdict(function: Callable) -> Verdict:
    """Whether the draws follow softmax(logits / temperature), by 4000 draws."""
    logits = torch.tensor([2.0, 1.0, 0.0, 0.0, -1.0])
    start = torch.zeros(2000, 2, 1, dtype=torch.int64)

    def model(sequence: Tensor) -> Tensor:
        return logits.expand(*sequence.shape, -1)

    for temperature in (1.0, 0.5):
        value, failed = _written(function, model, start, 1, temperature)
        if failed:
            return failed
        shares = torch.bincount(torch.as_tensor(value)[:, :, 1].flatten(), minlength=5) / 4000
        if (shares - (logits / temperature).softmax(-1)).abs().max() > 0.04:
            return Verdict(False, _temperature_mistake(shares, logits, temperature))
    return Verdict(True, "each column is drawn from softmax(logits / temperature) of the last column, and read again.")


def _temperature_mistake(shares: Tensor, logits: Tensor, temperature: float) -> str:
    if shares.max() > 0.999:
        return "the most probable code is always taken. Draw from the probabilities."
    for wrong, text in (
        (logits * temperature, "the logits are multiplied by the temperature. Divide."),
        (logits, "the temperature has no effect."),
        (torch.zeros(5), "all codes come equally often. Draw from the softmax."),
    ):
        if (shares - wrong.softmax(-1)).abs().max() < 0.04:
            return f"temperature {temperature:g}: {text}"
    found = [round(share, 2) for share in shares.tolist()]
    return f"temperature {temperature:g}: codes come with the shares {found}. Is it softmax(logits / temperature)?"


# a leak


def sees_the_future(function: Callable[[Callable], object]) -> Verdict:
    """A test for leaks: function(model) is True if any logit depends on a later column. Tried on five models."""
    for model, leaks, text in _models():
        value, failed = call("sees_the_future(model)", function, model)
        if failed:
            return failed
        if not isinstance(value, bool):
            return Verdict(False, f"{value!r} comes back. Return True or False (`.item()` or `bool(...)`).")
        if value != leaks:
            return Verdict(False, text)
    return Verdict(True, "all five models are judged rightly, also the leak in one codebook.")


def _models() -> list[tuple[Callable[[Tensor], Tensor], bool, str]]:
    """Models [B, K, S] -> [B, K, S, 10], whether they leak, and what a wrong judgement of them means."""
    past = torch.ones(6, 6).tril()
    later, far, one = past.clone(), past.clone(), past.clone()
    later[:, 1:] += torch.eye(6)[:, :-1]  # column s reads s + 1
    far[0, 5] = 1.0  # only the first column reads the last one

    def model(reads: Tensor, leaky: Tensor | None = None, batch: bool = False) -> Callable[[Tensor], Tensor]:
        weights = torch.stack([reads, reads, reads if leaky is None else leaky])  # [K, S, S]

        def run(sequence: Tensor) -> Tensor:
            codes = torch.nn.functional.one_hot(sequence, 10).float()  # [B, K, S, V]
            logits = torch.einsum("kst,bktv->bksv", weights, codes)
            return logits + codes.mean(0).cumsum(1) if batch else logits

        return run

    return [
        (model(one), False, "a causal model is called leaky. Compare only the logits before the column you change."),
        (
            model(later),
            True,
            "a model that reads one column ahead passes. Change a column, look before it.",
        ),
        (model(past, later), True, "a leak in one codebook passes. Change and compare every codebook."),
        (model(far), True, "a leak from the last column to the first one passes. Change every column, one at a time."),
        (
            model(past, batch=True),
            False,
            "a causal model whose clips depend on each other is called leaky.",
        ),
    ]


def _equal(value: object, wanted: Tensor) -> bool:
    """Equal up to float32, in any kind of array."""
    try:
        given = torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        return False
    return given.shape == wanted.shape and torch.allclose(given, wanted, atol=1e-5)


def _diagnose(value: object, mistakes, place: str, hint: str) -> Verdict:
    shape = getattr(value, "shape", None)
    if shape is None:
        return Verdict(False, f"{place}{type(value).__name__} comes back, not a tensor.")
    if tuple(shape) != SHAPE:
        return Verdict(False, f"{place}the result has shape {list(shape)}, but {list(SHAPE)} is wanted.")
    for wrong, text in mistakes:
        if _equal(value, wrong):
            return Verdict(False, place + text)
    nan = "NaN comes back. " if torch.as_tensor(value).isnan().any() else ""
    return Verdict(False, f"{place}{nan}{hint}")

"""Pairs of clips for preference tuning: from the model's own samples ranked by CLAP, or from people's answers.

    caption ─► generator: some clips ─► CLAP score of each ─► best and worst        `sampled_pairs` (as in Tango 2)
    answers of a listening test ─► chosen and other clip of each trial ─► codec     `answered_pairs`

Both give a token set whose rows hold the codes of the chosen clip and of the rejected one
(`minigen.tuning.preference.pair_tokens`). A CLAP model ranks at no cost, and a model that is tuned to it may learn what
pleases the judge more than what people hear. So measure with something else, too, and listen.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from minigen.audio import SAMPLE_RATE, AudioError, fit_length, load_audio, resample
from minigen.corpus.token_cache import TokenSet
from minigen.engine.checkpoint import load_checkpoint, save_checkpoint
from minigen.engine.errors import MinigenError
from minigen.evaluation.listening.answers import read_answers
from minigen.evaluation.listening.plan import Plan, clip_file, read_plan
from minigen.evaluation.listening.results import counted_choices
from minigen.generate import TextToAudio, progress_bar
from minigen.guidance import Condition
from minigen.tuning.preference import pair_tokens

AT_ONCE = 32  # clips that are generated together, at one guidance


@torch.no_grad()
def sampled_pairs(
    tta: TextToAudio, judge, captions: list[str], file: str | Path, samples: int = 4, seconds: float = 4.0,
    guidances: Sequence[float] = (1.0, 3.0), seed: int = 0, progress: bool = True, least: float = 0.0,
) -> TokenSet:  # fmt: skip
    """Generate clips for each caption, and pair the one of the highest CLAP score with that of the lowest.

    The clips of a caption are sampled at several strengths of guidance. With guidance the model follows the caption
    better, so the two clips of a pair differ more than those of one strength, and the pairs teach the model without
    guidance what guidance adds.

    A pair whose scores hardly differ is a ranking by chance. `least` leaves such pairs out.

    Args:
        tta (TextToAudio): the pipeline before the tuning.
        judge: CLAP model, see `minigen.evaluation.clap`.
        captions (list of str): at most one pair is made for each.
        file (str or Path): where pairs are stored batch by batch; an interrupted call goes on from there.
        samples (int): clips for each caption at each guidance.
        seconds (float): length of the clips.
        guidances (sequence of float): strengths of guidance; 1 is none.
        seed (int): of the sampling; batch b takes `seed` + b.
        progress (bool): show a bar.
        least (float): smallest difference of the two scores of a pair that is kept. The file holds all pairs.

    Raises:
        MinigenError: fewer than two clips for a caption, a file of other pairs, or no pair whose scores differ by
            `least`.
    """
    if samples * len(guidances) < 2:
        raise MinigenError(f"{samples} clips for each caption. Give two or more: a pair has two.")
    file, size = Path(file), max(1, AT_ONCE // samples)
    identity = repr((captions, samples, seconds, tuple(guidances), seed))
    state: dict = {"identity": identity, "captions": captions, "chosen": [], "rejected": [], "margins": []}
    if file.is_file():
        state = load_checkpoint(file)
        if state["identity"] != identity:
            raise MinigenError(f"{file} holds pairs of other captions or settings. Name another folder.")
    starts = range(0, len(captions), size)
    for batch in progress_bar(range(len(state["chosen"]), len(starts)), "pairs", progress):
        part = captions[starts[batch] : starts[batch] + size]
        each = [
            _sample(tta, part, samples, seconds, guidance, seed + batch)  # [n, samples, K, T]
            for guidance in guidances
        ]
        codes = torch.cat(each, dim=1)  # [n, samples at all guidances, K, T]
        scores = _clap_scores(tta, judge, codes.flatten(0, 1), part).view(codes.shape[:2])
        rows = torch.arange(len(part))
        state["chosen"].append(codes[rows, scores.argmax(1)])  # [n, K, T]
        state["rejected"].append(codes[rows, scores.argmin(1)])
        state["margins"].append(scores.amax(1) - scores.amin(1))  # [n]
        save_checkpoint(file, state)
    return stored_pairs(file, tta, least)


def stored_pairs(file: str | Path, tta: TextToAudio, least: float = 0.0) -> TokenSet:
    """The pairs that `sampled_pairs` has stored, whatever their captions and settings; an interrupted call's too.

    Raises:
        MinigenError: no such file, another kind of file, or no pair whose scores differ by `least`.
    """
    if not Path(file).is_file():
        raise MinigenError(f"{file} does not exist. Name the pairs.safetensors of a run of minigen prefer --by clap.")
    state = load_checkpoint(file)
    names = ("chosen", "rejected", "margins")
    if not all(state.get(name) for name in ("captions", *names)):
        raise MinigenError(f"{file} holds no pairs. Name the pairs.safetensors of a run of minigen prefer --by clap.")
    chosen, rejected, margins = (torch.cat(state[name]) for name in names)
    kept = (margins >= least).nonzero()[:, 0].tolist()
    if not kept:
        most = f"the largest difference is {float(margins.max()):.3f}"
        raise MinigenError(f"the two clips of no pair differ by {least:g} in CLAP score; {most}. Ask for less.")
    return _as_tokens(tta, chosen[kept], rejected[kept], [state["captions"][row] for row in kept])


def _sample(tta: TextToAudio, captions: list[str], samples: int, seconds: float, guidance: float, seed: int) -> Tensor:
    """Codes [n, samples, K, T] on the CPU: `samples` clips for each caption."""
    device, frames = tta.generator.device, max(1, round(seconds * tta.codec.frame_rate))
    states, mask = tta.encoder([caption for caption in captions for _ in range(samples)])  # [n * samples, N, M]
    chance = torch.Generator(device).manual_seed(seed)
    text = Condition(states.to(device), mask.to(device))
    return tta.generator.generate(text, frames, guidance, chance).cpu().unflatten(0, (len(captions), samples))


def _clap_scores(tta: TextToAudio, judge, codes: Tensor, captions: list[str]) -> Tensor:
    """Cosine of each sound with its caption, [n]; the captions in their order, each for as many clips in a row."""
    wavs = torch.cat([tta.codec.decode(part) for part in codes.split(8)])
    audio = judge.embed_audio(resample(wavs, tta.codec.sample_rate, SAMPLE_RATE))  # [n, E]
    text = judge.embed_text(captions).repeat_interleave(len(codes) // len(captions), 0)  # [n, E]
    return (audio * text).sum(-1).cpu()


def answered_pairs(places: Iterable[str | Path], tta: TextToAudio, seconds: float = 4.0) -> TokenSet:
    """Pairs from answers of `minigen listen`: the preferred clip of each trial, and the other one.

    Listeners who fail an attention check are left out, as in the report of the test. Only the first answer of a
    listener to a trial counts. Two listeners who disagree give two opposite pairs.

    Args:
        places (iterable of str or Path): folders of tests, or CSVs of answers in the folder `answers` of a test.
        tta (TextToAudio): the pipeline that is tuned; its codec encodes the clips.
        seconds (float): length of the clips.

    Raises:
        MinigenError: answers without their test beside them, no usable answer, or a clip that is missing.
    """
    captions: list[str] = []
    clips: list[tuple[Tensor, Tensor]] = []
    for place in map(Path, places):
        folder, plan = _test_of(place)
        for chosen, other, caption in _choices(plan, place):
            pair = [_encode(clip_file(folder, name), tta, seconds) for name in (chosen, other)]
            clips.append((pair[0], pair[1]))
            captions.append(caption)
    if not clips:
        raise MinigenError(
            f"no usable answers in {', '.join(map(str, places))}: none, or only of listeners who failed a check. Ask "
            "more people."
        )
    return _as_tokens(tta, torch.cat([one for one, _ in clips]), torch.cat([two for _, two in clips]), captions)


def _test_of(place: Path) -> tuple[Path, Plan]:
    """Folder and plan of the test that answers belong to: the place itself, or a folder around it."""
    for folder in (place, *place.absolute().parents[:2]):
        if folder.is_dir() and (plan := read_plan(folder)):
            return folder, plan
    raise MinigenError(f"{place} lies in no listening test. Name the folder of a test, or a CSV in its answers.")


def _choices(plan: Plan, place: Path) -> list[tuple[str, str, str]]:
    """File of the chosen clip, file of the other one, and caption, for each answer that counts."""
    found = []
    for trial, model in counted_choices(plan, read_answers(place)):
        chosen = trial.models.index(model)
        found.append((trial.files[chosen], trial.files[1 - chosen], trial.caption))
    return found


def _encode(file: Path, tta: TextToAudio, seconds: float) -> Tensor:
    """Codes [1, K, T] of a clip."""
    rate = tta.codec.sample_rate
    try:
        return tta.codec.encode(fit_length(load_audio(file, rate), round(seconds * rate))).cpu()
    except AudioError as error:
        raise MinigenError(f"a clip of the listening test cannot be read: {error}") from error


def _as_tokens(tta: TextToAudio, chosen: Tensor, rejected: Tensor, captions: list[str]) -> TokenSet:
    return pair_tokens(chosen, rejected, captions, tta.codec.frame_rate, tta.codec.codebook_size)

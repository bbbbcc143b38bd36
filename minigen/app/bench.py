"""The benchmark: this library beside `transformers`, with the same weights and the same work, in one table.

    for each row:   ours, theirs, ours, theirs, ...   medians, and the median of the rounds' ratios
    before them:    the speed of the machine, reading memory and multiplying matrices, measured in the same run

Only numbers of the same run are compared; those of another day or machine cannot be. On a machine that others use too,
the ratio of processor time is steadier than the ratio of clock time; the table shows both. The model has random
weights, because speed does not depend on them: 256 wide, 6 layers, 8 heads, 4 codebooks of 1024. If there is a GPU,
everything runs on it; CUDA_VISIBLE_DEVICES="" in the environment selects the processor.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from minigen.audio import save_audio
from minigen.codec import load_codec
from minigen.corpus.clip import Clip
from minigen.corpus.corpus import Corpus, CorpusReport
from minigen.corpus.tokens import tokenize
from minigen.decoding.torch_step import make_decoder
from minigen.display.tables import markdown_table
from minigen.engine import distributed
from minigen.engine.files import write_atomically
from minigen.engine.resources import fast_bf16
from minigen.generate import generate_codes
from minigen.guidance import guide
from minigen.interop import lm_to_musicgen
from minigen.lm import AudioLM, AudioLMConfig, shift_right
from minigen.train import CrossEntropyObjective, TrainConfig, Trainer

GUIDANCE, WORDS = 3.0, 12


@dataclass(frozen=True)
class Sizes:
    """Amount of work that is timed.

    frames: length of a clip; `long` is the length it is compared with. captions: batch sizes of generation. batch:
    clips in a training step. rounds: repetitions. clips, seconds: of the corpus that is tokenised. matrix, megabytes:
    sizes of the machine's own tests.
    """

    model: AudioLMConfig = AudioLMConfig()
    frames: int = 200
    long: int = 1500
    captions: tuple[int, ...] = (1, 8)
    batch: int = 16
    rounds: int = 5
    clips: int = 64
    seconds: float = 4.0
    matrix: int = 1024
    megabytes: int = 256


QUICK = Sizes(frames=40, long=300, batch=4, rounds=3, clips=16)


@dataclass(frozen=True)
class Row:
    """A row of the table. ours, theirs: medians in `unit`. ratio: of clock time. cpu_ratio: of processor time."""

    what: str
    unit: str
    ours: float
    theirs: float | None = None
    ratio: float | None = None
    cpu_ratio: float | None = None
    goal: str = ""
    note: str = ""


def run_bench(folder: str | Path, sizes: Sizes | None = None, threads: int = 1, codec: str | nn.Module = "mini",
              say: Callable[[str], None] = print) -> list[Row]:  # fmt: skip
    """Measure everything, write folder/bench.json and folder/bench.md, and return the rows.

    threads: number of threads in generation, for both libraries; the other rows use PyTorch's setting. say: called with
    the name of each part before it is measured.
    """
    sizes, usual = sizes or Sizes(), torch.get_num_threads()
    torch.manual_seed(0)
    lm = AudioLM(sizes.model).eval().to(distributed.device())
    rows = []
    try:
        say("the machine")
        rows += machine_rows(sizes)
        torch.set_num_threads(threads)
        rows += native_rows()
        for captions in sizes.captions:
            say(f"generation, {captions} caption(s)")
            rows.append(generation_row(lm, captions, sizes))
        say("generation, long clips, memory")
        rows += [length_row(lm, sizes), memory_row(lm, sizes)]
        torch.set_num_threads(usual)
        say("training")
        rows.append(training_row(sizes))
        say("tokenising")
        codec = load_codec(codec) if isinstance(codec, str) else codec
        rows += [tokenising_row(codec.to(distributed.device()), sizes), import_row(sizes)]
    finally:
        torch.set_num_threads(usual)
    about = describe(threads, usual)
    write_atomically(Path(folder) / "bench.md", table(rows, about))
    record = {"machine": about, "sizes": asdict(sizes), "rows": [asdict(row) for row in rows]}
    write_atomically(Path(folder) / "bench.json", json.dumps(record, indent=1) + "\n")
    return rows


def alternate(rounds: int, *jobs: Callable[[], object]) -> list[list[tuple[float, float]]]:
    """Run the jobs in turn, once to warm up and then `rounds` times.

    Returns for each job a list of (seconds, processor seconds), one entry a round.
    """
    times = [[] for _ in jobs]
    for turn in range(rounds + 1):
        for job, found in zip(jobs, times, strict=True):
            began, worked = time.perf_counter(), time.process_time()
            job()
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # a GPU call returns before the work is done
            if turn:
                found.append((time.perf_counter() - began, time.process_time() - worked))
    return times


def compare_times(times: list, per: float = 1.0) -> dict[str, float]:
    """Medians of two alternating jobs, each divided by `per`, and the median ratio of the second to the first."""
    ours, theirs = ([second for second, _ in job] for job in times)
    ratio, cpu = ([b[i] / max(a[i], 1e-9) for a, b in zip(*times, strict=True)] for i in (0, 1))
    middle = statistics.median
    return {
        "ours": middle(ours) / per, "theirs": middle(theirs) / per, "ratio": middle(ratio), "cpu_ratio": middle(cpu)
    }  # fmt: skip


def machine_rows(sizes: Sizes) -> list[Row]:
    """Speed of a sum over memory, and of a matrix product in float32 and, if the machine is fast at it, bfloat16."""
    place, side = distributed.device(), sizes.matrix
    big = torch.ones(sizes.megabytes * 2**18, device=place)
    (read,) = alternate(sizes.rounds, big.sum)
    rows = [Row("machine: memory read", "GB/s", 4e-9 * len(big) / min(read)[0])]
    for kind in (torch.float32, torch.bfloat16)[: 1 + fast_bf16()]:
        a = torch.randn(side, side, device=place).to(kind)
        (spent,) = alternate(sizes.rounds, lambda a=a: a @ a)
        rows.append(Row(f"machine: products in {str(kind)[6:]}", "GFLOP/s", 2e-9 * side**3 / min(spent)[0]))
    return rows


def native_rows() -> list[Row]:
    """Time to load the compiled decoder, which long generations use. No row if it is not used here."""
    if torch.cuda.is_available():
        return []
    began = time.perf_counter()
    try:
        from minigen.decoding.numba_step import NativeDecoder
    except ImportError:
        return []
    lm = AudioLM(AudioLMConfig(width=32, layers=1, heads=1, ffn=32))
    NativeDecoder(lm, lm.start(1, 1)).step(torch.zeros(1, lm.config.num_codebooks, dtype=torch.int64))
    note = "once a process; longer when it is compiled, once ever"
    return [Row("loading the compiled column", "s", time.perf_counter() - began, note=note)]


def generation_row(lm: AudioLM, captions: int, sizes: Sizes) -> Row:
    """Greedy generation with guidance: milliseconds a column, and whether both libraries give the same codes."""
    memory = _text(lm, captions)
    columns, made = sizes.frames + max(lm.config.delays), {}
    theirs = their_generation(lm, memory, columns)

    def keep(name: str, job: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: made.__setitem__(name, job())

    def ours() -> Tensor:
        return generate_codes(lm, memory, None, sizes.frames, GUIDANCE, temperature=0)

    times = alternate(sizes.rounds, keep("ours", ours), keep("theirs", theirs))
    same = torch.equal(made["ours"], made["theirs"])
    goal = ({1: "≥ 5 ×"} if torch.cuda.is_available() else {1: "≥ 4 ×", 8: "≥ 3 ×"}).get(captions, "")
    name = f"generation, {captions} caption{'s' * (captions > 1)}"
    return Row(name, "ms a column", **compare_times(times, columns / 1e3), goal=goal, note=f"same codes: {_yes(same)}")


def _text(lm: AudioLM, captions: int) -> Tensor:
    """Random text states [captions, WORDS, M] on the model's device."""
    return torch.randn(captions, WORDS, lm.config.memory_width).to(lm.norm.weight.device)


def their_generation(lm: AudioLM, memory: Tensor, columns: int) -> Callable[[], Tensor]:
    """`MusicgenForCausalLM.generate` on the same texts, with zeros in their place in the second half of the batch.

    By default this class keeps the keys of the text in the cache of the columns, which changes the codes. So it is
    given the cache that the whole MusicGen uses, and a mask that does not treat the first token as padding.
    """
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    model, special, place = lm_to_musicgen(lm).to(memory.device), lm.config.codebook_size, memory.device
    with torch.no_grad():
        states = lm.memory_projection(memory)
    states = torch.cat([states, torch.zeros_like(states)])

    def generate() -> Tensor:
        with torch.no_grad():
            return model.generate(
                input_ids=torch.full((len(memory) * lm.config.num_codebooks, 1), special, device=place),
                encoder_hidden_states=states, attention_mask=torch.ones(len(memory), 1, dtype=torch.long, device=place),
                guidance_scale=GUIDANCE, do_sample=False, max_new_tokens=columns, num_return_sequences=1,
                decoder_start_token_id=special,
                cache=EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config)),
            )  # fmt: skip

    return generate


def length_row(lm: AudioLM, sizes: Sizes) -> Row:
    """Time of a column in a long clip beside a short one: attention reads a longer cache, all else is the same."""
    memory = _text(lm, 1)
    jobs = [lambda n=n: generate_codes(lm, memory, None, n, GUIDANCE) for n in (sizes.frames, sizes.long)]
    short, long = alternate(max(1, sizes.rounds // 2), *jobs)
    each = [[(a / n, b / n) for a, b in job] for job, n in ((short, sizes.frames), (long, sizes.long))]
    found = compare_times(each, 1e-3)
    note = f"{found['ours']:.2f} ms in the short clip"
    name = f"generation, a column of {sizes.long} beside one of {sizes.frames}"
    return Row(name, "ms a column", found["theirs"], None, found["ratio"], found["cpu_ratio"], "≤ 1.5 ×", note)


def memory_row(lm: AudioLM, sizes: Sizes) -> Row:
    """Size of the largest tensor that a step allocates. The cache must not be copied, so it must be far smaller."""
    memory = _text(lm, 1)
    cache = lm.start(2, sizes.frames, memory)
    decoder, place = make_decoder(lm, cache, 2, partial(guide, scale=GUIDANCE)), cache.both.data_ptr()
    column = torch.zeros(1, lm.config.num_codebooks, dtype=torch.int64, device=memory.device)
    with torch.no_grad():
        largest = max(largest_new(lambda: decoder.step(column)) for _ in range(sizes.frames))
    kept = "stays in its place" if cache.both.data_ptr() == place else "MOVED"
    note = f"the cache, {cache.both.nbytes / 1e3:,.0f} kB, {kept}"
    return Row("generation, largest tensor made in a step", "kB", largest / 1e3, goal="no copy of the cache", note=note)


def largest_new(job: Callable[[], object]) -> int:
    """Bytes of the largest tensor that PyTorch's operations allocated while `job` ran."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            nonlocal largest
            given = _storages([args, *(kwargs or {}).values()])
            out = operation(*args, **(kwargs or {}))
            largest = max([largest, *(size for place, size in _storages([out]).items() if place not in given)])
            return out

    with Watch():
        job()
    return largest


def _storages(values: list | tuple) -> dict[int, int]:
    """Address and bytes of the memory of every tensor among the values; a view has its base's memory."""
    found = {}
    for value in values:
        if isinstance(value, Tensor):
            found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, list | tuple):
            found |= _storages(value)
    return found


class FixedTextEncoder(nn.Module):
    """Replaces the text encoder by states that were computed once, so that both libraries read the same ones."""

    def __init__(self, states: Tensor):
        super().__init__()
        self.states, self.width = states, states.shape[-1]

    def forward(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """The same states [B, N, M] for any B captions, and a mask [B, N] of real words."""
        states = self.states[: len(captions)]
        return states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)


def training_row(sizes: Sizes) -> Row:
    """A training step: loss, gradient, clipping and AdamW, on the same batch and from the same weights.

    Both libraries use AdamW, so that the work is the same. minigen's own training uses Muon for the layers: a step
    takes a little longer, and far fewer steps are needed (docs/speed.md).
    """
    lm = AudioLM(sizes.model).to(distributed.device())
    states = _text(lm, sizes.batch)
    codes = torch.randint(sizes.model.codebook_size, (sizes.batch, sizes.model.num_codebooks, sizes.frames))
    theirs, losses = their_training(lm, states, codes), {"ours": [], "theirs": []}
    config = TrainConfig(batch_size=sizes.batch, text_dropout=0.0)
    trainer = Trainer(lm, CrossEntropyObjective(lm.config, FixedTextEncoder(states), config), config)
    trainer.optimizers = [torch.optim.AdamW(lm.parameters(), lr=1e-4, fused=True)]

    def ours() -> None:
        losses["ours"].append(trainer.train_step(codes, [""] * sizes.batch)["loss"])

    times = alternate(sizes.rounds, ours, lambda: losses["theirs"].append(theirs()))
    found = compare_times(times, 1.0)
    frames = sizes.batch * sizes.frames
    found |= {"ours": frames / found["ours"], "theirs": frames / found["theirs"]}
    same = abs(losses["ours"][0] - losses["theirs"][0]) < (0.05 if fast_bf16() else 1e-3)
    kind = "bfloat16" if fast_bf16() else "float32"
    return Row(f"training step, {sizes.batch} clips, {kind}", "frames/s", **found, goal="≥ 1.5 × in bfloat16",
               note=f"same loss at the first step: {_yes(same)}")  # fmt: skip


def their_training(lm: AudioLM, states: Tensor, codes: Tensor) -> Callable[[], float]:
    """The same step with `MusicgenForCausalLM`, its own loss, and PyTorch's AdamW with default options."""
    from minigen.patterns import DelayPattern

    model, place = lm_to_musicgen(lm).to(states.device).train(), states.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    sequence = DelayPattern(lm.config.delays).apply(codes.to(place), lm.config.codebook_size)
    read = shift_right(sequence, lm.config.codebook_size).flatten(0, 1)
    with torch.no_grad():
        text = lm.memory_projection(states)

    def step() -> float:
        with torch.autocast(place.type, torch.bfloat16, enabled=fast_bf16()):
            loss = model(
                input_ids=read, encoder_hidden_states=text, labels=sequence.transpose(1, 2), use_cache=False
            ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def tokenising_row(codec: nn.Module, sizes: Sizes) -> Row:
    """Seconds of sound that are tokenised in a second, from wav files on disk to a finished token cache."""
    with tempfile.TemporaryDirectory() as place:
        folder, clips = Path(place), []
        for number in range(sizes.clips):
            file = folder / f"{number}.wav"
            save_audio(file, 0.1 * torch.randn(1, round(sizes.seconds * codec.sample_rate)), codec.sample_rate)
            clips.append(Clip(str(number), "", 0.0, "noise", str(file)))
        corpus = Corpus(
            clips, CorpusReport(looked_at=len(clips)), codec.sample_rate, sizes.seconds, lambda i: clips[i].file
        )
        turns = iter(range(sizes.rounds + 1))
        (times,) = alternate(
            sizes.rounds, lambda: tokenize(corpus, codec, folder / f"tokens{next(turns)}", progress=False)
        )
    seconds = statistics.median(second for second, _ in times)
    return Row("tokenising a corpus", "× real time", sizes.clips * sizes.seconds / seconds, goal="≥ 40 × on two cores")


def import_row(sizes: Sizes) -> Row:
    """Time that `import minigen.generate` adds to importing PyTorch, each measured in a new process."""
    timed = (
        "import time, torch; a = time.perf_counter(); import minigen, minigen.generate; print(time.perf_counter() - a)"
    )
    found = [
        float(subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True).stdout)
        for _ in range(sizes.rounds)
    ]
    return Row("import minigen, beyond torch", "s", statistics.median(found), goal="≤ 0.3 s", note="minigen.generate")


def describe(threads: int, usual: int) -> dict:
    """The machine and the versions, by name."""
    import transformers

    return {
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        **({"GPU": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "threads": f"{threads} in generation, {usual} in the rest",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def table(rows: list[Row], about: dict) -> str:
    """The rows as a Markdown page."""
    lines = ["# minigen bench", "", "; ".join(f"{name} {value}" for name, value in about.items()) + ".", ""]
    titles = ("what", "unit", "ours", "transformers", "ratio", "processor time", "goal", "")
    cells = []
    for row in rows:
        numbers = [_short(row.ours), _short(row.theirs), _short(row.ratio, " ×"), _short(row.cpu_ratio, " ×")]
        cells.append([row.what, row.unit, *numbers, row.goal, row.note])
    return "\n".join([*lines, markdown_table(titles, cells)]) + "\n"


def _short(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:,.{0 if value >= 100 else 2}f}{sign}"


def _yes(true: bool) -> str:
    return "yes" if true else "NO"

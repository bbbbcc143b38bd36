import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.engine.errors import MinigenError
from minigen.patterns import CoarseFirstPattern, DelayPattern, FlattenPattern, ParallelPattern

FILL = 99

standard = [DelayPattern(), ParallelPattern(4), FlattenPattern(4), CoarseFirstPattern(4)]
any_pattern = st.one_of(
    st.lists(st.integers(0, 7), min_size=1, max_size=6).map(DelayPattern),
    st.integers(1, 6).map(ParallelPattern),
    st.integers(1, 6).map(FlattenPattern),
    st.integers(2, 6).map(CoarseFirstPattern),
)


def random_codes(pattern, frames, batch=2):
    generator = torch.Generator().manual_seed(frames)
    return torch.randint(0, FILL, (batch, pattern.num_codebooks, frames), generator=generator)


def test_the_delay_pattern_is_the_drawing_in_its_module():
    sequence = DelayPattern().apply(torch.arange(20).view(1, 4, 5), FILL)
    expected = [
        [0, 1, 2, 3, 4, 99, 99, 99],
        [99, 5, 6, 7, 8, 9, 99, 99],
        [99, 99, 10, 11, 12, 13, 14, 99],
        [99, 99, 99, 15, 16, 17, 18, 19],
    ]
    assert sequence.tolist() == [expected]


def test_flatten_and_coarse_first_are_the_drawings_in_their_classes():
    codes = torch.tensor([[[0, 1], [10, 11]]])
    assert FlattenPattern(2).apply(codes, FILL).tolist() == [[[0, 99, 1, 99], [99, 10, 99, 11]]]
    assert CoarseFirstPattern(2).apply(codes, FILL).tolist() == [[[0, 1, 99, 99], [99, 99, 10, 11]]]


@settings(deadline=None, derandomize=True, database=None, max_examples=80)
@given(pattern=any_pattern, frames=st.integers(1, 12))
def test_reverting_undoes_applying(pattern, frames):
    codes = random_codes(pattern, frames)
    sequence = pattern.apply(codes, FILL)
    assert sequence.shape == (2, pattern.num_codebooks, pattern.steps(frames)) and sequence.dtype == codes.dtype
    assert pattern.frames(pattern.steps(frames)) == frames
    assert torch.equal(pattern.revert(sequence), codes)


@settings(deadline=None, derandomize=True, database=None, max_examples=80)
@given(pattern=any_pattern, frames=st.integers(1, 12))
def test_the_mask_marks_exactly_the_cells_that_hold_a_code(pattern, frames):
    sequence = pattern.apply(random_codes(pattern, frames), FILL)
    mask = pattern.mask(frames)
    assert mask.dtype == torch.bool and mask.sum() == pattern.num_codebooks * frames
    assert torch.equal((sequence != FILL), mask.expand_as(sequence))


@settings(deadline=None, derandomize=True, database=None, max_examples=40)
@given(pattern=any_pattern, frames=st.integers(1, 12))
def test_what_stands_in_the_gaps_never_reaches_the_codes(pattern, frames):
    codes = random_codes(pattern, frames)
    sequence = pattern.apply(codes, FILL).where(pattern.mask(frames), torch.tensor(-5))
    assert torch.equal(pattern.revert(sequence), codes)


def naive_position(pattern, k, t, frames):
    if isinstance(pattern, DelayPattern):
        return t + pattern.delays[k]
    if isinstance(pattern, FlattenPattern):
        return t * pattern.num_codebooks + k
    return t if k == 0 else frames + t


@pytest.mark.parametrize("pattern", [*standard, DelayPattern((3, 0, 1, 1))], ids=str)
def test_applying_is_a_double_loop(pattern):
    codes = random_codes(pattern, 6)
    expected = torch.full((2, 4, pattern.steps(6)), FILL)
    for k in range(4):
        for t in range(6):
            expected[:, k, naive_position(pattern, k, t, 6)] = codes[:, k, t]
    assert torch.equal(pattern.apply(codes, FILL), expected)


@settings(deadline=None, derandomize=True, database=None, max_examples=40)
@given(pattern=any_pattern, frames=st.integers(2, 12))
def test_a_frame_stands_after_the_frame_before_it_in_every_codebook(pattern, frames):
    assert (pattern.positions(frames).diff(dim=1) > 0).all()


@pytest.mark.parametrize("pattern", [DelayPattern(), FlattenPattern(4)], ids=str)
def test_delay_and_flatten_know_the_coarser_codebooks_of_the_frame(pattern):
    assert (pattern.positions(6).diff(dim=0) > 0).all()


def test_parallel_knows_nothing_else_of_its_frame():
    assert (ParallelPattern(4).positions(6).diff(dim=0) == 0).all()


def test_flatten_knows_everything_before_a_code():
    assert FlattenPattern(4).positions(6).T.flatten().tolist() == list(range(24))


def test_coarse_first_knows_the_whole_first_codebook_before_any_other():
    positions = CoarseFirstPattern(4).positions(6)
    assert positions[0].max() < positions[1:].min()


def test_the_delay_pattern_agrees_with_musicgen_up_to_its_start_column():
    from transformers import MusicgenDecoderConfig, MusicgenForCausalLM

    size = {"hidden_size": 8, "num_hidden_layers": 1, "ffn_dim": 8, "num_attention_heads": 1, "vocab_size": FILL}
    decoder = MusicgenForCausalLM(MusicgenDecoderConfig(num_codebooks=4, pad_token_id=FILL, **size))
    pattern, codes = DelayPattern(), random_codes(DelayPattern(), 10)
    start = torch.full((2, 4, 1), FILL)
    _, official = decoder.build_delay_pattern_mask(
        torch.cat([start, codes], dim=2).view(8, -1), pad_token_id=FILL, max_length=1 + pattern.steps(10)
    )
    assert torch.equal(official.view(2, 4, -1)[:, :, 1:], pattern.apply(codes, FILL))


def test_a_list_of_delays_is_the_same_pattern_as_a_tuple():
    assert DelayPattern([0, 1]) == DelayPattern((0, 1))


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda: DelayPattern((0, -1)), r"\(0, -1\)"),
        (lambda: DelayPattern((0, 0.5)), "0.5"),
        (lambda: DelayPattern(()), "num_codebooks is 0"),
        (lambda: FlattenPattern(0), "num_codebooks is 0"),
        (lambda: CoarseFirstPattern(1), "at least 2"),
        (lambda: DelayPattern().apply(torch.zeros(1, 3, 5, dtype=torch.long), FILL), r"\[1, 3, 5\]"),
        (lambda: DelayPattern().apply(torch.zeros(4, 5, dtype=torch.long), FILL), r"\[4, 5\]"),
        (lambda: DelayPattern().apply(torch.zeros(1, 4, 5), FILL), "float32"),
        (lambda: DelayPattern().apply(torch.zeros(1, 4, 0, dtype=torch.long), FILL), "frames is 0"),
        (lambda: DelayPattern().revert(torch.zeros(1, 4, 3, dtype=torch.long)), "3 steps are too few"),
        (lambda: FlattenPattern(4).revert(torch.zeros(1, 4, 6, dtype=torch.long)), "multiple of 4"),
        (lambda: CoarseFirstPattern(4).frames(7), "multiple of 2"),
        (lambda: DelayPattern().mask(0), "frames is 0"),
    ],
)
def test_mistakes_are_named_with_their_value(mistake, words):
    with pytest.raises(MinigenError, match=words):
        mistake()

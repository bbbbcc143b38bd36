"""Pairs for preference tuning: samples ranked by a judge, answers of a listening test, and what is refused."""

import pytest
import torch
from answering import answer, hum, make_test
from standins import BandJudge, WordEncoder, tiny_codec, tiny_lm

from minigen.engine.checkpoint import save_checkpoint
from minigen.engine.errors import MinigenError
from minigen.generate import TextToAudio
from minigen.guidance import Condition
from minigen.tuning.pairs import answered_pairs, sampled_pairs, stored_pairs

CAPTIONS = ["a dog barks", "rain falls", "a siren wails"]


def pipeline() -> TextToAudio:
    return TextToAudio(tiny_codec(), WordEncoder(), tiny_lm(1))


def sampled(folder, captions=CAPTIONS, **settings):
    settings = {"samples": 5, "seconds": 0.3, "seed": 4, **settings}
    return sampled_pairs(pipeline(), BandJudge(), captions, folder / "pairs.safetensors", progress=False, **settings)


def score(codes, captions) -> torch.Tensor:
    audio = BandJudge().embed_audio(pipeline().codec.decode(codes))
    return (audio * BandJudge().embed_text(captions)).sum(-1)


def test_the_chosen_clip_has_the_highest_score_of_all_samples_and_the_rejected_one_the_lowest(tmp_path):
    pairs = sampled(tmp_path)
    assert pairs.captions == CAPTIONS and pairs.codes.shape == (3, 2, 2 * 15)
    chosen, rejected = torch.from_numpy(pairs.codes).long().chunk(2, dim=-1)
    assert (score(chosen, CAPTIONS) > score(rejected, CAPTIONS)).all()
    tta = pipeline()
    text = Condition(*tta.encoder([caption for caption in CAPTIONS for _ in range(5)]))  # one batch: 15 of 32 clips
    every = [tta.generator.generate(text, 15, w, torch.Generator().manual_seed(4)).split(5) for w in (1.0, 3.0)]
    for row, both in enumerate(zip(*every, strict=True)):
        codes = torch.cat(both)  # [10, K, T]
        scores = score(codes, [CAPTIONS[row]] * 10)
        assert torch.equal(chosen[row], codes[scores.argmax()]) and torch.equal(rejected[row], codes[scores.argmin()])


def test_interrupted_sampling_goes_on_and_ends_with_the_same_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr("minigen.tuning.pairs.AT_ONCE", 5)  # a batch for each caption
    (tmp_path / "broken").mkdir()
    whole, embed, calls = sampled(tmp_path), BandJudge.embed_text, []

    def interrupt(self, captions):
        calls.append(captions)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(self, captions)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(BandJudge, "embed_text", interrupt)
        sampled(tmp_path / "broken")
    monkeypatch.setattr(BandJudge, "embed_text", lambda self, captions: calls.append(captions) or embed(self, captions))
    calls.clear()
    resumed = sampled(tmp_path / "broken")
    assert calls == [["rain falls"], ["a siren wails"]]
    assert (resumed.codes == whole.codes).all()


def test_a_file_of_other_pairs_and_single_samples_are_refused(tmp_path):
    sampled(tmp_path)
    with pytest.raises(MinigenError, match="pairs of other captions or settings"):
        sampled(tmp_path, seed=5)
    with pytest.raises(MinigenError, match="1 clips for each caption"):
        sampled(tmp_path, samples=1, guidances=[2.0])
    (tmp_path / "others").mkdir()
    assert len(sampled(tmp_path / "others", samples=1)) == 3  # one clip at each of two guidances


def test_pairs_that_hardly_differ_are_left_out_and_stored_pairs_need_no_samples(tmp_path, monkeypatch):
    every = sampled(tmp_path)
    chosen, rejected = torch.from_numpy(every.codes).long().chunk(2, dim=-1)
    margins = score(chosen, CAPTIONS) - score(rejected, CAPTIONS)
    middle = float(margins.median()) - 1e-4
    monkeypatch.setattr("minigen.tuning.pairs._sample", None)
    kept, file = sampled(tmp_path, least=middle), tmp_path / "pairs.safetensors"
    assert len(kept) == 2 and set(kept.captions) == {CAPTIONS[i] for i in range(3) if margins[i] >= middle}
    assert (stored_pairs(file, pipeline(), middle).codes == kept.codes).all()
    assert (stored_pairs(file, pipeline()).codes == every.codes).all()
    with pytest.raises(MinigenError, match=r"no pair differ by 3 in CLAP score; the largest difference is 0\.\d+"):
        sampled(tmp_path, least=3.0)
    with pytest.raises(MinigenError, match="there does not exist"):
        stored_pairs("there", pipeline())
    save_checkpoint(tmp_path / "other", {"step": 3})
    with pytest.raises(MinigenError, match="other holds no pairs"):
        stored_pairs(tmp_path / "other", pipeline())


# answers


@pytest.fixture
def listening(tmp_path):
    """A listening test of two models on two captions, with its clips."""
    folder = tmp_path / "test"
    return folder, make_test(folder, "rain falls", "a dog barks")


def test_answers_become_pairs_of_the_chosen_and_the_other_clip(listening):
    folder, plan = listening
    answer(folder, plan, "anna", "a")
    answer(folder, plan, "careless", "b", honest=False)  # fails the attention check: left out
    tta = pipeline()
    for places in ([folder], [folder / "answers" / "anna.csv"]):
        pairs = answered_pairs(places, tta, seconds=1.0)
        assert sorted(pairs.captions) == ["a dog barks", "rain falls"] and pairs.codes.shape == (2, 2, 100)
        for row, caption in enumerate(pairs.captions):
            number = plan.captions.index(caption)
            chosen, rejected = torch.from_numpy(pairs.codes[row]).long().chunk(2, dim=-1)
            agreeing = [
                (codes == tta.codec.encode(hum(number)[None, None])[0]).float().mean() for codes in (chosen, rejected)
            ]
            assert agreeing[0] > 0.8 > agreeing[1]  # the file holds 16 bits, which moves a code now and then


def test_answers_that_cannot_be_used_are_refused(listening, tmp_path):
    folder, plan = listening
    with pytest.raises(MinigenError, match="no usable answers"):
        answered_pairs([folder], pipeline())
    answer(folder, plan, "careless", "b", honest=False)
    with pytest.raises(MinigenError, match="no usable answers"):
        answered_pairs([folder], pipeline())
    alone = tmp_path / "elsewhere" / "deep" / "anna.csv"
    alone.parent.mkdir(parents=True)
    alone.write_text("listener,trial,left,right,answer\n")
    with pytest.raises(MinigenError, match="lies in no listening test"):
        answered_pairs([alone], pipeline())
    answer(folder, plan, "anna", "a")
    for clip in (folder / "clips").iterdir():
        clip.unlink()
    with pytest.raises(MinigenError, match="a clip of the listening test cannot be read"):
        answered_pairs([folder], pipeline())

"""The judge: a CLAP model that scores captions, an event classifier with a timeline, and the recipes that made both."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from minigen.corpus.clip import KINDS
from minigen.engine import loop
from minigen.engine.errors import MinigenError
from minigen.evaluation.clap import Tagger, TaggerConfig, linear_softmax, load_judge, load_tagger


def tone(clips=3, seconds=4.0, rate=16000):
    t = torch.arange(int(seconds * rate)) / rate
    pitch = 300.0 * 2 ** torch.arange(clips)[:, None, None]
    return 0.5 * torch.sin(2 * torch.pi * pitch * t) + 0.01 * torch.randn(clips, 1, len(t))


def test_an_official_clap_folder_gives_the_embeddings_of_transformers(official_clap):
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    wav = tone(seconds=0.7, rate=48000)
    model = ClapModel.from_pretrained(official_clap).eval()
    extractor = ClapFeatureExtractor.from_pretrained(official_clap)
    tokenizer = AutoTokenizer.from_pretrained(official_clap)
    captions = ["a dog barks", "Rain falls, and it is snowing in Zürich"]
    with torch.no_grad():
        features = extractor([clip.numpy() for clip in wav[:, 0]], sampling_rate=48000, return_tensors="pt")
        audio = model.get_audio_features(**features).pooler_output
        text = model.get_text_features(**tokenizer(captions, padding=True, return_tensors="pt")).pooler_output
    judge = load_judge(official_clap)
    torch.testing.assert_close(judge.features(wav), features["input_features"].float(), atol=5e-3, rtol=0)
    torch.testing.assert_close(judge.embed_audio(wav, 48000), audio, atol=1e-4, rtol=0)
    torch.testing.assert_close(judge.embed_text(captions), text, atol=1e-5, rtol=0)


def test_a_clap_with_fusion_sees_its_picture_four_times():
    from transformers import ClapFeatureExtractor

    from minigen.evaluation.clap import OfficialJudge

    extractor = ClapFeatureExtractor(max_length_s=1, truncation="fusion", padding="repeat")
    wav = tone(clips=2, seconds=0.7, rate=48000)
    theirs = extractor([clip.numpy() for clip in wav[:, 0]], sampling_rate=48000, return_tensors="pt")["input_features"]
    ours = OfficialJudge(torch.nn.Identity(), None, extractor).features(wav)
    torch.testing.assert_close(ours, theirs.float(), atol=5e-3, rtol=0)


def test_a_long_clip_is_the_mean_of_its_pieces_by_length(official_clap):
    judge, wav = load_judge(official_clap), tone(clips=2, seconds=3.0, rate=48000)
    first, rest = judge.embed_audio(wav[..., :96000], 48000), judge.embed_audio(wav[..., 96000:], 48000)
    torch.testing.assert_close(judge.embed_audio(wav, 48000), normalize(2 * first + rest, dim=-1))


def test_another_sample_rate_is_resampled(official_clap):
    judge = load_judge(official_clap)
    slow, fast = judge.embed_audio(tone(rate=24000), 24000), judge.embed_audio(tone(rate=48000), 48000)
    assert (slow * fast).sum(1).min() > 0.9  # the same tones; the bands that the slow one cannot hold are empty


def test_an_official_ast_folder_gives_the_probabilities_of_transformers(official_ast):
    from transformers import ASTFeatureExtractor, ASTForAudioClassification

    wav, model = tone(seconds=2.0), ASTForAudioClassification.from_pretrained(official_ast).eval()
    features = ASTFeatureExtractor.from_pretrained(official_ast)([clip.numpy() for clip in wav[:, 0]], 16000, "pt")
    tagger = load_tagger(official_ast)
    with torch.no_grad():
        logits = model(features["input_values"]).logits
    assert tagger.kinds == ("Speech", "Rain", "Dog")
    torch.testing.assert_close(tagger.probabilities(wav), logits.sigmoid(), atol=1e-5, rtol=0)
    assert tagger.embed(wav).shape == (3, 16)


def test_an_official_name_that_cannot_be_fetched_says_what_to_place_where():
    for load, name in ((load_judge, "laion/no-such-clap"), (load_tagger, "MIT/no-such-ast")):
        with pytest.raises(MinigenError) as error:
            load(name)
        assert name in str(error.value) and "model.safetensors" in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_name_lists_what_is_shipped():
    with pytest.raises(MinigenError, match="mini-nothing"):
        load_judge("mini-nothing")


def test_pickled_weights_are_refused(official_clap, tmp_path):
    for file in official_clap.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(MinigenError, match="Only safetensors"):
        load_judge(tmp_path)


def test_a_folder_that_holds_something_else_is_no_tagger(official_clap):
    with pytest.raises(MinigenError, match="no tagger"):
        load_tagger(official_clap)


def test_a_waveform_of_another_shape_is_refused(official_clap):
    for wav in (torch.zeros(16000), torch.zeros(1, 2, 16000), torch.zeros(1, 1, 0)):
        with pytest.raises(MinigenError, match="a waveform is"):
            load_judge(official_clap).embed_audio(wav)


def test_linear_softmax_is_its_formula():
    p = torch.rand(2, 3, 7)
    naive = [[sum(x * x for x in row) / sum(row) for row in clip] for clip in p.tolist()]
    torch.testing.assert_close(linear_softmax(p), torch.tensor(naive))
    assert linear_softmax(torch.zeros(1, 4)) == 0


def test_silence_around_an_event_does_not_dilute_it():
    p = torch.tensor([0.9, 0.8])
    torch.testing.assert_close(linear_softmax(torch.cat([p, torch.zeros(50)])), linear_softmax(p))


def test_the_taggers_frames_see_no_other_clip_and_keep_their_time():
    tagger = Tagger(TaggerConfig()).eval()
    mel = torch.randn(2, 64, 201)
    both, moved = tagger(mel), tagger(mel.roll(40, 2))
    assert both.shape == (2, 29, 50) and tagger.timeline_rate == 12.5
    torch.testing.assert_close(tagger(mel[1:]), both[1:], atol=1e-4, rtol=0)
    torch.testing.assert_close(moved[..., 18:42], both[..., 8:32], atol=1e-4, rtol=0)  # 40 pictures are 10 frames


@pytest.mark.parametrize("unscaled", [lambda wav: (32767 * wav).short(), lambda wav: 32767 * wav, lambda wav: 4 * wav])
def test_samples_that_are_not_scaled_are_refused(unscaled, official_clap):
    tagger = Tagger(TaggerConfig(kinds=("rain", "dog_bark"), channels=(4, 4, 4, 4), width=8)).eval()
    for hear in (load_judge(official_clap).embed_audio, tagger.embed, tagger.probabilities):
        assert hear(2 * tone()).isfinite().all()  # a decoder may overshoot 1 a little
        with pytest.raises(MinigenError, match=r"\[-1, 1\]"):
            hear(unscaled(tone()))


def test_a_tagger_comes_back_from_disk(tmp_path):
    tagger = Tagger(TaggerConfig(kinds=("rain", "dog_bark"), channels=(4, 4, 4, 4), width=8)).eval()
    tagger.save_pretrained(tmp_path)
    again, wav = load_tagger(tmp_path), tone()
    assert again.kinds == ("rain", "dog_bark") and again.embed(wav).shape == (3, 8)
    torch.testing.assert_close(again.probabilities(wav), tagger.probabilities(wav), atol=1e-2, rtol=0)


# What they are trained on


def batch_of(n=6, frames=50):
    from minigen.recipes.judge.data import Examples

    labels = torch.zeros(n, len(KINDS), frames, dtype=torch.bool)
    labels[torch.arange(n), torch.arange(n), 5 * torch.arange(n)] = True
    return Examples(torch.randn(n, 4 * frames, 64), labels.any(-1), labels, torch.arange(n) > 0)


def test_frame_labels_mark_the_frames_an_event_touches():
    from minigen.corpus.clip import Event
    from minigen.recipes.judge.data import frame_labels

    frames = frame_labels((Event("rain", 1, 0.0, 4.0), Event("dog_bark", 1, 1.0, 1.17), Event("rain", 1, 3.9, 4.0)))
    assert frames.shape == (29, 50) and frames[KINDS.index("rain")].all()
    assert frames[KINDS.index("dog_bark")].nonzero().flatten().tolist() == [12, 13, 14]  # 0.96 to 1.20 s


def test_mixing_adds_powers_and_unites_labels():
    from minigen.recipes.judge.data import PerClipRandom, _mix

    batch = batch_of()
    batch.pictures[:] = 0.1 * torch.arange(6.0)[:, None, None]
    mixed = _mix(batch, PerClipRandom(6, torch.Generator().manual_seed(0)), 1.0)
    added = 10 ** mixed.pictures[:, 0, 0] - 10 ** batch.pictures[:, 0, 0]
    softer = 10 * (added.log10() - batch.pictures[:, 0, 0].roll(1))
    assert softer.min() > -8.1 and softer.max() < 0.1 and softer.std() > 1
    assert (mixed.labels == batch.labels | batch.labels.roll(1, 0)).all()
    assert mixed.timed.tolist() == [False, False, True, True, True, True]


def test_turning_moves_labels_with_the_sound():
    from minigen.recipes.judge.data import PerClipRandom, _turn

    batch = batch_of()
    batch.pictures[:] = batch.frames.any(1).float().repeat_interleave(4, 1)[..., None]
    turned = _turn(batch, PerClipRandom(6, torch.Generator().manual_seed(3)))
    assert not torch.equal(turned.frames, batch.frames)
    assert torch.equal(turned.pictures[..., 0], turned.frames.any(1).float().repeat_interleave(4, 1))


def test_augmentation_is_the_same_for_the_same_generator_and_stays_finite():
    from minigen.recipes.judge.data import augment
    from minigen.recipes.judge.train import TAGGER_AUGMENTATION

    one, two = (augment(batch_of(), TAGGER_AUGMENTATION, torch.Generator().manual_seed(seed)) for seed in (5, 5))
    assert torch.equal(one.labels, two.labels) and one.pictures.min() >= -5 and one.pictures.isfinite().all()


def test_plain_noise_holds_no_event_and_comes_at_every_level():
    from minigen.recipes.judge.data import plain_noise

    noise, again = plain_noise(3, 24), plain_noise(3, 24)
    levels = noise.pictures.float().mean((1, 2))
    assert torch.equal(noise.pictures, again.pictures) and not noise.labels.any() and noise.timed.all()
    assert (levels[::6] == -5).all() and levels.max() > 0.5 and len(levels[levels > -5].int().unique()) >= 3
    steady = noise.pictures.float().std(1).mean(1)
    assert steady.max() < 0.5  # nothing begins or ends


def test_the_opposite_caption_tells_the_other_order():
    from minigen.corpus.synthesis.builtin import describe_clip
    from minigen.recipes.judge.captions import opposite, wordings

    found = 0
    for i in range(40):
        scene, _, _ = describe_clip(1, "train", i, 4.0)
        right, wrong = wordings(1, i)
        assert bool(wrong) == (scene.relation == "followed by") and not set(right) & set(wrong)
        if wrong:
            found += 1
            swapped = opposite(scene)
            assert [e.kind for e in swapped.foreground] == [e.kind for e in scene.foreground][::-1]
            assert sorted(e.onset for e in swapped.events) == sorted(e.onset for e in scene.events)
    assert found > 5


def test_retrieval_ranks_count_the_closer_clips():
    from minigen.recipes.judge.card import retrieval_ranks

    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.4, 0.6], [0.0, 0.1, 0.0]])
    assert retrieval_ranks(similarity).tolist() == [0, 2, 1]


@pytest.fixture
def tiny_recordings(tmp_path):
    from minigen.audio import save_audio

    for fold in (1, 4):
        for name, rate in (("001 - Dog bark", 2), ("002 - Rain", 50), ("003 - Unknown thing", 9)):
            save_audio(tmp_path / "real" / name / f"{fold}-{rate}-A.wav", tone(1, 1.0 + rate / 100))
    return tmp_path / "real"


def test_recordings_know_their_kind_and_their_fold(tiny_recordings):
    from minigen.recipes.judge.data import recordings

    train, test = recordings(tiny_recordings, "4")
    assert (
        [events[0].kind for _, events, _ in train] == ["dog_bark", "rain"] == [events[0].kind for _, events, _ in test]
    )
    assert all(wav.shape == (1, 1, 64000) and not timed for wav, _, timed in train)
    with pytest.raises(MinigenError, match="named after a kind"):
        recordings(tiny_recordings / "001 - Dog bark", "4")
    for path in tiny_recordings.glob("*/1-*"):
        path.unlink()
    with pytest.raises(MinigenError, match="of the test fold 4"):
        recordings(tiny_recordings, "4")


def stop_after(steps, loss):
    """An accident in the middle of a training: a loss that is computed `steps` times."""
    calls = []

    def stumble(*args):
        if len(calls) == steps:
            raise KeyboardInterrupt
        calls.append(args)
        return loss(*args)

    return stumble


def test_the_taggers_recipe_learns_and_goes_on_where_it_stopped(tmp_path, tiny_recordings, monkeypatch):
    from minigen.recipes.judge import train as recipe

    training = recipe.Training(clips=24, batch=8, steps=16, test_clips=4)
    whole = recipe.train_tagger(tmp_path / "whole", tiny_recordings, training, progress=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "SAVE_MINUTES", 0.0)
        patch.setattr(recipe, "tagger_loss", stop_after(9, recipe.tagger_loss))
        recipe.train_tagger(tmp_path / "halves", tiny_recordings, training, progress=False)
    assert recipe.train_tagger(tmp_path / "halves", tiny_recordings, training, progress=False) == whole
    card = (tmp_path / "whole" / "card.md").read_text()
    losses = [float(x) for x in card.split("Loss, mean of each tenth of the steps: ")[1].split("\n")[0].split(",")]
    assert losses[-1] < 0.8 * losses[0] and "CC BY" in card
    assert not (tmp_path / "whole" / "checkpoint.safetensors").exists()


def test_a_tagger_can_begin_with_the_weights_of_another(tmp_path):
    from minigen.recipes.judge.train import Training, train_tagger

    first = Tagger(TaggerConfig()).eval()
    first.save_pretrained(tmp_path / "first")
    training = Training(clips=8, batch=4, steps=1, test_clips=4, learning_rate=1e-9)
    train_tagger(tmp_path / "second", training=training, progress=False, start=tmp_path / "first")
    torch.testing.assert_close(load_tagger(tmp_path / "second").head.weight, first.head.weight, atol=1e-3, rtol=0)
    assert "started from the weights" in (tmp_path / "second/card.md").read_text()


def test_the_judges_recipe_learns_with_the_ears_of_a_tagger(tmp_path):
    from minigen.recipes.judge.train import Training, train_judge

    Tagger(TaggerConfig()).save_pretrained(tmp_path / "ears")
    training = Training(clips=16, batch=8, steps=20, test_clips=4)
    figures = train_judge(tmp_path / "judge", training=training, progress=False, tagger=tmp_path / "ears")
    losses = (tmp_path / "judge/card.md").read_text().split("Loss, mean of each tenth of the steps: ")[1].split("\n")[0]
    assert float(losses.split(",")[-1]) < 0.9 * float(losses.split(",")[0])
    assert set(figures) >= {"caption to clip, R@1", "caption to clip, R@10", "order accuracy"}
    assert load_judge(tmp_path / "judge").embed_text(["rain"]).shape == (1, 128)


def test_the_texts_of_a_batch_are_one_right_caption_each_and_then_the_opposites():
    from minigen.recipes.judge.train import _draw_texts

    choices = [(["a"], []), (["b1", "b2"], ["B1", "B2"]), (["c"], ["C"])]
    for seed in range(5):
        right, wrong = np.split(np.array(_draw_texts(choices, torch.Generator().manual_seed(seed))), [3])
        assert right[0] == "a" and right[1] in ("b1", "b2") and right[2] == "c"
        assert wrong.tolist() == [right[1].upper(), "C"]


# The shipped weights, on clips that nobody was trained on


@pytest.fixture(scope="module")
def judge():
    return load_judge("mini")


@pytest.fixture(scope="module")
def tagger():
    return load_tagger("mini")


@pytest.fixture(scope="module")
def fresh():
    """100 clips of the test split of another seed than that of the training."""
    from minigen.recipes.judge.card import held_out

    return held_out(seed=20231, clips=100)


def test_the_shipped_judge_finds_the_clip_of_a_caption(judge, fresh):
    from minigen.recipes.judge.card import retrieval_ranks

    wavs, _, captions = fresh
    ranks = retrieval_ranks(judge.embed_text(captions) @ judge.embed_audio(wavs).T)
    assert (ranks == 0).float().mean() >= 0.5 and (ranks < 10).float().mean() >= 0.9


def test_the_shipped_tagger_finds_the_events(tagger, fresh):
    from minigen.metrics import average_precision
    from minigen.recipes.judge.data import frame_labels

    wavs, scenes, _ = fresh
    true = torch.stack([frame_labels(scene.events).any(-1) for scene in scenes])
    assert average_precision(tagger.probabilities(wavs), true) >= 0.9


def test_the_shipped_tagger_hears_what_comes_first(tagger, fresh):
    from minigen.metrics import order_accuracy

    wavs, scenes, _ = fresh
    ordered = [(i, scene.foreground) for i, scene in enumerate(scenes) if scene.relation == "followed by"]
    timeline = tagger.timeline(wavs)
    pair = (torch.stack([timeline[i, KINDS.index(events[k].kind)] for i, events in ordered]) for k in (0, -1))
    assert order_accuracy(*pair) >= 0.95


def test_embeddings_are_unit_vectors_batched_or_not(judge, fresh):
    wavs, _, captions = fresh
    audio, text = judge.embed_audio(wavs[:3]), judge.embed_text(captions[:3])
    torch.testing.assert_close(torch.cat([audio, text]).norm(dim=1), torch.ones(6))
    torch.testing.assert_close(torch.cat([judge.embed_audio(wav[None]) for wav in wavs[:3]]), audio, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cat([judge.embed_text([c]) for c in captions[:3]]), text, atol=1e-4, rtol=0)


def test_probabilities_are_the_same_batched_or_not(tagger, fresh):
    wavs = fresh[0][:3]
    one_by_one = torch.cat([tagger.probabilities(wav[None]) for wav in wavs])
    torch.testing.assert_close(one_by_one, tagger.probabilities(wavs), atol=1e-4, rtol=0)


def test_level_and_silence_after_the_end_change_little(tagger, judge, fresh):
    wavs = fresh[0][:16]
    probs = tagger.probabilities(wavs)
    for other in (0.3 * wavs, torch.nn.functional.pad(wavs, (0, 16000))):
        assert (tagger.probabilities(other) - probs).abs().mean() < 0.03
    assert (judge.embed_audio(0.7 * wavs) * judge.embed_audio(wavs)).sum(1).mean() > 0.9


def test_noise_and_silence_hold_few_events(tagger):
    from minigen.recipes.judge.card import noises

    assert (tagger.probabilities(noises()) > 0.5).sum(1).float().mean() < 0.1
    assert (tagger.probabilities(torch.zeros(1, 1, 64000)) > 0.5).sum() == 0


def test_an_embedding_ignores_what_else_is_in_the_batch_of_captions(judge):
    long = "A dog barks three times in the distance followed by a siren wailing loudly while rain falls"
    torch.testing.assert_close(judge.embed_text(["Rain falls", long])[0], judge.embed_text(["Rain falls"])[0])
    assert judge.embed_text(["Ein Hund bellt 🐕 " * 100]).isfinite().all()


def test_real_recordings_are_recognised(tagger, esc10):
    from minigen.recipes.judge.data import recordings

    _, test = recordings(esc10, "4")
    kinds = sorted({events[0].kind for _, events, _ in test})
    scores = tagger.probabilities(torch.cat([wav for wav, _, _ in test]))[:, [KINDS.index(kind) for kind in kinds]]
    right = [kinds[i] == events[0].kind for i, (_, events, _) in zip(scores.argmax(1).tolist(), test, strict=True)]
    assert np.mean(right) >= 0.7

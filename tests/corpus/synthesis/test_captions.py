"""Captions of synthesised scenes: natural forms, and every stated word true of the scene."""

import re

import numpy as np
import pytest

from minigen.corpus.clip import KINDS
from minigen.corpus.synthesis.captions import PHRASES, caption, kind_of_label, paraphrases, plain_caption, split_of
from minigen.corpus.synthesis.scenes import COUNTED, Scene, SceneEvent, sample_scene

# Written down again here, so that a slip in the grammar's own tables cannot hide.
COUNT_WORDS = {
    r"\bonce\b|\bone\b|\bsingle\b": {1}, r"\btwice\b|\btwo\b": {2}, r"\bthree\b": {3}, r"\bfour\b": {4},
    r"\bfive\b": {5}, r"\bsix\b": {6}, r"\bseveral\b|\bmultiple\b": {4, 5, 6},
}  # fmt: skip
LOW = r"\b(large|big|deep|deep-voiced|low-pitched|heavy|man|bull)\b"
HIGH = (
    r"\b(small|little|tiny|young|light|high-pitched|shrill|bright|whining|woman|child|kitten|puppy|calf|newborn"
    r"|yap\w*|yip\w*|peep\w*)\b"
)
ORDER = r",? followed by |, and then |,? then | and then | before |, after which "
KEYWORD = {
    "dog_bark": r"dog|canine|puppy", "cat_meow": r"\bcat|kitten", "rooster": "rooster|cockerel", "bird_chirp": "bird",
    "crickets": "cricket|insect", "frog_croak": "frog|toad", "cow_moo": "cow|bull|calf", "baby_cry": "baby|infant",
    "sneeze": "sneez", "cough": "cough", "applause": "clap|appla", "rain": r"\brain", "wind": "wind",
    "sea_waves": "wave|sea|surf", "thunder": "thunder", "crackling_fire": "fire", "stream": "stream|water|brook",
    "helicopter": "helicopter|chopper", "chainsaw": "chainsaw", "engine": "engine|motor", "siren": "siren",
    "church_bell": "bell", "telephone": "phone", "clock_tick": "clock", "typing": "typ|key|computer",
    "knock": "knock", "footsteps": "walk|step", "car_horn": "honk|horn", "alarm_beep": "alarm|beep|device",
}  # fmt: skip


def scenes(n: int, start: int = 0) -> list[tuple[Scene, str]]:
    out = []
    for seed in range(start, start + n):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng)
        out.append((scene, caption(scene, rng)))
    return out


MANY = scenes(4000)


def single(kind: str, count: int = 1, pitch: float = 0.0) -> Scene:
    event = SceneEvent(kind, count, pitch, "ordinary", "ordinary", 0.5, 3.0)
    return Scene((event,), "single", None, "open", -50.0, 4.0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_at_least_six_phrasings(kind):
    phrases = PHRASES[kind]
    bare = {c.split("|")[0] + c.split("|")[1] for c in phrases.clauses} | set(phrases.nouns)
    assert len(bare) >= 6
    assert len(paraphrases(single(kind), np.random.default_rng(0), 12)) == 12


def test_a_number_word_is_the_count_of_the_event():
    seen = set()
    for scene, text in MANY:
        for words, counts in COUNT_WORDS.items():
            if re.search(words, text):
                assert counts & {event.count for event in scene.events if event.kind in COUNTED}, text
                seen.add(words)
    assert seen == set(COUNT_WORDS)


@pytest.mark.parametrize("count", range(1, 7))
def test_a_scene_of_one_kind_never_states_another_count(count):
    for kind in COUNTED:
        for text in paraphrases(single(kind, count), np.random.default_rng(count), 20):
            assert all(count in counts for words, counts in COUNT_WORDS.items() if re.search(words, text)), text
            article = re.match(f"A (loud |{LOW} |{HIGH} )?(bark|knock|beep|moo|sneeze$|cough$)", text)
            assert count == 1 or not article, text


def test_textures_are_never_numbered():
    for kind in set(KINDS) - set(COUNTED):
        for text in paraphrases(single(kind), np.random.default_rng(0), 40):
            assert not any(re.search(words, text) for words in COUNT_WORDS), text


def test_pitch_words_are_said_only_of_deep_or_high_sounds():
    for scene, text in MANY:
        if re.search(LOW, text, re.I):
            assert min(event.pitch for event in scene.events) <= -0.75, text
        if re.search(HIGH, text, re.I):
            assert max(event.pitch for event in scene.events) >= 0.75, text


def test_a_small_dog_and_a_deep_bell_are_called_so_most_of_the_time():
    for kind, pitch, words in (("dog_bark", 0.9, HIGH), ("church_bell", -0.9, LOW)):
        texts = [caption(single(kind, pitch=pitch), np.random.default_rng(seed)) for seed in range(200)]
        assert 0.4 < np.mean([bool(re.search(words, text, re.I)) for text in texts]) < 0.95


def test_loudness_and_distance_words_are_true():
    said = {
        r"\bloud(ly)?\b|\bhard\b": ("loudness", "loud"), r"\b(soft|faint|quiet|gent)(ly|le)?\b": ("loudness", "soft"),
        r"in the distance|far away": ("distance", "far"), r"nearby|close by": ("distance", "near"),
        r"in the background": ("distance", "background"),
    }  # fmt: skip
    for scene, text in MANY:
        for words, (field, value) in said.items():
            if re.search(words, text, re.I):
                assert value in {getattr(event, field) for event in scene.events}, text
    for words, _ in said.items():
        assert sum(bool(re.search(words, text, re.I)) for _, text in MANY) > 20, words


def test_order_words_follow_the_onsets():
    told = 0
    for scene, text in MANY:
        if scene.relation == "followed by" and len(scene.events) == 2:
            first, second = scene.events
            assert first.offset <= second.onset
            left, right = re.split(ORDER, text, maxsplit=1)
            assert re.search(KEYWORD[first.kind], left, re.I), (first.kind, text)
            assert re.search(KEYWORD[second.kind], right, re.I), (second.kind, text)
            told += 1
    assert told > 500


def test_two_sounds_in_a_row_over_a_third_are_told_in_order():
    for scene, text in MANY:
        if len(scene.events) == 3:
            first, second = scene.foreground
            assert first.offset <= second.onset
            assert scene.under.onset <= first.onset and scene.under.offset >= second.offset
            left, right = re.split(ORDER, text, maxsplit=1)
            assert re.search(KEYWORD[first.kind], left, re.I) and re.search(KEYWORD[second.kind], right, re.I), text
            assert re.search(KEYWORD[scene.background], text, re.I), text


def test_sounds_at_once_overlap_and_no_order_is_claimed():
    for scene, text in MANY:
        if scene.relation == "while":
            first, second = scene.events
            assert min(first.offset, second.offset) > max(first.onset, second.onset)
            assert not re.search(ORDER, text), text
            assert all(re.search(KEYWORD[event.kind], text, re.I) for event in scene.events), text


def test_captions_are_clean_english():
    for _, text in MANY:
        assert text[0].isupper() and not text.endswith(".") and not re.search(r"[{}|_]|  ", text), text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\b(\w+) \1\b|\ba an?\b", text, re.I), text
        assert 1 <= len(text.split()) <= 32, text


def test_captions_come_back_with_the_seed_and_paraphrases_differ():
    assert scenes(50) == scenes(50)
    for scene, _ in MANY[:50]:
        texts = paraphrases(scene, np.random.default_rng(1), 10)
        assert len(texts) == len(set(texts)) == 10
        assert texts == paraphrases(scene, np.random.default_rng(1), 10)


def test_every_wording_belongs_to_one_split_in_tenths():
    share = {name: np.mean([split_of(text) == name for _, text in MANY]) for name in ("train", "validation", "test")}
    assert abs(share["train"] - 0.8) < 0.05 and abs(share["test"] - 0.1) < 0.03
    assert split_of("A dog barks") == split_of("a dog barks")


@pytest.mark.parametrize(
    ("label", "kind"),
    [("001 - Dog bark", "dog_bark"), ("002 - Rain", "rain"), ("003 - Sea waves", "sea_waves"),
     ("004 - Baby cry", "baby_cry"), ("005 - Clock tick", "clock_tick"), ("006 - Person sneeze", "sneeze"),
     ("007 - Helicopter", "helicopter"), ("008 - Chainsaw", "chainsaw"), ("009 - Rooster", "rooster"),
     ("010 - Fire crackling", "crackling_fire"), ("crying_baby", "baby_cry"), ("chirping_birds", "bird_chirp"),
     ("door_wood_knock", "knock"), ("keyboard_typing", "typing"), ("clapping", "applause"), ("fireworks", None),
     ("train", None), ("washing_machine", None), ("crow", None), ("fire engine", None)],
)  # fmt: skip
def test_a_class_folder_is_recognised_by_its_name(label, kind):
    assert kind_of_label(label) == kind


def test_every_kind_is_recognised_by_its_own_name():
    assert [kind_of_label(kind) for kind in KINDS] == list(KINDS)


def test_plain_captions_of_class_folders():
    assert plain_caption("001 - Dog bark") == "a dog barks"
    assert plain_caption("010 - Fire crackling") == "a fire crackles"
    assert plain_caption("17_washing-machine") == "the sound of washing machine"

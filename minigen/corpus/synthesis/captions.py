"""Captions of scenes in the style of AudioCaps, with many wordings; all that a caption states is true of its scene.

    scene ─► one phrase for each event ─► joined in order of onset ─► "A small dog barks twice while rain falls"

Which properties a caption states (count, pitch, loudness, distance) is random. The phrases are in `phrases.toml`, which
explains their notation; this module is the grammar.
"""

import re
import tomllib
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigen.corpus.synthesis.scenes import COUNTED, Scene, SceneEvent


@dataclass(frozen=True)
class Phrases:
    """Phrasings of one kind of sound; `phrases.toml` explains the notation."""

    clauses: tuple[str, ...]
    nouns: tuple[str, ...]
    one: str = ""
    many: str = ""
    low: tuple[str, ...] = ()
    high: tuple[str, ...] = ()
    low_clauses: tuple[str, ...] = ()
    high_clauses: tuple[str, ...] = ()
    loud: tuple[str, ...] = ("loudly",)
    soft: tuple[str, ...] = ("softly", "quietly", "faintly")


def _read_phrases() -> dict[str, Phrases]:
    """Kind -> its phrases, in the order of the file."""
    listed = tomllib.loads(Path(__file__).with_name("phrases.toml").read_text("utf-8"))
    tuples = {
        kind: {name: tuple(words) if isinstance(words, list) else words for name, words in entry.items()}
        for kind, entry in listed.items()
    }
    return {kind: Phrases(**entry) for kind, entry in tuples.items()}


PHRASES = _read_phrases()

# {af}: finite clause of the first event, {ag} gerund, {an} noun phrase, {ap} progressive; b: second event, z: under.
SINGLE = ("{af}", "{af}", "{ap}", "{ag}", "{ag}", "{an}", "the sound of {an}")
WHILE = (
    "{af} while {zf}", "{af} as {zf}", "{af} while {zp}", "{ap} as {zf}", "{zf} while {af}", "{zf} as {af}",
    "{af} and {zf}",
    "{ag} and {zg}", "{ag} while {zf}", "{af} with {zg}", "{ag} with {zg}", "{af} with {zn}", "{an} and {zn}",
    "{zn} and {ag}",
)  # fmt: skip
FOLLOWED = (
    "{af} followed by {bg}", "{af}, followed by {bg}", "{ag} followed by {bg}", "{an} followed by {bn}",
    "{af} followed by {bn}",
    "{af}, then {bf}", "{af} and then {bf}", "{ag} and then {bg}", "{af} before {bf}", "{af}, after which {bf}",
    "{af}, and then {bf}",
)  # fmt: skip
FOLLOWED_UNDER = (
    "{af} followed by {bg} while {zf}", "{af}, then {bf} while {zf}", "as {zf}, {af} and then {bf}",
    "{zf} as {af} and then {bf}",
    "{af} before {bf} while {zf}", "{ag} followed by {bg} with {zn}", "{ag} followed by {bn} as {zf}",
    "{zf} while {af} before {bf}",
    "{an} followed by {bn} with {zg}",
)  # fmt: skip

TIMES = {
    1: ("once", "one time"), 2: ("twice", "two times"), 3: ("three times",), 4: ("four times", "several times"),
    5: ("five times", "several times", "multiple times"), 6: ("six times", "several times", "multiple times"),
}  # fmt: skip
NUMBERS = {1: ("a", "one", "a single"), 2: ("two",), 3: ("three",), 4: ("four", "several"), 5: ("five", "several"),
           6: ("six", "several", "multiple")}  # fmt: skip
PLACES = {"near": ("nearby", "close by"), "far": ("in the distance", "far away"), "background": ("in the background",)}
SAID = {"count": 0.6, "pitch": 0.7, "loudness": 0.7, "distance": 0.75}  # probability that a property is stated
EXTREME_PITCH = 0.75  # from here on a sound is called deep or high

# Labels of class folders that differ from the name of their kind.
LABELS = {
    "dog": "dog_bark", "bark": "dog_bark", "cat": "cat_meow", "meow": "cat_meow", "rooster crow": "rooster",
    "bird": "bird_chirp", "chirping": "bird_chirp", "cricket": "crickets", "frog": "frog_croak", "cow": "cow_moo",
    "moo": "cow_moo", "cry baby": "baby_cry", "person sneeze": "sneeze", "person cough": "cough", "clap": "applause",
    "hand clap": "applause", "clapping": "applause", "rainfall": "rain", "sea": "sea_waves", "wave": "sea_waves",
    "ocean wave": "sea_waves", "ocean": "sea_waves", "thunderstorm": "thunder", "fire": "crackling_fire",
    "brook": "stream", "river": "stream", "engine idle": "engine", "motor": "engine", "bell": "church_bell",
    "phone": "telephone", "telephone ring": "telephone", "phone ring": "telephone", "clock": "clock_tick",
    "keyboard type": "typing", "keyboard": "typing", "door knock": "knock", "door wood knock": "knock",
    "footstep": "footsteps", "walk": "footsteps", "car honk": "car_horn", "alarm": "alarm_beep",
    "clock alarm": "alarm_beep", "beep": "alarm_beep",
}  # fmt: skip


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _size(event: SceneEvent) -> str:
    """Field of Phrases for the pitch of an event: "low", "high", or "" for an ordinary pitch."""
    return "" if abs(event.pitch) < EXTREME_PITCH else "low" if event.pitch < 0 else "high"


def _said(event: SceneEvent, rng: np.random.Generator) -> set[str]:
    """Draw the properties that a phrase states."""
    return {name for name, often in SAID.items() if rng.uniform() < often}


def _adjective(event: SceneEvent, rng: np.random.Generator) -> str:
    words = getattr(PHRASES[event.kind], _size(event)) if _size(event) else ()
    return _pick(rng, words) if words else ""


def _tail(event: SceneEvent, said: set[str], rng: np.random.Generator) -> str:
    """Adverbs of count and loudness in either order, then of place; starts with a space unless empty."""
    words, phrases = [], PHRASES[event.kind]
    if "loudness" in said and event.loudness != "ordinary":
        words.append(_pick(rng, phrases.loud if event.loudness == "loud" else phrases.soft))
    if "count" in said and event.kind in COUNTED:
        words.insert(int(rng.integers(len(words) + 1)), _pick(rng, TIMES[event.count]))
    if "distance" in said and event.distance != "ordinary":
        words.append(_pick(rng, PLACES[event.distance]))
    return "".join(f" {word}" for word in words)


def _clause(event: SceneEvent, rng: np.random.Generator, form: str) -> str:
    """The event as a finite clause ("f"), a progressive one ("p") or with a gerund ("g")."""
    said, phrases = _said(event, rng), PHRASES[event.kind]
    special = getattr(phrases, f"{_size(event)}_clauses") if _size(event) and "pitch" in said else ()
    subject, verb, gerund = _pick(rng, special if special and rng.uniform() < 0.4 else phrases.clauses).split("|")
    adjective = _adjective(event, rng) if "pitch" in said else ""
    if form == "p" and not (event.kind in COUNTED and event.count == 1):
        verb = f"{'is' if verb.split()[0].endswith('s') else 'are'} {gerund}"
    return f"{subject} {gerund if form == 'g' else verb}".replace("{}", adjective) + _tail(event, said, rng)


def _noun(event: SceneEvent, rng: np.random.Generator) -> str:
    """The event as a noun phrase: "two loud knocks on a door", "the barking of a small dog in the distance"."""
    said, phrases = _said(event, rng), PHRASES[event.kind]
    adjective = _adjective(event, rng) if "pitch" in said else ""
    loudness = {"loud": "loud ", "soft": _pick(rng, ("soft ", "faint ", "quiet "))}.get(event.loudness, "")
    loudness = loudness if "loudness" in said else ""
    place = f" {_pick(rng, PLACES[event.distance])}" if "distance" in said and event.distance != "ordinary" else ""
    if phrases.one and "count" in said:
        number, noun = _pick(rng, NUMBERS[event.count]), phrases.one if event.count == 1 else phrases.many
        return f"{number} {loudness}{noun.replace('{}', adjective)}{place}"
    noun = _pick(rng, phrases.nouns)
    loudness = "" if noun.split()[0] in ("the", "a", "an") else loudness
    return loudness + noun.replace("{}", adjective) + place


def _phrase(event: SceneEvent, rng: np.random.Generator, form: str) -> str:
    return _noun(event, rng) if form == "n" else _clause(event, rng, form)


def _template(scene: Scene, rng: np.random.Generator) -> tuple[str, dict[str, SceneEvent]]:
    """A sentence pattern for the scene, and the event for each letter of the pattern."""
    first, *rest = scene.foreground
    if scene.relation == "single":
        return _pick(rng, SINGLE), {"a": first}
    if scene.relation == "while":
        return _pick(rng, WHILE), {"a": first, "z": scene.under or rest[0]}
    if scene.under:
        return _pick(rng, FOLLOWED_UNDER), {"a": first, "b": rest[0], "z": scene.under}
    return _pick(rng, FOLLOWED), {"a": first, "b": rest[0]}


def _polish(text: str) -> str:
    """Choose "a" or "an" by the next letter, and capitalise the first word."""
    text = re.sub(r"\b(a)n? (?=(\w))", lambda found: "an " if found[2] in "aeiou" else "a ", text)
    return text[0].upper() + text[1:]


def split_of(caption: str) -> str:
    """Split that may use this caption, 80/10/10 by a hash: no caption of the test split occurs in training."""
    bucket = zlib.crc32(caption.lower().encode()) % 10
    return "validation" if bucket == 8 else "test" if bucket == 9 else "train"


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One natural caption of the scene, capitalised, without a full stop."""
    template, events = _template(scene, rng)
    return _polish(re.sub(r"\{(\w)(\w)\}", lambda slot: _phrase(events[slot[1]], rng, slot[2]), template))


def paraphrases(scene: Scene, rng: np.random.Generator, n: int) -> list[str]:
    """Up to `n` different captions of one scene, in the order in which they were drawn."""
    found: dict[str, None] = {}
    for _ in range(30 * n):
        if len(found) == n:
            break
        found[caption(scene, rng)] = None
    return list(found)


def _stems(label: str) -> frozenset[str]:
    """Words of a label without numbers and endings: "001 - Dog barking" -> {"dog", "bark"}."""
    words = (re.sub(r"(ying|ies)$", "y", word) for word in re.findall(r"[a-z]+", label.lower()))
    return frozenset(re.sub(r"(ing|ed|es|s|e)$", "", word) if len(word) > 3 else word for word in words)


_KIND_OF_STEMS = {_stems(label): kind for label, kind in LABELS.items()} | {_stems(kind): kind for kind in PHRASES}


def kind_of_label(label: str) -> str | None:
    """Kind of event that the name of a class folder means ("001 - Dog bark" -> "dog_bark"), or None."""
    return _KIND_OF_STEMS.get(_stems(label))


def plain_caption(label: str) -> str:
    """A caption for a class folder: "Dog bark" -> "a dog barks"; a name of no known kind -> "the sound of <name>"."""
    kind = kind_of_label(label)
    if kind:
        subject, verb, _ = PHRASES[kind].clauses[0].replace("{}", "").split("|")
        return f"{subject} {verb}"
    name = " ".join(re.sub(r"^\W*\d+[\W_]+|[\W_]", " ", label).split()).lower()
    return f"the sound of {name or 'something'}"

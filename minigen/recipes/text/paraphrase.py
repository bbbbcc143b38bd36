"""Second wordings of captions: two captions of one corpus scene, or a real caption reworded by rule.

    "A dog barks while a man speaks"  ->  "males talking as a puppy is barking", "man speaks while a hound yaps", ...

AudioCaps describes each training clip once, so its second wordings are made by rule. Words of one family replace each
other: forms of one stem ("barks", "barking"), found in the captions, and the synonyms below. The result may be bad
English; it only has to describe the same sound.
"""

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from minigen.corpus.synthesis.captions import paraphrases, split_of
from minigen.corpus.synthesis.scenes import sample_scene
from minigen.engine.errors import MinigenError

SYNONYMS = """
man male guy | woman female lady | person someone somebody | people crowd group | child kid | baby infant toddler
speak talk converse chat | speech conversation voice | laugh giggle chuckle laughter | cry weep sob
yell shout scream shriek | applause clap applaud | sing vocal | snore snort | sneeze | cough | breath pant
car vehicle automobile | engine motor | accelerate rev | motorcycle motorbike | train locomotive railway railroad
airplane plane aircraft jet | helicopter chopper | boat motorboat ship | horn honk toot | siren emergency | truck lorry
rain downpour rainfall drizzle | thunder thunderstorm | wind breeze gust | stream brook creek river
wave surf ocean sea | water liquid | splash slosh | pour flow run stream | drip trickle dribble
gurgle bubble | fire flame | crackle pop
dog puppy canine hound | bark yap woof yip | cat kitten feline | meow mew | bird songbird | chirp tweet twitter
rooster cockerel | cow cattle | moo bellow | frog toad | croak ribbit | cricket insect cicada bug | sheep goat lamb
bleat baa | duck goose | quack honk | pigeon dove | coo | bee fly | buzz hum drone whir | growl snarl
bell chime | telephone phone | ring chime | clock watch | tick ticktock ticktick | type keyboard keystroke typewriter
knock tap rap bang thump | footstep walk step | beep bleep alarm | chainsaw saw | drill | gunfire gunshot gun shot
rustle crinkle crumple | hiss spray steam | squeak squeal screech creak | clank clang clatter clink | rumble roar
music song tune melody | click clack | whistle | hammer pound | fry sizzle | food cook | toilet flush | faucet tap sink
loud noisy | soft quiet faint gentle light | near nearby close | distant far distance away background
big large huge | small little tiny | several multiple many some few | fast quick rapid | continuous constant steady
brief short | repeated repetitive | while as | then followed
"""
PROMPT_WORDS = """
alligator ambulance animal anvil apartment arcade arrow audience avalanche axe bagpipe balloon banjo barn bass bat
beach bear bike blender blizzard blacksmith bomb bottle bow brass brush bugle bus cafe camera campfire cannon cash
castle cathedral cave cello chain chant cheer choir circus city clarinet coin concert cough coyote crane crash crow
crunch cuckoo cymbal dice dishwasher dolphin donkey door doorbell dragon drum eagle earthquake echo elephant elevator
explosion factory falcon fan farm feet ferry fireworks flute forest fountain fox freezer fridge garden ghost giggle
glass glove gong grass guitar hail hair hairdryer hall harbor harmonica harp hawk heartbeat heater heel helmet highway
hiccup hinge hippo horse hotel howl hyena ice insect jackhammer jungle kazoo kettle key kitchen koala ladder lake
lathe lawnmower leaf leopard library lid lighter lion lizard llama lock lullaby machine mall marble market meadow
metal microwave mixer monk monkey monster mosquito mouse mud mule nail needle night nightingale office orchestra organ
otter owl paper parade parrot party peacock pen penguin phone photograph piano pig pinball pipe pirate plastic
platform plate playground police pond pool pot printer projector puddle pump purr rabbit race radio rat rattlesnake
raven razor refrigerator restaurant ribbon rifle robot rock roller roof rope sand sandpaper saxophone school scissors
scooter scratch seagull seal sewing shaver sheet shoe shop shovel shower shutter skateboard ski slam slap snake snow
spaceship sparrow spoon squirrel stadium stair station steel stomp stone storm stove street subway swallow swan swing
sword synthesizer tank tape tent thud tiger tire tornado tractor traffic tram trombone trumpet tuba tunnel turbine
turkey turtle typhoon ukulele umbrella vacuum van violin volcano vulture wagon walrus washer waterfall whale wheel
whisper wolf wood woodpecker workshop zebra zipper
"""
JOINTS = {"and": "and", "while": "while", "as": "as", "with": "with", "followed by": "after", "then": "after"}


def stem(word: str) -> str:
    """A word without its most common endings: barks, barked, barking -> bark. Forms of one word get equal stems."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word.rstrip("e")


def families(captions: list[str]) -> dict[str, list[str]]:
    """For each word that occurs three times or more in the captions: all such words of its stem or a synonym's stem.

    Synonyms may replace a word even if no caption contains them.
    """
    words = [w for w, n in Counter(w for c in captions for w in _words(c)).items() if n >= 3 and len(w) > 2]
    forms = defaultdict(list)
    for word in sorted({*words, *(re.findall(r"\w{3,}", SYNONYMS) if captions else ())}):
        forms[stem(word)].append(word)
    related = defaultdict(set)
    for line in re.split(r"[|\n]", SYNONYMS):
        stems = {stem(word) for word in line.split()}
        for one in stems:
            related[one] |= stems
    return {w: [f for s in sorted(related[stem(w)] | {stem(w)}) for f in forms.get(s, [])] for w in words}


def reword(
    caption: str, kin: dict[str, list[str]], rng: np.random.Generator, swap: float = 0.4, drop: float = 0.1
) -> str:
    """Reword a caption: parts exchanged, words replaced by one of their family, words left out.

    kin: from `families`. swap, drop: probability for each word. The result is never empty.
    """
    words = _words(turn_round(caption, rng) if rng.random() < 0.5 else caption)
    kept = [w for w in words if rng.random() >= drop] or words
    return " ".join(str(rng.choice(kin[w])) if kin.get(w) and rng.random() < swap else w for w in kept)


def turn_round(caption: str, rng: np.random.Generator) -> str:
    """Exchange the parts around one joint: "X while Y" -> "Y while X", "X followed by Y" -> "Y after X"."""
    found = list(re.finditer(rf"\b({'|'.join(JOINTS)})\b", caption.lower()))
    if not found:
        return caption
    joint = found[rng.integers(len(found))]
    before, after = caption[: joint.start()].strip(" ,"), caption[joint.end() :].strip(" ,")
    return f"{after} {JOINTS[joint.group()]} {before}" if before and after else caption


def parts(captions: list[str]) -> list[str]:
    """Parts between the joints that occur at least twice, of 2 to 6 words, which are similar to usual prompts."""
    cut = re.compile(rf",|\b(?:{'|'.join(JOINTS)})\b")
    found = Counter(" ".join(part.split()) for caption in captions for part in cut.split(caption.lower()))
    return [part for part, often in found.items() if often >= 2 and 1 <= part.count(" ") <= 5]


def prompt_words() -> list[str]:
    """Words that a prompt may contain and no caption does: synonyms, also with -ing, and things that make sounds."""
    synonyms = sorted(set(re.findall(r"\w+", SYNONYMS)))
    return list(dict.fromkeys([*synonyms, *map(_gerund, synonyms), *PROMPT_WORDS.split()]))


def _gerund(verb: str) -> str:
    """Yap -> yapping, drone -> droning, bark -> barking."""
    doubled = re.search(r"(?:^|[^aeiou])[aeiou][bdgmnpt]$", verb)
    return (verb + verb[-1] if doubled else verb.rstrip("e")) + "ing"


def _words(caption: str) -> list[str]:
    return re.findall(r"[\w'-]+", caption.lower())


def scene_pair(rng: np.random.Generator) -> tuple[str, str]:
    """Two training captions of one random scene."""
    while True:
        words = [c for c in paraphrases(sample_scene(rng), rng, 3) if split_of(c) == "train"]
        if len(words) >= 2:
            return words[0], words[1]


def scene_groups(rng: np.random.Generator, scenes: int, combos: str) -> list[tuple[str, str]]:
    """(scene, caption) pairs for `paraphrase_auc`: up to three wordings of the test split for each random scene."""
    found = [(str(i), paraphrases(sample_scene(rng, combos=combos), rng, 30)) for i in range(scenes)]
    return [(i, c) for i, words in found for c in [w for w in words if split_of(w) == "test"][:3]]


def read_captions(folder: str | Path, split: str) -> list[tuple[str, str]]:
    """(youtube_id, caption) of every row of AudioCaps' `split`.csv; no audio is needed.

    Raises:
        MinigenError: no such file, or one without these columns.
    """
    path = Path(folder) / f"{split}.csv"
    if not path.is_file():
        raise MinigenError(f"no {path}. Name the folder with AudioCaps' train.csv and val.csv.")
    with path.open(newline="", encoding="utf-8") as rows:
        try:
            return [(row["youtube_id"], row["caption"]) for row in csv.DictReader(rows) if row["caption"].strip()]
        except KeyError as missing:
            raise MinigenError(f"{path} has no column {missing}. It needs youtube_id and caption.") from None

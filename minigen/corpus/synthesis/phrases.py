"""What people say about each kind of sound: the words of the built-in corpus, as data.

A clause is "subject|finite verb|gerund"; {} stands where a word for pitch or size can go ("a small dog barks"). Nouns
are true whatever the count; `one` and `many` name a single sound and its plural, for "two knocks on a door". Clauses
and adjectives under `low` and `high` are said only of sounds made with a low (large, deep) or high (small, bright)
pitch; kinds whose pitch nobody would name have none. The manner is that of AudioCaps; no caption is taken from there.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phrases:
    """Phrasings of one kind; see the module's docstring for the notation."""

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


PHRASES: dict[str, Phrases] = {
    "dog_bark": Phrases(
        clauses=("a {}dog|barks|barking", "a {}dog|woofs|woofing", "the {}dog|barks|barking",
                 "a {}canine|barks|barking"),
        nouns=("{}dog barking", "barking from a {}dog", "the barking of a {}dog"),
        one="{}bark from a dog",
        many="{}barks from a dog",
        low=("large ", "big "),
        high=("small ", "little "),
        low_clauses=("a big dog|woofs|woofing", "a deep-voiced dog|barks|barking"),
        high_clauses=("a small dog|yaps|yapping", "a puppy|barks|barking", "a little dog|yips|yipping"),
    ),
    "cat_meow": Phrases(
        clauses=("a {}cat|meows|meowing", "the {}cat|meows|meowing", "a {}cat|mews|mewing",
                 "a {}cat|cries out|crying out"),
        nouns=("{}cat meowing", "meowing from a {}cat", "the meowing of a {}cat"),
        one="{}meow from a cat",
        many="{}meows from a cat",
        low=("large ", "big "),
        high=("small ", "little "),
        high_clauses=("a kitten|meows|meowing", "a kitten|mews|mewing"),
    ),
    "rooster": Phrases(
        clauses=("a {}rooster|crows|crowing", "the {}rooster|crows|crowing", "a {}rooster|calls out|calling out",
                 "a {}cockerel|crows|crowing"),
        nouns=("{}rooster crowing", "the crowing of a {}rooster", "crowing from a {}rooster"),
        one="crow of a {}rooster",
        many="crows of a {}rooster",
        low=("deep-voiced ", "low-pitched "),
        high=("high-pitched ", "shrill "),
    ),
    "bird_chirp": Phrases(
        clauses=("a {}bird|chirps|chirping", "a {}bird|tweets|tweeting", "a {}bird|sings|singing",
                 "a {}songbird|chirps|chirping"),
        nouns=("{}bird chirping", "the chirping of a {}bird", "{}birdsong"),
        low=("low-pitched ",),
        high=("small ", "high-pitched "),
        high_clauses=("a small bird|peeps|peeping",),
    ),
    "crickets": Phrases(
        clauses=("crickets|chirp|chirping", "insects|chirp|chirping", "{}crickets|sing|singing",
                 "{}insects|buzz and chirp|buzzing and chirping"),
        nouns=("{}crickets", "the chirping of {}crickets", "{}insect noise", "{}cricket chirping"),
        high=("high-pitched ",),
    ),
    "frog_croak": Phrases(
        clauses=("a {}frog|croaks|croaking", "the {}frog|croaks|croaking", "a {}frog|ribbits|ribbiting",
                 "a {}toad|croaks|croaking"),
        nouns=("{}frog croaking", "the croaking of a {}frog", "croaking from a {}frog"),
        one="{}croak from a frog",
        many="{}croaks from a frog",
        low=("large ", "big "),
        high=("small ", "little "),
    ),
    "cow_moo": Phrases(
        clauses=("a {}cow|moos|mooing", "the {}cow|moos|mooing", "a {}cow|lows|lowing", "a {}cow|bellows|bellowing"),
        nouns=("{}cow mooing", "the mooing of a {}cow", "mooing from a {}cow"),
        one="{}moo from a cow",
        many="{}moos from a cow",
        low=("large ", "big "),
        high=("small ", "young "),
        low_clauses=("a bull|bellows|bellowing",),
        high_clauses=("a calf|moos|mooing",),
    ),
    "baby_cry": Phrases(
        clauses=("a {}baby|cries|crying", "an {}infant|cries|crying", "a {}baby|wails|wailing",
                 "a {}baby|sobs|sobbing"),
        nouns=("{}baby crying", "the crying of a {}baby", "the wailing of a {}baby"),
        high=("tiny ", "little "),
        high_clauses=("a newborn baby|cries|crying",),
    ),
    "sneeze": Phrases(
        clauses=("a {}person|sneezes|sneezing", "someone|sneezes|sneezing", "somebody|sneezes|sneezing",
                 "the {}person|sneezes|sneezing"),
        nouns=("{}person sneezing", "{}sneezing", "the sneezing of a person"),
        one="{}sneeze",
        many="{}sneezes",
        low=("deep ",),
        high=("high-pitched ",),
        low_clauses=("a man|sneezes|sneezing",),
        high_clauses=("a child|sneezes|sneezing", "a woman|sneezes|sneezing"),
    ),
    "cough": Phrases(
        clauses=("a {}person|coughs|coughing", "someone|coughs|coughing", "somebody|coughs|coughing",
                 "the {}person|coughs|coughing"),
        nouns=("{}person coughing", "{}coughing", "the coughing of a person"),
        one="{}cough",
        many="{}coughs",
        low=("deep ",),
        high=("high-pitched ",),
        low_clauses=("a man|coughs|coughing",),
        high_clauses=("a woman|coughs|coughing",),
    ),
    "applause": Phrases(
        clauses=("a crowd|applauds|applauding", "people|clap|clapping", "an audience|applauds|applauding",
                 "a crowd of people|claps|clapping", "an audience|claps|clapping"),
        nouns=("applause", "applause from a crowd", "people clapping", "the clapping of an audience"),
    ),
    "rain": Phrases(
        clauses=("rain|falls|falling", "rain|pours down|pouring down", "rain|comes down|coming down",
                 "the rain|falls|falling",
                 "the rain|comes down|coming down"),
        nouns=("rain", "rainfall", "falling rain", "the sound of rainfall"),
        soft=("softly", "quietly", "faintly", "gently"),
    ),
    "wind": Phrases(
        clauses=("wind|blows|blowing", "the wind|blows|blowing", "wind|gusts|gusting", "the wind|rushes|rushing",
                 "a wind|blows in gusts|blowing in gusts"),
        nouns=("wind", "blowing wind", "gusts of wind", "the rush of the wind"),
        soft=("softly", "gently", "quietly", "faintly"),
    ),
    "sea_waves": Phrases(
        clauses=("waves|crash|crashing", "ocean waves|roll ashore|rolling ashore",
                 "waves|break on a shore|breaking on a shore",
                 "the sea|washes ashore|washing ashore", "waves|wash over a beach|washing over a beach"),
        nouns=("ocean waves", "waves on a beach", "the surf of the sea", "crashing waves"),
        soft=("softly", "gently", "quietly"),
    ),
    "thunder": Phrases(
        clauses=("thunder|rumbles|rumbling", "thunder|roars|roaring", "thunder|rolls|rolling",
                 "thunder|booms|booming",
                 "the thunder|rumbles|rumbling"),
        nouns=("thunder", "the rumble of thunder", "rumbling thunder"),
        one="{}clap of thunder",
        many="{}claps of thunder",
    ),
    "crackling_fire": Phrases(
        clauses=("a fire|crackles|crackling", "a fire|burns and crackles|burning and crackling",
                 "a campfire|crackles|crackling", 
                 "wood|crackles in a fire|crackling in a fire", "a fire|snaps and pops|snapping and popping"),
        nouns=("a crackling fire", "the crackling of a fire", "fire crackling", "a burning fire"),
    ),
    "stream": Phrases(
        clauses=("a stream|flows|flowing", "water|flows|flowing", "a brook|babbles|babbling",
                 "water|trickles and gurgles|trickling and gurgling",
                 "a stream|gurgles|gurgling"),
        nouns=("flowing water", "running water", "the babbling of a brook", "a gurgling stream"),
        soft=("softly", "gently", "quietly"),
    ),
    "helicopter": Phrases(
        clauses=("a {}helicopter|flies|flying", "a {}helicopter|hovers|hovering", "a {}helicopter|whirs|whirring",
                 "helicopter blades|spin|spinning", "a {}chopper|flies|flying"),
        nouns=("{}helicopter flying", "the whir of a {}helicopter", "the blades of a {}helicopter", "a {}helicopter"),
        low=("large ", "heavy "),
        high=("small ", "light "),
    ),
    "chainsaw": Phrases(
        clauses=("a {}chainsaw|runs|running", "a {}chainsaw|buzzes|buzzing", "a {}chainsaw|cuts wood|cutting wood",
                 "someone|uses a {}chainsaw|using a {}chainsaw", "a {}chainsaw|roars|roaring"),
        nouns=("{}chainsaw buzzing", "the buzz of a {}chainsaw", "a {}chainsaw", "a {}chainsaw running"),
        low=("deep ", "low-pitched "),
        high=("high-pitched ", "whining "),
    ),
    "engine": Phrases(
        clauses=("an {}engine|runs|running", "an {}engine|hums|humming", "a {}motor|runs|running",
                 "a vehicle's {}engine|rumbles|rumbling",
                 "an {}engine|drones|droning"),
        nouns=("{}engine running", "the hum of an {}engine", "an {}engine running", "{}engine noise"),
        low=("deep ", "large "),
        high=("small ", "little "),
        low_clauses=("a big engine|rumbles|rumbling",),
        high_clauses=("a small motor|buzzes|buzzing",),
    ),
    "siren": Phrases(
        clauses=("a {}siren|wails|wailing", "a {}siren|blares|blaring", "an emergency {}siren|sounds|sounding",
                 "an emergency vehicle|sounds its {}siren|sounding its {}siren", "the {}siren|wails|wailing"),
        nouns=("a wailing {}siren", "the wail of a {}siren", "{}siren wailing", "an emergency {}siren"),
        low=("low-pitched ", "deep "),
        high=("high-pitched ", "shrill "),
    ),
    "church_bell": Phrases(
        clauses=("a {}church bell|rings|ringing", "a {}bell|tolls|tolling", "a {}bell|rings|ringing",
                 "a {}church bell|chimes|chiming"),
        nouns=("{}church bell ringing", "the ringing of a {}bell", "the tolling of a {}church bell"),
        one="{}toll of a church bell",
        many="{}tolls of a church bell",
        low=("deep ", "large "),
        high=("small ", "high-pitched ", "bright "),
        low_clauses=("a deep bell|booms|booming",),
        high_clauses=("a small bell|chimes|chiming",),
    ),
    "telephone": Phrases(
        clauses=("a {}telephone|rings|ringing", "a {}phone|rings|ringing", "the {}phone|rings|ringing",
                 "the {}telephone|rings|ringing"),
        nouns=("{}telephone ringing", "the ringing of a {}phone", "{}phone ringing"),
        one="{}ring of a telephone",
        many="{}rings of a telephone",
        low=("low-pitched ",),
        high=("high-pitched ",),
    ),
    "clock_tick": Phrases(
        clauses=("a clock|ticks|ticking", "the clock|ticks|ticking", "a clock|ticks and tocks|ticking and tocking",
                 "a clock|clicks steadily|clicking steadily"),
        nouns=("clock ticking", "the ticking of a clock", "the tick-tock of a clock", "a ticking clock"),
    ),
    "typing": Phrases(
        clauses=("someone|types on a keyboard|typing on a keyboard", "a person|types|typing",
                 "computer keys|click|clicking",
                 "a keyboard|clicks|clicking", "someone|taps on computer keys|tapping on computer keys"),
        nouns=("keyboard typing", "typing on a keyboard", "the clicking of computer keys",
               "the clatter of a keyboard"),
    ),
    "knock": Phrases(
        clauses=("someone|knocks on a door|knocking on a door", "a person|knocks|knocking", "someone|knocks|knocking",
                 "somebody|knocks at the door|knocking at the door"),
        nouns=("knocking on a door", "{}knocking", "{}door knocking"),
        one="{}knock on a door",
        many="{}knocks on a door",
    ),
    "footsteps": Phrases(
        clauses=("someone|walks|walking", "a person|walks|walking", "footsteps|sound|sounding",
                 "a person|walks along|walking along",
                 "somebody|takes steps|taking steps"),
        nouns=("footsteps", "the footsteps of a person", "the sound of someone walking", "steps of a person walking"),
    ),
    "car_horn": Phrases(
        clauses=("a {}car horn|honks|honking", "a car|honks its {}horn|honking its {}horn", "a {}horn|beeps|beeping",
                 "a vehicle|honks|honking"),
        nouns=("{}car horn honking", "the honking of a car", "{}horn honking"),
        one="{}honk of a car horn",
        many="{}honks of a car horn",
        low=("deep ", "low-pitched "),
        high=("high-pitched ",),
    ),
    "alarm_beep": Phrases(
        clauses=("an {}alarm|beeps|beeping", "an {}alarm clock|beeps|beeping", "an electronic {}alarm|beeps|beeping",
                 "a {}device|beeps|beeping"),
        nouns=("{}alarm beeping", "the beeping of an {}alarm", "{}electronic beeping"),
        one="{}beep of an alarm",
        many="{}beeps of an alarm",
        low=("low-pitched ",),
        high=("high-pitched ",),
    ),
}  # fmt: skip

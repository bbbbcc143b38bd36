"""One row of a corpus: a caption, the file that it describes, and the true events if they are known.

The first four fields are AudioCaps' columns. Events are known for synthesised clips and for files in class folders.
"""

from dataclasses import dataclass

KINDS = (
    # voices
    "dog_bark", "cat_meow", "rooster", "bird_chirp", "crickets", "frog_croak", "cow_moo", "baby_cry", "sneeze", "cough",
    "applause",
    # nature
    "rain", "wind", "sea_waves", "thunder", "crackling_fire", "stream",
    # machines
    "helicopter", "chainsaw", "engine", "siren", "church_bell", "telephone", "clock_tick", "typing", "knock",
    "footsteps", "car_horn", "alarm_beep",
)  # fmt: skip


@dataclass(frozen=True)
class Event:
    """One sounding event: its kind (of KINDS), how often it sounds (1 for textures), onset and offset in seconds."""

    kind: str
    count: int
    onset: float
    offset: float


@dataclass(frozen=True)
class Clip:
    """A captioned clip: AudioCaps' columns (`start_time` in seconds), the file, and its events.

    `file` is the path joined with the corpus folder. `events` are in order of onset, empty where they are not known.
    """

    audiocap_id: str
    youtube_id: str
    start_time: float
    caption: str
    file: str
    events: tuple[Event, ...] = ()

    @property
    def recording(self) -> str:
        """Identifier of the recording; rows with several captions of one recording share it. Empty if unknown."""
        return f"{self.youtube_id}_{self.start_time:g}" if self.youtube_id else self.file

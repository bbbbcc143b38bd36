"""Play a sound file: with the package `sounddevice`, or with a player of the system."""

import shutil
import subprocess
from pathlib import Path

PLAYERS = (["afplay"], ["aplay", "-q"], ["ffplay", "-nodisp", "-autoexit", "-loglevel", "error"])  # macOS, ALSA, FFmpeg


def play_file(path: Path) -> None:
    """Play a .wav or .flac file and wait for its end; print the file's name if no player can play it."""
    if _play_by_sounddevice(path) or any(_play_by_program(command, path) for command in PLAYERS):
        return
    names = ", ".join(command[0] for command in PLAYERS)
    print(f'cannot play {path} here: neither the package sounddevice (extra "play") nor one of {names} works.')


def _play_by_sounddevice(path: Path) -> bool:
    """Whether `sounddevice` is installed, finds a loudspeaker and played the file."""
    try:
        import sounddevice
        import soundfile

        sounddevice.play(*soundfile.read(path), blocking=True)
    except (ImportError, OSError, RuntimeError, ValueError):  # no PortAudio, no device (PortAudioError), no such rate
        return False
    return True


def _play_by_program(command: list[str], path: Path) -> bool:
    """Whether the program is installed and played the file."""
    if not shutil.which(command[0]) or (command[0] == "aplay" and path.suffix.lower() != ".wav"):
        return False  # aplay plays any other file as noise
    return subprocess.run([*command, str(path.absolute())], stdin=subprocess.DEVNULL, check=False).returncode == 0

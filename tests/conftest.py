"""What every test shares: no network, one thread, and the folders of real data where the environment names them."""

import os
import socket
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that opens a connection to another machine fails; local pipes between processes are allowed."""

    def refuse(self, address, *rest):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test tried to reach the network: {address}")
        return original(self, address, *rest)

    original = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


def _folder(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{variable} names no folder of real data")
    return Path(folder)


@pytest.fixture
def esc10() -> Path:
    """Folder of real recordings in class subfolders, named by MINIGEN_ESC10."""
    return _folder("MINIGEN_ESC10")


@pytest.fixture
def audiocaps() -> Path:
    """Folder with AudioCaps' train.csv and val.csv, named by MINIGEN_AUDIOCAPS."""
    return _folder("MINIGEN_AUDIOCAPS")

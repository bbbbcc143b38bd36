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


@pytest.fixture(scope="session")
def official_clap(tmp_path_factory):
    """A folder laid out as laion/clap-htsat-unfused is, with a small random model: 48 kHz, 2 s, RoBERTa's tokenizer."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    from minigen.recipes.judge.captions import train_tokenizer

    folder = tmp_path_factory.mktemp("clap")
    torch.manual_seed(1)
    audio = dict(
        spec_size=128, patch_embeds_hidden_size=8, depths=[1, 1, 1], num_attention_heads=[2, 2, 2], hidden_size=32
    )
    text = dict(vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                max_position_embeddings=40)  # fmt: skip
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=24)).save_pretrained(folder)
    train_tokenizer(["a dog barks", "rain falls on a roof", "a siren wails"], 400).save_pretrained(folder)
    ClapFeatureExtractor(max_length_s=2, truncation="rand_trunc", padding="repeatpad").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def official_ast(tmp_path_factory):
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    folder = tmp_path_factory.mktemp("ast")
    torch.manual_seed(2)
    config = ASTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_length=256,
                       id2label={0: "Speech", 1: "Rain", 2: "Dog"})  # fmt: skip
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(max_length=256).save_pretrained(folder)
    return folder

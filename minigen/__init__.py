"""minigen: how text becomes sound, one module per idea.

    caption ──► frozen T5 encoder ──► text states [B, N, D] ──────────────┐ cross-attention
    waveform ─► EnCodec encoder + RVQ ─► codes [B, K, T] ─► delay pattern ─► [B, K, S] ─► decoder-only Transformer
                                                                                             │ K heads
    waveform ◄─ EnCodec decoder ◄─ undo the pattern ◄─ sample ◄─ guidance (CFG) ◄─ logits [B, K, S, V]

The chain, in order. A module imports only those above it, and `engine`:

    audio         waveforms: reading, writing, resampling, mel spectrograms
    quantizer     residual vector quantisation: vectors to codes and back
    codec         waveform to codes and back: encoder, quantizer, decoder
    patterns      delay pattern: K streams of codes in one sequence
    t5            T5's encoder: token ids to states
    text          frozen text encoder: captions to token ids to states
    transformer   attention, positions, key-value cache, layer
    lm            the language model of codes
    loss          cross-entropy over the real codes, in pieces
    regularizer   representation similarity regularisation (arXiv 2309.08773)
    optim         Muon and AdamW, learning rate, moving average of the weights
    train         training: step, loop, checkpoints
    guidance      classifier-free guidance, with one condition or two
    generate      sampling: captions to codes to sound
    metrics       Frechet and kernel distance, KL divergence, CLAP score

The folders:

    corpus        captioned audio: the built-in corpus, AudioCaps, any folder; mixing; tokenising
    generators    other generators than the language model: masked generation and what it is built of
    conditioning  sounds as conditions: a style excerpt, a learnt word, retrieval
    tuning        LoRA adapters, and tuning to preferences
    decoding      one step of generation, in PyTorch and compiled
    interop       official weights: MusicGen, AudioGen, EnCodec
    evaluation    measuring models: judge, tagger, tables, listening test, the study
    display       figures, audio players, tables
    course        what the notebooks use: checks of exercises, explorers
    app           the command line, the demo, the benchmark, the doctor
    recipes       how each shipped part was trained
    engine        errors, settings, files, checkpoints, weights, resources, processes
"""

from minigen.engine.errors import MinigenError

__all__ = ["MinigenError", "__version__"]
__version__ = "0.1.0"

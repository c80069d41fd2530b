"""Speech by WaveFlow: nats per sample beside Gaussian processes, and a vocoder.

    python benchmarks/waveforms.py heights --sounds DIR --out waveforms.jsonl
    python benchmarks/waveforms.py vocoder --sounds DIR --out waveforms.jsonl --wav DIR
    python benchmarks/waveforms.py show --out waveforms.jsonl

DIR holds the spoken words of Debian's alsa-utils (/usr/share/sounds/alsa). Lines already in
``--out`` are not run again.
"""

import argparse
import json
import time
import wave
from pathlib import Path

import numpy as np
from scipy import linalg, signal

from skflows import ConditionalDensity, WaveFlowDensity

RATE = 8_000
LENGTH = 512
HOP = 64  # between the windows of fit, which overlap
NOISE = 1e-3  # of full scale, standard deviation: recordings have stretches of digital silence
WORDS = {
    "fit": ["Front_Center", "Front_Right", "Rear_Center", "Rear_Right", "Side_Left"],
    "validate": ["Front_Left"],
    "test": ["Side_Right", "Rear_Left"],
}
HEIGHTS = 8, 16, 32, 64
ORDERS = 1, 2, 4, 8, 16, 32, 64
FFT = 256  # four frames of a window, at each 128 samples
N_BANDS = 20
SETTINGS = {
    "n_transforms": 2,
    "hidden_layer_sizes": (16, 16, 16, 16),
    "learning_rate_init": 5e-3,
    "discrete": None,
    "contamination": None,
    "random_state": 0,
}


def word(folder, name):
    """Return a recording in units of full scale, with noise that is always the same."""
    with wave.open(str(Path(folder) / f"{name}.wav")) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 2**15
    samples = signal.resample_poly(samples, 1, rate // RATE)
    seed = sum(map(ord, name))
    return samples + NOISE * np.random.default_rng(seed).standard_normal(len(samples))


def windows(folder, part, hop):
    views = [
        np.lib.stride_tricks.sliding_window_view(word(folder, name), LENGTH)[::hop]
        for name in WORDS[part]
    ]
    return np.concatenate(views)


# ---- Gaussian processes


def covariance_of_order(samples, order):
    """Return the autocovariances of an AR process with the first ones of some recordings."""
    full = [signal.correlate(x, x)[len(x) - 1 :][: order + 1] for x in samples]
    known = np.sum(full, axis=0) / sum(map(len, samples))
    weights = linalg.solve_toeplitz(known[:-1], known[1:])
    covariance = list(known)
    while len(covariance) < LENGTH:
        covariance.append(weights @ covariance[: -order - 1 : -1])
    return np.array(covariance)


def gaussian_log_density(x, covariance):
    factor = linalg.cholesky(covariance, lower=True)
    z = linalg.solve_triangular(factor, x.T, lower=True)
    log_det = np.log(np.diag(factor)).sum()
    return -0.5 * (z**2).sum(axis=0) - log_det - len(factor) / 2 * np.log(2 * np.pi)


# ---- Mel frames


def mel_bank():
    """Return triangular filters, of shape (N_BANDS, FFT // 2 + 1)."""
    mel = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), N_BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    frequency = np.linspace(0, RATE / 2, FFT // 2 + 1)
    rising = (frequency - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequency) / np.diff(edges)[1:, None]
    return np.maximum(np.minimum(rising, falling), 0)


BANK = mel_bank()
TAPER = np.hanning(FFT + 1)[:-1]


def log_mel(x):
    """Return log-mel frames of signals (..., length), of shape (..., length // 128, N_BANDS)."""
    hop = FFT // 2
    pad = [(0, 0)] * (x.ndim - 1) + [(hop // 2, hop // 2)]
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, pad, "reflect"), FFT, axis=-1)
    power = np.abs(np.fft.rfft(frames[..., ::hop, :] * TAPER)) ** 2 / (TAPER**2).sum()
    return np.log(power @ BANK.T / BANK.sum(axis=1) + NOISE**2)


def mel_covariance(mel, gain):
    """Return the covariance of a window: a Gaussian with the spectra of its frames."""
    # Frames are in the middle of quarters; between them, spectra are mixed.
    time_ = np.arange(LENGTH) / (LENGTH // len(mel)) - 0.5
    shares = np.maximum(1 - np.abs(time_ - np.arange(len(mel))[:, None]), 0)
    shares[0, time_ < 0] = shares[-1, time_ > len(mel) - 1] = 1
    found = np.zeros((LENGTH, LENGTH))
    spread = BANK / np.maximum(BANK.sum(axis=0), 1e-9)
    for share, frame in zip(shares, mel, strict=True):
        density = np.exp(frame) @ spread
        density[BANK.sum(axis=0) == 0] = np.exp(frame).min()
        lags = np.fft.irfft(density)[: FFT // 2] * np.hanning(FFT + 1)[FFT // 2 : -1]
        lags = np.pad(lags, (0, LENGTH - len(lags)))
        found += np.sqrt(np.outer(share, share)) * linalg.toeplitz(lags)
    return gain * found + NOISE**2 * np.eye(LENGTH)


def mel_gaussian(x, gain):
    """Return the log-densities of windows given their own mel frames."""
    frames = log_mel(x)
    return np.array(
        [
            gaussian_log_density(row[None], mel_covariance(mel, gain))[0]
            for row, mel in zip(x, frames, strict=True)
        ]
    )


def best_gain(x):
    gains = np.geomspace(0.3, 3, 9)
    return gains[np.argmax([mel_gaussian(x, gain).mean() for gain in gains])]


# ---- Parts of the benchmark


def heights(folder, record, chosen):
    fit = [word(folder, name) for name in WORDS["fit"]]
    test = windows(folder, "test", LENGTH)
    for order in ORDERS:
        if record.wants(f"AR({order})"):
            covariance = linalg.toeplitz(covariance_of_order(fit, order))
            record.add(float(gaussian_log_density(test, covariance).mean()) / LENGTH, 0.0)
    X, X_val = windows(folder, "fit", HOP), windows(folder, "validate", HOP)
    for height in chosen:
        if record.wants(f"WaveFlow, height {height}"):
            started = time.process_time()
            density = WaveFlowDensity(height=height, max_iter=30, **SETTINGS)
            density.fit(X, X_val=X_val)
            record.add(
                density.score(test) / LENGTH,
                time.process_time() - started,
                best_epoch=density.best_iter_,
                sample_seconds=seconds_to_sample(density),
            )


def seconds_to_sample(density):
    started = time.process_time()
    density.sample(16, random_state=0)
    return (time.process_time() - started) / 16


def vocoder(folder, record, wav):
    X, test = windows(folder, "fit", HOP), windows(folder, "test", LENGTH)
    gain = best_gain(windows(folder, "validate", LENGTH))
    if record.wants("Gaussian given mel frames"):
        record.add(float(mel_gaussian(test, gain).mean()) / LENGTH, 0.0)
    if not record.wants("WaveFlow given mel frames"):
        return
    flow = WaveFlowDensity(height=16, n_frames=4, max_iter=30, early_stopping=False, **SETTINGS)
    started = time.process_time()
    density = ConditionalDensity(flow, cv=None, random_state=0)
    density.fit(log_mel(X).reshape(len(X), -1), X)
    seconds = time.process_time() - started
    mel = log_mel(test).reshape(len(test), -1)
    distances = {"WaveFlow": [], "Gaussian": []}
    for name in WORDS["test"]:
        x = word(folder, name)
        x = x[: len(x) // (LENGTH // 2) * (LENGTH // 2)]
        parts = np.lib.stride_tricks.sliding_window_view(x, LENGTH)[:: LENGTH // 2]
        frames = log_mel(parts)
        noise = np.random.default_rng(0).standard_normal(len(x))
        own_noise = np.lib.stride_tricks.sliding_window_view(noise, LENGTH)[:: LENGTH // 2]
        context = density._encoded(frames.reshape(len(frames), -1))
        drawn = {
            "WaveFlow": density._inverse(density.flows_[0], own_noise, context),
            "Gaussian": np.array(
                [
                    linalg.cholesky(mel_covariance(mel, gain), lower=True) @ z
                    for mel, z in zip(frames, own_noise, strict=True)
                ]
            ),
        }
        for kind, rows in drawn.items():
            y = overlap_added(rows, len(x))
            distances[kind].append(np.sqrt(((log_mel(y) - log_mel(x)) ** 2).mean()))
            if wav:
                write(Path(wav) / f"{name}_{kind}.wav", y)
    record.add(
        density.score(mel, test) / LENGTH,
        seconds,
        log_mel_distance={kind: float(np.mean(d)) for kind, d in distances.items()},
    )


def overlap_added(rows, length):
    """Return a signal from windows that overlap by half, faded in and out."""
    fade = np.sin(np.pi * (np.arange(LENGTH) + 0.5) / LENGTH) ** 2
    total, weight = np.zeros(length), np.full(length, 1e-9)
    for i, row in enumerate(rows):
        part = slice(i * LENGTH // 2, i * LENGTH // 2 + LENGTH)
        total[part] += fade * row
        weight[part] += fade
    return total / weight


def write(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


class Record:
    """Results as JSON lines, each measured once."""

    def __init__(self, path):
        self.path = Path(path)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.lines = [json.loads(line) for line in lines]

    def wants(self, model):
        self.model = model
        return all(line["model"] != model for line in self.lines)

    def add(self, nats_per_sample, seconds, **others):
        line = {"model": self.model, "nats_per_sample": nats_per_sample, "seconds": seconds}
        line |= others
        self.lines.append(line)
        with self.path.open("a") as file:
            print(json.dumps(line), file=file)
        print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["heights", "vocoder", "show"])
    parser.add_argument("--sounds", default="/usr/share/sounds/alsa")
    parser.add_argument("--out", default="waveforms.jsonl")
    parser.add_argument("--heights", nargs="*", type=int, default=HEIGHTS)
    parser.add_argument("--wav", help="a folder for resynthesised words")
    options = parser.parse_args()
    record = Record(options.out)
    if options.part == "heights":
        heights(options.sounds, record, options.heights)
    elif options.part == "vocoder":
        vocoder(options.sounds, record, options.wav)
    else:
        print("| model | nats per sample | processor seconds |\n|---|---|---|")
        for line in record.lines:
            print(f"| {line['model']} | {line['nats_per_sample']:.3f} | {line['seconds']:.0f} |")


if __name__ == "__main__":
    main()

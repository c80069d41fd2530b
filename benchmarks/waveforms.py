"""Speech by WaveFlow: nats per sample beside Gaussian processes, and a vocoder.

    python benchmarks/waveforms.py heights --sounds DIR --out waveforms.jsonl
    python benchmarks/waveforms.py vocoder --out waveforms.jsonl --wav DIR
    python benchmarks/waveforms.py show --out waveforms.jsonl

DIR holds the spoken words of Debian's alsa-utils (/usr/share/sounds/alsa). Without it, espeak-ng is
the voice, and reads the sentences below. The vocoder always hears espeak-ng, in several voices:
ten for training, one to choose temperatures, and four others to test. Lines already in ``--out``
are not run again.
"""

import argparse
import io
import json
import subprocess
import time
import wave
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from protocol import append, limits_of_processor_time, print_table
from scipy import linalg, optimize, signal

from skflows import ConditionalDensity, WaveFlowDensity
from skflows.training.flow_fit import TRAINING_SHARE

RATE = 8_000
LENGTH = 512
HOP = 64  # between the windows of fit, which overlap
NOISE = 1e-3  # of full scale, standard deviation: recordings have stretches of digital silence
WORDS = {
    "fit": ["Front_Center", "Front_Right", "Rear_Center", "Rear_Right", "Side_Left"],
    "validate": ["Front_Left"],
    "test": ["Side_Right", "Rear_Left"],
}
SENTENCES = {
    "fit": """
        The old clock in the hall strikes every hour. We walked along the river until it was dark.
        She keeps fresh bread in a wooden box. My brother plays the violin in the evening.
        A heavy storm broke over the quiet village. The train to the north leaves at seven.
        Put the blue cups on the upper shelf. Nobody knew who had opened the window.
        The farmer sold five sheep at the market. His voice was hoarse after the long speech.
        Green apples taste sour but they keep well. The road climbs up to a narrow pass.
        Children were throwing stones into the pond. I would rather have tea than coffee.
        The judge asked him to answer the question. Thin ice covered the edge of the lake.
        Her new shoes are too small and hurt. The cook added garlic, pepper and a bay leaf.
        They measured the depth of the well twice. A young fox was hiding under the bridge.
        The paint on the garden gate is still wet. Please return the books before next Friday.
        Smoke rose from the chimney of the mill. You should choose a larger size of paper.
    """,
    "validate": "Yellow leaves were floating on the water. He fixed the broken chair with glue.",
    "test": """
        The baker closes his shop at noon on Monday. Our ship reached the harbour in thick fog.
        Jane found a silver coin beneath the floor. Two boys were racing down the steep hill.
    """,
}
VOICES = {  # with words a minute
    "fit": {
        "en-us+m1": 150,
        "en-us+m3": 190,
        "en-us+f1": 165,
        "en-us+f2": 140,
        "en-gb+m2": 175,
        "en-gb+m4": 145,
        "en-gb+f3": 185,
        "en-gb-scotland+m5": 160,
        "en-us+klatt": 170,
        "en-us+f5": 155,
    },
    "validate": {"en-us+m8": 160},
    "test": {"en-us+m7": 165, "en-gb+f4": 150, "en-gb-x-rp+m6": 180, "en-us+anika": 170},
}
HEIGHTS = 8, 16, 32, 64
ORDERS = 1, 2, 4, 8, 16, 32, 64
FFT = 256
MEL_HOP = 64  # samples between frames
SPOKEN_HOP = 200  # samples between windows that the vocoder is fitted to
OVERLAP = 64  # samples, of windows that are spoken
TEMPERATURES = 0.4, 0.6, 0.8, 1.0
N_ITER = 60  # of Griffin-Lim
N_BANDS = 20
SETTINGS_OF_VOCODER = {"n_transforms": 3, "hidden_layer_sizes": (32, 32, 32, 32)}
SETTINGS = {
    "n_transforms": 2,
    "hidden_layer_sizes": (16, 16, 16, 16),
    "learning_rate_init": 5e-3,
    "discrete": None,
    "contamination": None,
    "random_state": 0,
}


def from_wave(file, seed):
    """Return a recording in units of full scale, with noise that is always the same."""
    with wave.open(file) as recording:
        rate = recording.getframerate()
        samples = np.frombuffer(recording.readframes(2**31 - 1), "<i2") / 2**15
    samples = signal.resample_poly(samples, RATE, rate)
    return samples + NOISE * np.random.default_rng(seed).standard_normal(len(samples))


def words(folder):
    """Return the recordings of each part, by name."""
    return {
        part: {name: from_wave(f"{folder}/{name}.wav", sum(map(ord, name))) for name in names}
        for part, names in WORDS.items()
    }


def sentences():
    """Return what espeak-ng reads of each part, by the first three words."""

    return {
        part: {"_".join(line.split()[:3]): spoken(line) for line in text.split(".") if line.strip()}
        for part, text in SENTENCES.items()
    }


def spoken(text, *options):
    """Return what espeak-ng reads."""
    command = ["espeak-ng", *options, "--stdout", text]
    sound = subprocess.run(command, capture_output=True, check=True).stdout
    return from_wave(io.BytesIO(sound), sum(map(ord, "".join([text, *options]))))


def voices():
    """Return the sentences of each part in each of its voices."""
    return {
        part: {
            voice: spoken(SENTENCES[part], "-v", voice, "-s", str(speed))
            for voice, speed in speeds.items()
        }
        for part, speeds in VOICES.items()
    }


def windows(recordings, hop):
    views = [
        np.lib.stride_tricks.sliding_window_view(x, LENGTH)[::hop] for x in recordings.values()
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
WINDOW = np.hanning(FFT + 2)[1:-1]  # of Griffin-Lim, which divides by it


def log_mel(x):
    """Return log-mel frames of signals (..., length), of shape (..., length // 64, N_BANDS)."""
    return np.log(power_of(x) @ BANK.T / BANK.sum(axis=1) + NOISE**2)


def power_of(x):
    """Return the power spectra of frames."""
    pad = [(0, 0)] * (x.ndim - 1) + [2 * [(FFT - MEL_HOP) // 2]]
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, pad, "reflect"), FFT, axis=-1)
    return np.abs(np.fft.rfft(frames[..., ::MEL_HOP, :] * TAPER)) ** 2 / (TAPER**2).sum()


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


def heights(data, record, chosen):
    test = windows(data["test"], LENGTH)
    for order in ORDERS:
        if record.wants(f"AR({order})"):
            covariance = linalg.toeplitz(covariance_of_order(list(data["fit"].values()), order))
            record.add(float(gaussian_log_density(test, covariance).mean()) / LENGTH, 0.0)
    X, X_val = windows(data["fit"], HOP), windows(data["validate"], HOP)
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


def vocoder(data, record, seconds, height, wav):
    validate, test = (windows(data[part], LENGTH) for part in ("validate", "test"))
    if record.wants("AR(64)"):
        covariance = linalg.toeplitz(covariance_of_order(list(data["fit"].values()), 64))
        record.add(float(gaussian_log_density(test, covariance).mean()) / LENGTH, 0.0)
    models = {
        "Griffin-Lim given mel frames": GriffinLim(),
        "Gaussian given mel frames": MelGaussian(best_gain(validate[::4])),
        f"WaveFlow given mel frames, height {height}, {seconds:g} s": MelFlow(seconds, height),
    }
    for name, model in models.items():
        if not record.wants(name):
            continue
        started = time.process_time()
        model.fit(windows(data["fit"], SPOKEN_HOP))
        line = {}
        taken = time.process_time() - started
        if isinstance(model, GriffinLim):
            temperature, score = None, None
        else:
            by_temperature = {t: distances(model, data["validate"], t)[0] for t in TEMPERATURES}
            temperature = min(by_temperature, key=by_temperature.get)
            score, line["temperature"] = model.score(test), temperature
        line["log_mel_distance"], line["spectral_distance"] = distances(
            model, data["test"], temperature, wav
        )
        record.add(score, taken, **line)


def distances(model, recordings, temperature, wav=None):
    """Return the mean distances of frames and of spectra between recordings and their copies."""
    found = []
    for title, x in recordings.items():
        step = LENGTH - OVERLAP
        x = x[: (len(x) - OVERLAP) // step * step + OVERLAP]
        x = x[: len(x) // MEL_HOP * MEL_HOP]
        if isinstance(model, GriffinLim):
            y = model.spoken(log_mel(x))
        else:
            rows = model.sample(log_mel(windows({title: x}, step)), temperature)
            y = overlap_added(rows, len(x))
        pairs = [(log_mel(each), np.log(power_of(each) + NOISE**2)) for each in (x, y)]
        found.append([np.sqrt(((a - b) ** 2).mean()) for a, b in zip(*pairs, strict=True)])
        if wav:
            write(Path(wav) / f"{title}_{type(model).__name__}.wav", y)
    return np.mean(found, axis=0).tolist()


class GriffinLim:
    """Phases that agree with magnitudes of spectra, which have the given energies of bands."""

    def fit(self, X):
        pass

    def spoken(self, mel):
        energy = np.maximum(np.exp(mel) - NOISE**2, 0) * BANK.sum(axis=1)
        magnitude = np.sqrt([optimize.nnls(BANK, each)[0] for each in energy]).T
        options = {"nperseg": FFT, "noverlap": FFT - MEL_HOP, "window": WINDOW}
        magnitude = magnitude * np.sqrt((WINDOW**2).sum()) / WINDOW.sum()
        length = len(mel) * MEL_HOP
        edge = (FFT - MEL_HOP) // 2
        phase = np.exp(2j * np.pi * np.random.default_rng(0).random(magnitude.shape))
        previous = 0
        for _ in range(N_ITER):  # with momentum, as in librosa
            x = self.inverse(magnitude * phase, options)
            new = signal.stft(x, boundary=None, padded=False, **options)[2]
            phase = new - 0.99 / 1.99 * previous
            phase /= np.maximum(np.abs(phase), 1e-12)
            previous = new
        return self.inverse(magnitude * phase, options)[edge : edge + length]

    def inverse(self, spectra, options):
        return signal.istft(spectra, boundary=False, **options)[1]


class MelGaussian:
    def __init__(self, gain):
        self.gain = gain

    def fit(self, X):
        pass

    def score(self, X):
        return float(mel_gaussian(X, self.gain).mean()) / LENGTH

    def sample(self, frames, temperature):
        noise = np.random.default_rng(0).standard_normal((len(frames), LENGTH))
        factors = [linalg.cholesky(mel_covariance(mel, self.gain), lower=True) for mel in frames]
        return temperature * np.array([f @ z for f, z in zip(factors, noise, strict=True)])


class MelFlow:
    """Windows divided by their loudness at each sample, which their frames give."""

    def __init__(self, seconds, height):
        flow = WaveFlowDensity(
            height=height,
            n_frames=LENGTH // MEL_HOP,
            max_iter=1000,  # time ends the training
            time_limit=seconds / TRAINING_SHARE,
            early_stopping=False,
            batch_size=16,
            **SETTINGS | SETTINGS_OF_VOCODER,
        )
        self.density = ConditionalDensity(flow, cv=None, random_state=0)

    def prepared(self, frames):
        """Return the context of windows, and their standard deviation at each sample."""
        level = 0.5 * np.log(np.exp(frames) @ (BANK.sum(axis=1) / BANK.sum()))
        place = (np.arange(LENGTH) + 0.5) / MEL_HOP - 0.5
        at = [np.interp(place, np.arange(len(each)), each) for each in level]
        context = np.concatenate([frames - 2 * level[..., None], level[..., None]], axis=-1)
        return context.reshape(len(frames), -1), np.exp(at)

    def fit(self, X):
        context, scale = self.prepared(log_mel(X))
        with limits_of_processor_time():
            self.density.fit(context, X / scale)

    def score(self, X):
        context, scale = self.prepared(log_mel(X))
        return self.density.score(context, X / scale) / LENGTH - float(np.log(scale).mean())

    def sample(self, frames, temperature):
        context, scale = self.prepared(frames)
        noise = np.random.default_rng(0).standard_normal((len(frames), LENGTH))
        rows = np.hstack([temperature * noise, self.density.encoder_.transform(context)])
        with torch.no_grad():
            return scale * self.density.flows_[0].inverse(torch.from_numpy(rows))[0].numpy()


def overlap_added(rows, length):
    """Return a signal from windows that are faded into each other."""
    fade = np.sin(np.pi / 2 * (np.arange(OVERLAP) + 0.5) / OVERLAP)
    weight = np.concatenate([fade, np.ones(LENGTH - 2 * OVERLAP), fade[::-1]])
    total = np.zeros(length + LENGTH)
    for i, row in enumerate(rows):
        total[i * (LENGTH - OVERLAP) :][:LENGTH] += weight * row
    return total[:length]


def write(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


class Record:
    """Results as JSON lines, each measured once."""

    def __init__(self, path, data):
        self.path = Path(path)
        self.data = data
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.lines = [json.loads(line) for line in lines]

    def wants(self, model):
        self.model = model
        return all((line["data"], line["model"]) != (self.data, model) for line in self.lines)

    def add(self, nats_per_sample, seconds, **others):
        line = {"data": self.data, "model": self.model, "nats_per_sample": nats_per_sample}
        line |= {"seconds": seconds} | others
        self.lines.append(line)
        append(self.path, line)
        print(line, flush=True)


def show(lines):
    """Print the tables of `waveforms.md`, with the differences from the best Gaussian."""
    columns = {
        "nats_per_sample": ("nats per sample", 3),
        "lead": ("minus Gaussian", 3),
        "log_mel_distance": ("log-mel distance", 2),
        "spectral_distance": ("spectral distance", 2),
        "temperature": ("temperature", 1),
        "seconds": ("seconds", 0),
    }
    lines = pd.DataFrame(lines)
    given = lines["data"] == "voices"
    for title, own in ("Without a context", lines[~given]), ("Given mel frames", lines[given]):
        gaussian = own[~own["model"].str.contains("WaveFlow")]
        best = gaussian.groupby("data")["nats_per_sample"].max()
        own = own.assign(lead=own["nats_per_sample"] - own["data"].map(best))
        own = own.set_index(["data", "model"]).reindex(columns=[*columns])
        own = own.dropna(axis=1, how="all")
        print(f"\n{title}\n")
        print_table(own.rename(columns=lambda key: columns[key][0]), dict(columns.values()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["heights", "vocoder", "show"])
    parser.add_argument("--sounds", help="the folder of words")
    parser.add_argument("--out", default="waveforms.jsonl")
    parser.add_argument("--heights", nargs="*", type=int, default=HEIGHTS)
    parser.add_argument("--seconds", type=float, default=60, help="of training a vocoder")
    parser.add_argument("--wav", help="a folder for what the vocoder speaks")
    options = parser.parse_args()
    data = "voices" if options.part == "vocoder" else "words" if options.sounds else "sentences"
    record = Record(options.out, data)
    if options.part == "show":
        show(record.lines)
        return
    torch.set_num_threads(1)
    if options.part == "heights":
        data = words(options.sounds) if options.sounds else sentences()
        heights(data, record, options.heights)
    for height in options.heights if options.part == "vocoder" else ():
        vocoder(voices(), record, options.seconds, height, options.wav)


if __name__ == "__main__":
    main()

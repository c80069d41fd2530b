"""Speech by WaveFlow: nats per sample beside Gaussian processes, and a vocoder.

    python benchmarks/waveforms.py heights --sounds DIR --out waveforms.jsonl
    python benchmarks/waveforms.py vocoder --rate 16000 --out waveforms.jsonl --wav DIR
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

RATE = 8_000  # samples a second, unless the vocoder is given another
LENGTH = 512  # samples of a window, at this rate
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
FRAMES = 125  # a second
N_FRAMES = 8  # of a window
WIDTH_OF_BAND = 102  # mel
SPOKEN = 40  # windows a second that the vocoder is fitted to
TEMPERATURES = 0.4, 0.6, 0.8, 1.0
ORDER = 64  # of linear prediction
N_FILTERED = 20  # times that what a model speaks is filtered towards the frames
N_ITER = 60  # of Griffin-Lim
SETTINGS_OF_VOCODER = {"n_transforms": 3, "hidden_layer_sizes": (32, 32, 32, 32)}
SETTINGS = {
    "n_transforms": 2,
    "hidden_layer_sizes": (16, 16, 16, 16),
    "learning_rate_init": 5e-3,
    "discrete": None,
    "contamination": None,
    "random_state": 0,
}


def from_wave(file, seed, new_rate=RATE):
    """Return a recording in units of full scale, with noise that is always the same."""
    with wave.open(file) as recording:
        rate = recording.getframerate()
        samples = np.frombuffer(recording.readframes(2**31 - 1), "<i2") / 2**15
    samples = signal.resample_poly(samples, new_rate, rate)
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


def spoken(text, *options, rate=RATE):
    """Return what espeak-ng reads."""
    command = ["espeak-ng", *options, "--stdout", text]
    sound = subprocess.run(command, capture_output=True, check=True).stdout
    return from_wave(io.BytesIO(sound), sum(map(ord, "".join([text, *options]))), rate)


def voices(rate):
    """Return the sentences of each part in each of its voices."""
    return {
        part: {
            voice: spoken(SENTENCES[part], "-v", voice, "-s", str(speed), rate=rate)
            for voice, speed in speeds.items()
        }
        for part, speeds in VOICES.items()
    }


def windows(recordings, hop, length=LENGTH):
    views = [
        np.lib.stride_tricks.sliding_window_view(x, length)[::hop] for x in recordings.values()
    ]
    return np.concatenate(views)


# ---- Gaussian processes


def covariance_of_order(samples, order, length=LENGTH):
    """Return the autocovariances of an AR process with the first ones of some recordings."""
    full = [signal.correlate(x, x)[len(x) - 1 :][: order + 1] for x in samples]
    known = np.sum(full, axis=0) / sum(map(len, samples))
    weights = linalg.solve_toeplitz(known[:-1], known[1:])
    covariance = list(known)
    while len(covariance) < length:
        covariance.append(weights @ covariance[: -order - 1 : -1])
    return linalg.toeplitz(covariance)


def gaussian_log_density(x, covariance):
    factor = linalg.cholesky(covariance, lower=True)
    z = linalg.solve_triangular(factor, x.T, lower=True)
    log_det = np.log(np.diag(factor)).sum()
    return -0.5 * (z**2).sum(axis=0) - log_det - len(factor) / 2 * np.log(2 * np.pi)


# ---- Mel frames


class MelFrames:
    """Log-mel frames of recordings at a rate: 32 ms, every 8 ms; windows have eight."""

    def __init__(self, rate):
        self.rate = rate
        self.hop = rate // FRAMES
        self.length = N_FRAMES * self.hop
        self.n_fft = 4 * self.hop
        self.edge = (self.n_fft - self.hop) // 2
        self.taper = np.hanning(self.n_fft + 1)[:-1]
        self.window = np.hanning(self.n_fft + 2)[1:-1]  # without zeros: its inverse divides by it
        self.options = {
            "nperseg": self.n_fft,
            "noverlap": self.n_fft - self.hop,
            "window": self.window,
        }
        top = 2595 * np.log10(1 + rate / 2 / 700)
        mel = np.linspace(0, top, round(top / WIDTH_OF_BAND) + 1)
        edges = 700 * (10 ** (mel / 2595) - 1)
        frequency = np.linspace(0, rate / 2, self.n_fft // 2 + 1)
        rising = (frequency - edges[:-2, None]) / np.diff(edges)[:-1, None]
        falling = (edges[2:, None] - frequency) / np.diff(edges)[1:, None]
        self.bank = np.maximum(np.minimum(rising, falling), 0)  # triangular filters

    def log_mel(self, x):
        """Return log-mel frames of signals (..., length), of shape (..., n_frames, n_bands)."""
        return np.log(self.power(x) @ self.bank.T / self.bank.sum(axis=1) + NOISE**2)

    def power(self, x):
        """Return the power spectra of frames."""
        pad = [(0, 0)] * (x.ndim - 1) + [2 * [self.edge]]
        x = np.pad(x, pad, "reflect")
        frames = np.lib.stride_tricks.sliding_window_view(x, self.n_fft, axis=-1)
        spectra = np.fft.rfft(frames[..., :: self.hop, :] * self.taper)
        return np.abs(spectra) ** 2 / (self.taper**2).sum()

    def stft(self, x):
        return signal.stft(x, boundary=None, padded=False, **self.options)[2]

    def istft(self, spectra):
        return signal.istft(spectra, boundary=False, **self.options)[1]

    def at_frequencies(self, bands):
        """Return values of bands, spread over the frequencies of a spectrum."""
        return bands @ (self.bank / np.maximum(self.bank.sum(axis=0), 1e-9))

    def autocovariances(self, frames):
        """Return the autocovariances of signals with the spectra of frames, up to half a frame."""
        density = self.at_frequencies(np.exp(frames))
        density[..., self.bank.sum(axis=0) == 0] = np.exp(frames).min(axis=-1, keepdims=True)
        lags = np.fft.irfft(density)[..., : self.n_fft // 2]
        return lags * np.hanning(self.n_fft + 1)[self.n_fft // 2 : -1]

    def shares(self, n_frames):
        """Return the share of each frame in the samples of a window, ``(n_frames, length)``."""
        # Frames are in the middle of eighths; between them, they are mixed.
        place = np.arange(self.length) / self.hop - 0.5
        shares = np.maximum(1 - np.abs(place - np.arange(n_frames)[:, None]), 0)
        shares[0, place < 0] = shares[-1, place > n_frames - 1] = 1
        return shares


# ---- Parts of the benchmark


def heights(data, record, chosen):
    test = windows(data["test"], LENGTH)
    for order in ORDERS:
        if record.wants(f"AR({order})"):
            covariance = covariance_of_order(list(data["fit"].values()), order)
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


def vocoder(data, mel, record, seconds, height, wav):
    train = windows(data["fit"], mel.rate // SPOKEN, mel.length)
    test = windows(data["test"], mel.length, mel.length)
    if record.wants("AR(64)"):
        covariance = covariance_of_order(list(data["fit"].values()), 64, mel.length)
        record.add(float(gaussian_log_density(test, covariance).mean()) / mel.length, 0.0)
    models = {
        "Griffin-Lim given mel frames": GriffinLim(mel),
        "Gaussian given mel frames": MelGaussian(mel, data["validate"]),
        f"WaveFlow given mel frames, height {height}, {seconds:g} s": MelFlow(mel, seconds, height),
    }
    for name, model in models.items():
        if not record.wants(name):
            continue
        started = time.process_time()
        model.fit(train)
        taken = time.process_time() - started
        score, line = None, {}
        is_density = not isinstance(model, GriffinLim)
        if is_density:
            score, line["nats_per_sample_of_fit"] = model.score(test), model.score(train[::SPOKEN])
        for is_filtered, prefix in ((False, ""), (True, "filtered_")):
            found = {}
            if is_density:
                tried = {
                    t: distances(model, data["validate"], is_filtered, t) for t in TEMPERATURES
                }
                found["temperature"] = min(tried, key=lambda t: tried[t]["log_mel_distance"])
            found |= distances(model, data["test"], is_filtered, found.get("temperature"), wav)
            line |= {prefix + name: value for name, value in found.items()}
        record.add(score, taken, **line)


def distances(model, recordings, is_filtered, temperature=None, wav=None):
    """Return the mean distances of frames and of spectra between recordings and their copies."""
    found, mel = [], model.mel
    for title, x in recordings.items():
        step = mel.length - mel.hop  # windows that are spoken overlap by a frame
        x = x[: (len(x) - mel.hop) // step * step + mel.hop]
        x = x[: len(x) // mel.hop * mel.hop]
        frames = mel.log_mel(x)
        if isinstance(model, GriffinLim):
            y = model.spoken(frames)
        else:
            rows = model.sample(mel.log_mel(windows({title: x}, step, mel.length)), temperature)
            y = overlap_added(rows, mel.hop, len(x))
        if is_filtered:
            y = filtered(y, frames, mel)
        logs = [np.log(mel.power(each) + NOISE**2) for each in (x, y)]
        line = {"log_mel_distance": rms(frames - mel.log_mel(y))}
        found.append(line | {"spectral_distance": rms(logs[0] - logs[1])})
        if wav:
            kind = type(model).__name__ + "_filtered" * is_filtered
            write(Path(wav) / f"{title}_{kind}.wav", y, mel.rate)
    return pd.DataFrame(found).mean().to_dict()


def rms(x):
    return np.sqrt((x**2).mean())


def filtered(y, frames, mel):
    """Return a signal whose bands are louder or softer, so that they have nearly the frames."""
    for _ in range(N_FILTERED):
        gains = np.exp(0.5 * mel.at_frequencies(frames - mel.log_mel(y)))
        spectra = mel.stft(np.pad(y, mel.edge, "reflect")) * gains.T
        y = mel.istft(spectra)[mel.edge : mel.edge + len(y)]
    return y


class GriffinLim:
    """Phases that agree with magnitudes of spectra, which have the given energies of bands."""

    def __init__(self, mel):
        self.mel = mel

    def fit(self, X):
        pass

    def spoken(self, frames):
        mel, bank, window = self.mel, self.mel.bank, self.mel.window
        energy = np.maximum(np.exp(frames) - NOISE**2, 0) * bank.sum(axis=1)
        magnitude = np.sqrt([optimize.nnls(bank, each)[0] for each in energy]).T
        magnitude = magnitude * np.sqrt((window**2).sum()) / window.sum()
        phase = np.exp(2j * np.pi * np.random.default_rng(0).random(magnitude.shape))
        previous = 0
        for _ in range(N_ITER):  # with momentum, as in librosa
            new = mel.stft(mel.istft(magnitude * phase))
            phase = new - 0.99 / 1.99 * previous
            phase /= np.maximum(np.abs(phase), 1e-12)
            previous = new
        return mel.istft(magnitude * phase)[mel.edge :][: len(frames) * mel.hop]


class MelGaussian:
    """A Gaussian with the spectra of the frames, and the gain that fits some recordings best."""

    def __init__(self, mel, recordings):
        self.mel = mel
        gains = np.geomspace(0.3, 3, 9)
        some = windows(recordings, mel.length, mel.length)[::4]
        self.gain = max(gains, key=lambda gain: self.log_density(some, gain))

    def fit(self, X):
        pass

    def score(self, X):
        return self.log_density(X, self.gain) / self.mel.length

    def sample(self, frames, temperature):
        noise = np.random.default_rng(0).standard_normal((len(frames), self.mel.length))
        factors = [linalg.cholesky(self.covariance(each, self.gain), lower=True) for each in frames]
        return temperature * np.array([f @ z for f, z in zip(factors, noise, strict=True)])

    def log_density(self, x, gain):
        """Return the mean log-density of windows given their own mel frames."""
        pairs = zip(x, self.mel.log_mel(x), strict=True)
        terms = [
            gaussian_log_density(row[None], self.covariance(frames, gain))[0]
            for row, frames in pairs
        ]
        return float(np.mean(terms))

    def covariance(self, frames, gain):
        """Return the covariance of a window."""
        length = self.mel.length
        found = np.zeros((length, length))
        pairs = zip(self.mel.shares(len(frames)), self.mel.autocovariances(frames), strict=True)
        for share, lags in pairs:
            lags = np.pad(lags, (0, length - len(lags)))
            found += np.sqrt(np.outer(share, share)) * linalg.toeplitz(lags)
        return gain * found + NOISE**2 * np.eye(length)


class LinearPrediction:
    """Errors of the samples of windows, predicted by linear filters with the spectra of frames.

    They are divided by their standard deviations: a Gaussian with these spectra becomes white
    noise, and a voice nearly the pulses that go through its throat. Filters are mixed between
    frames; the first samples have shorter ones.

    References
    ----------
    Valin & Skoglund, "LPCNet: Improving Neural Speech Synthesis Through Linear Prediction", 2019.
    """

    def __init__(self, mel):
        self.mel = mel

    def filters(self, frames):
        """Return filters of samples, ``(n, length, ORDER)``, and log-deviations of their errors."""
        weights, variances = levinson(self.mel.autocovariances(frames))
        order = np.minimum(np.arange(self.mel.length), ORDER)
        shares = self.mel.shares(frames.shape[1])
        mixed = np.einsum("ft,nfk->ntk", shares, weights[ORDER])
        deviations = np.einsum("ft,tnf->nt", shares, 0.5 * np.log(variances[order]))
        for t in range(ORDER):
            mixed[:, t] = np.einsum("f,nfk->nk", shares[:, t], weights[t])
        return mixed, deviations

    def errors(self, X, frames):
        """Return errors in deviations, and the logarithms of these."""
        filters, deviations = self.filters(frames)
        padded = np.pad(X, [(0, 0), (ORDER, 0)])[:, :-1]
        before = np.lib.stride_tricks.sliding_window_view(padded, ORDER, axis=1)[..., ::-1]
        return (X - (filters * before).sum(axis=2)) * np.exp(-deviations), deviations

    def windows(self, errors, frames):
        """Return the windows that have some errors."""
        filters, deviations = self.filters(frames)
        X = np.pad(errors * np.exp(deviations), [(0, 0), (ORDER, 0)])
        for t in range(errors.shape[1]):
            X[:, ORDER + t] += (filters[:, t] * X[:, t : ORDER + t][:, ::-1]).sum(axis=1)
        return X[:, ORDER:]


def levinson(autocovariances):
    """Return the best linear predictors of all orders and the variances of their errors.

    Returns
    -------
    weights : ndarray of shape (ORDER + 1, ..., ORDER)
        Of the last sample, the one before it and so on.
    variances : ndarray of shape (ORDER + 1, ...)
    """
    weights = np.zeros((ORDER + 1, *autocovariances.shape[:-1], ORDER))
    variances = [autocovariances[..., 0]]
    for k in range(ORDER):
        known = weights[k][..., :k]
        left = autocovariances[..., k + 1] - (known * autocovariances[..., k:0:-1]).sum(axis=-1)
        reflection = left / variances[k]
        weights[k + 1][..., :k] = known - reflection[..., None] * known[..., ::-1]
        weights[k + 1][..., k] = reflection
        variances.append(variances[k] * (1 - reflection**2))
    return weights, np.array(variances)


class MelFlow:
    """A flow of the errors of linear prediction, given the frames."""

    def __init__(self, mel, seconds, height):
        self.mel, self.prediction = mel, LinearPrediction(mel)
        flow = WaveFlowDensity(
            height=height,
            n_frames=N_FRAMES,
            max_iter=1000,  # time ends the training
            time_limit=seconds / TRAINING_SHARE,
            early_stopping=False,
            batch_size=16,
            **SETTINGS | SETTINGS_OF_VOCODER,
        )
        self.density = ConditionalDensity(flow, cv=None, random_state=0)

    def context(self, frames):
        """Return frames relative to their levels, and these."""
        shares = self.mel.bank.sum(axis=1) / self.mel.bank.sum()
        level = 0.5 * np.log(np.exp(frames) @ shares)[..., None]
        return np.concatenate([frames - 2 * level, level], axis=-1).reshape(len(frames), -1)

    def errors(self, X, frames):
        parts = zip(*(np.array_split(each, 1 + len(X) // 256) for each in (X, frames)), strict=True)
        found = [self.prediction.errors(*part) for part in parts]
        return [np.concatenate(each) for each in zip(*found, strict=True)]

    def fit(self, X):
        frames = self.mel.log_mel(X)
        with limits_of_processor_time():
            self.density.fit(self.context(frames), self.errors(X, frames)[0])

    def score(self, X):
        frames = self.mel.log_mel(X)
        errors, deviations = self.errors(X, frames)
        score = self.density.score(self.context(frames), errors) / self.mel.length
        return score - float(deviations.mean())

    def sample(self, frames, temperature):
        context = self.density.encoder_.transform(self.context(frames))
        noise = np.random.default_rng(0).standard_normal((len(frames), self.mel.length))
        rows = torch.from_numpy(np.hstack([temperature * noise, context]))
        with torch.no_grad():
            errors = self.density.flows_[0].inverse(rows)[0].numpy()
        return self.prediction.windows(errors, frames)


def overlap_added(rows, overlap, length):
    """Return a signal from windows that are faded into each other."""
    fade = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / overlap)
    n = rows.shape[1]
    weight = np.concatenate([fade, np.ones(n - 2 * overlap), fade[::-1]])
    total = np.zeros(length + n)
    for i, row in enumerate(rows):
        total[i * (n - overlap) :][:n] += weight * row
    return total[:length]


def write(path, samples, rate):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
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
        "lead_of_fit": ("the same, voices of the fit", 3),
        "log_mel_distance": ("log-mel distance", 2),
        "spectral_distance": ("spectral distance", 2),
        "temperature": ("temperature", 1),
        "filtered_log_mel_distance": ("log-mel, filtered", 2),
        "filtered_spectral_distance": ("spectral, filtered", 2),
        "seconds": ("seconds", 0),
    }
    known = ["nats_per_sample", "nats_per_sample_of_fit"]
    lines = pd.DataFrame(lines, columns=["data", "model", *dict.fromkeys([*known, *columns])])
    given = lines["data"].str.startswith("voices")
    for title, own in ("Without a context", lines[~given]), ("Given mel frames", lines[given]):
        gaussian = own[~own["model"].str.contains("WaveFlow")]
        best = gaussian.groupby("data")[known].max().loc[own["data"]]
        own[["lead", "lead_of_fit"]] = own[known].to_numpy(float) - best.to_numpy(float)
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
    parser.add_argument("--rate", type=int, default=RATE, help="of the vocoder's samples")
    parser.add_argument("--wav", help="a folder for what the vocoder speaks")
    options = parser.parse_args()
    if options.part == "vocoder":
        data = "voices" if options.rate == RATE else f"voices at {options.rate / 1000:g} kHz"
    else:
        data = "words" if options.sounds else "sentences"
    record = Record(options.out, data)
    torch.set_num_threads(1)
    if options.part == "show":
        show(record.lines)
    elif options.part == "heights":
        data = words(options.sounds) if options.sounds else sentences()
        heights(data, record, options.heights)
    else:
        data, mel = voices(options.rate), MelFrames(options.rate)
        for height in options.heights:
            vocoder(data, mel, record, options.seconds, height, options.wav)


if __name__ == "__main__":
    main()

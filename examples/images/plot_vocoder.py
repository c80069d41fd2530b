"""
===============================
A vocoder for a synthetic voice
===============================

A vocoder turns a spectrogram back into sound. This example makes a voice, fits a flow to its
windows given their spectra, and speaks a sentence that the flow has not heard.
"""

# %%
# A voice
# -------
# A train of pulses, with a pitch that wanders, passes through two resonances that wander too:
# a crude model of vowels. Some noise is breath.
import base64
import io
import wave

import matplotlib.pyplot as plt
import numpy as np
from scipy.interpolate import CubicSpline
from scipy.signal import lfilter

RATE = 8_000


def wandering(rng, low, high, n):
    knots = np.arange(0, n + 4_000, 1_600)
    return CubicSpline(knots, rng.uniform(low, high, len(knots)))(np.arange(n))


def voice(seed, seconds):
    rng, n = np.random.default_rng(seed), seconds * RATE
    phase = np.cumsum(wandering(rng, 90, 160, n)) / RATE
    sound = np.diff(np.floor(phase), prepend=0) + 0.02 * rng.normal(size=n)
    for low, high, width in ((300, 800, 60), (1_000, 2_400, 90)):
        centre, radius = wandering(rng, low, high, n), np.exp(-np.pi * width / RATE)
        state = np.zeros(2)
        for start in range(0, n, 80):  # the filter changes every 10 ms
            angle = 2 * np.pi * centre[start] / RATE
            poles = [1, -2 * radius * np.cos(angle), radius**2]
            part = slice(start, start + 80)
            sound[part], state = lfilter([1 - radius], poles, sound[part], zi=state)
    return sound / sound.std()


train, new = voice(0, 6), voice(1, 2)

# %%
# Windows and spectra
# -------------------
# A window has 256 samples. It comes with two frames of 16 log energies in bands of its spectrum.
LENGTH, HOP, FRAMES, BANDS = 256, 64, 2, 16


def windows(sound, hop):
    return np.lib.stride_tricks.sliding_window_view(sound, LENGTH)[::hop]


def spectra(rows):
    frames = rows.reshape(len(rows), FRAMES, -1)
    power = np.abs(np.fft.rfft(frames * np.hanning(frames.shape[2]))) ** 2
    bands = power[:, :, 1:].reshape(len(rows), FRAMES, BANDS, -1).mean(axis=3)
    return np.log(bands + 1e-4).reshape(len(rows), -1)


X = windows(train, HOP)
X_new = windows(new, LENGTH)

# %%
# Fit
# ---
# Beside the vocoder, a flow without spectra and a Gaussian of windows. Scores are in nats per
# sample, of windows of the new sentence.
from sklearn.mixture import GaussianMixture

from skflows import ConditionalDensity, WaveFlowDensity

flow = WaveFlowDensity(
    height=8,
    n_transforms=2,
    n_frames=FRAMES,
    hidden_layer_sizes=(16, 16, 16),
    learning_rate_init=5e-3,
    discrete=None,
    early_stopping=False,
    max_iter=15,
    random_state=0,
)
vocoder = ConditionalDensity(flow, cv=None, random_state=0).fit(spectra(X), X)
alone = flow.fit(X)
gaussian = GaussianMixture(reg_covar=1e-4).fit(X)
scores = {
    "flow given spectra": vocoder.score(spectra(X_new), X_new),
    "flow": alone.score(X_new),
    "Gaussian": gaussian.score(X_new),
}
for name, score in scores.items():
    print(f"{name:18} {score / LENGTH:6.3f}")

# %%
# Speak
# -----
# Each window of the new sentence is drawn given its spectra. Windows overlap by half, and are
# faded into each other. After so short a training the flow follows the resonances, but its pulses
# are not sharp: it sounds hoarse.
parts = windows(new, LENGTH // 2)
drawn = vocoder.sample(spectra(parts), random_state=0)[:, 0]
fade = np.sin(np.pi * (np.arange(LENGTH) + 0.5) / LENGTH)
spoken = np.zeros(len(new))
for i, row in enumerate(drawn):
    spoken[i * LENGTH // 2 :][:LENGTH] += fade * row

fig, axes = plt.subplots(2, 1, figsize=(8, 4), sharex=True, sharey=True, layout="constrained")
for ax, (name, sound) in zip(axes, {"new": new, "spoken": spoken}.items(), strict=True):
    ax.specgram(sound, NFFT=256, Fs=RATE, noverlap=192, vmin=-90, vmax=-25)
    ax.set(ylabel="frequency (Hz)", title=name)
axes[1].set_xlabel("seconds")


# %%
# And to listen to:
class Sound:
    def __init__(self, samples):
        self.samples = samples

    def _repr_html_(self):
        file = io.BytesIO()
        with wave.open(file, "wb") as wav:
            wav.setparams((1, 2, RATE, 0, "NONE", ""))
            scaled = self.samples / np.abs(self.samples).max()
            wav.writeframes((30_000 * scaled).astype("<i2").tobytes())
        data = base64.b64encode(file.getvalue()).decode()
        return f'<audio controls src="data:audio/wav;base64,{data}"></audio>'


Sound(new)

# %%
# Spoken by the flow:
Sound(spoken)

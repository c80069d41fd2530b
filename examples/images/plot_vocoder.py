"""
===============
A small vocoder
===============

A vocoder turns a spectrogram back into sound. This example fits a flow to windows of a voice given
their spectra, and lets it speak a sound that it has not heard.
"""

# %%
# Speech
# ------
# If `espeak-ng <https://github.com/espeak-ng/espeak-ng>`__ is installed, it provides the voice, and
# one sentence is new. Otherwise a train of pulses, with a pitch that wanders, passes through two
# resonances that wander too: a crude model of vowels. Two other seconds of it are new.
import base64
import io
import shutil
import subprocess
import wave

import matplotlib.pyplot as plt
import numpy as np
from scipy.interpolate import CubicSpline
from scipy.signal import lfilter, resample_poly

RATE = 8_000
TRAIN = """
    The old clock in the hall strikes every hour. We walked along the river until it was dark.
    She keeps fresh bread in a wooden box. My brother plays the violin in the evening.
    A heavy storm broke over the quiet village. The train to the north leaves at seven.
    Put the blue cups on the upper shelf. Nobody knew who had opened the window.
"""
NEW = "The farmer sold five sheep at the market."


def read(text):
    command = ["espeak-ng", "--stdout", text]
    file = io.BytesIO(subprocess.run(command, capture_output=True, check=True).stdout)
    with wave.open(file) as recording:
        rate = recording.getframerate()
        sound = np.frombuffer(recording.readframes(2**31 - 1), "<i2")
    sound = resample_poly(sound.astype(float), RATE, rate)
    return sound / sound.std()


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


is_installed = shutil.which("espeak-ng") is not None
train, new = (read(TRAIN), read(NEW)) if is_installed else (voice(0, 20), voice(1, 2))
train, new = (x + 0.01 * np.random.default_rng(2).normal(size=len(x)) for x in (train, new))

# %%
# Windows and mel frames
# ----------------------
# A window has 256 samples. It comes with two frames of log energies in 16 bands of the mel scale.
LENGTH, HOP, FRAMES, BANDS = 256, 64, 2, 16

size = LENGTH // FRAMES
mel = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), BANDS + 2)
edges = 700 * (10 ** (mel / 2595) - 1)
frequency = np.fft.rfftfreq(size, 1 / RATE)
rising = (frequency - edges[:-2, None]) / np.diff(edges)[:-1, None]
falling = (edges[2:, None] - frequency) / np.diff(edges)[1:, None]
BANK = np.maximum(np.minimum(rising, falling), 0)


def windows(sound, hop):
    return np.lib.stride_tricks.sliding_window_view(sound, LENGTH)[::hop]


def log_mel(rows):
    frames = rows.reshape(len(rows), FRAMES, size) * np.hanning(size)
    power = np.abs(np.fft.rfft(frames)) ** 2
    return np.log(power @ BANK.T / BANK.sum(axis=1) + 1e-3).reshape(len(rows), -1)


X = windows(train, HOP)
X_new = windows(new, LENGTH)

# %%
# Fit
# ---
# Beside the vocoder, a flow without mel frames and a Gaussian of windows. Scores are in nats per
# sample, of windows of the new sound.
from sklearn.mixture import GaussianMixture

from skflows import ConditionalDensity, WaveFlowDensity

flow = WaveFlowDensity(
    height=32,
    n_transforms=2,
    n_frames=FRAMES,
    hidden_layer_sizes=(16, 16, 16, 16),
    learning_rate_init=5e-3,
    batch_size=32,
    discrete=None,
    early_stopping=False,
    max_iter=10,
    random_state=0,
)
vocoder = ConditionalDensity(flow, cv=None, random_state=0).fit(log_mel(X), X)
alone = flow.fit(X)
gaussian = GaussianMixture(reg_covar=1e-4).fit(X)
scores = {
    "flow given mel frames": vocoder.score(log_mel(X_new), X_new),
    "flow": alone.score(X_new),
    "Gaussian": gaussian.score(X_new),
}
for name, score in scores.items():
    print(f"{name:22}{score / LENGTH:6.3f}")

# %%
# Speak
# -----
# Each window of the new sound is drawn given its mel frames. Windows overlap by half, and are faded
# into each other. With the voice of espeak-ng, after so short a training, loud and hissing sounds
# are where they should be, but vowels are hoarse. The log-mel distance is the root mean square
# difference between the mel frames of the spoken and the new sound.
parts = windows(new, LENGTH // 2)
fade = np.sin(np.pi * (np.arange(LENGTH) + 0.5) / LENGTH)


def joined(rows):
    sound = np.zeros(len(new))
    for i, row in enumerate(rows):
        sound[i * LENGTH // 2 :][:LENGTH] += fade * row
    return sound


spoken = joined(vocoder.sample(log_mel(parts), random_state=0)[:, 0])
sounds = {
    "flow given mel frames": spoken,
    "flow": joined(alone.sample(len(parts), random_state=0)),
}
for name, sound in sounds.items():
    difference = log_mel(windows(sound, LENGTH)) - log_mel(X_new)
    print(f"{name:22}{np.sqrt((difference**2).mean()):6.2f}")

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

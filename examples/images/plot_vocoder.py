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
from scipy.linalg import solve_toeplitz
from scipy.signal import istft, lfilter, lfiltic, resample_poly, stft

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
# Mel frames
# ----------
# Every 8 ms, a frame has the log energies of 20 bands of the mel scale.
HOP, SIZE, BANDS = 64, 256, 20

mel = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), BANDS + 2)
edges = 700 * (10 ** (mel / 2595) - 1)
frequency = np.fft.rfftfreq(SIZE, 1 / RATE)
rising = (frequency - edges[:-2, None]) / np.diff(edges)[:-1, None]
falling = (edges[2:, None] - frequency) / np.diff(edges)[1:, None]
BANK = np.maximum(np.minimum(rising, falling), 0)
SPREAD = BANK / np.maximum(BANK.sum(axis=0), 1e-9)
TAPER = np.hanning(SIZE + 2)[1:-1]
STFT = {"nperseg": SIZE, "noverlap": SIZE - HOP, "window": TAPER}


def log_mel(sound):
    padded = np.pad(sound, (SIZE - HOP) // 2, "reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, SIZE)[::HOP] * TAPER
    power = np.abs(np.fft.rfft(frames)) ** 2 / (TAPER**2).sum()
    return np.log(power @ BANK.T / BANK.sum(axis=1) + 1e-6)


train, new = (x[: len(x) // HOP * HOP] for x in (train, new))
frames, frames_new = log_mel(train), log_mel(new)

# %%
# Linear prediction
# -----------------
# The spectrum of a frame says how well a sample can be predicted from the samples before it, by a
# linear filter. What is left are the pulses and the noise that go through the throat of a speaker.
# The flow learns these errors, as in `LPCNet <https://arxiv.org/abs/1810.11846>`__: their
# loudness hardly changes, and they are much the same whatever is said.
ORDER = 32


def filters(frames):
    """Return a linear predictor for each frame, and the deviations of its errors."""
    power = np.exp(frames) @ SPREAD
    power[:, 0] = power[:, -1] = power.min(axis=1)  # which no band covers
    lags = np.fft.irfft(power)[:, : ORDER + 1]
    found = np.array([solve_toeplitz(each[:-1], each[1:]) for each in lags])
    return found, np.sqrt(lags[:, 0] - (found * lags[:, 1:]).sum(axis=1))


def errors(sound, frames):
    """Return errors of prediction, in deviations, and the logarithms of these."""
    found, padded = np.empty(len(sound)), np.pad(sound, (ORDER, 0))
    predictors, deviations = filters(frames)
    for i, (predictor, deviation) in enumerate(zip(predictors, deviations, strict=True)):
        part = padded[i * HOP : (i + 1) * HOP + ORDER]
        found[i * HOP : (i + 1) * HOP] = lfilter([1, *-predictor], 1, part)[ORDER:] / deviation
    return found, np.repeat(np.log(deviations), HOP)


def spoken(errors, frames):
    """Return the sound that has some errors of prediction."""
    found = np.zeros(ORDER + len(errors))
    for i, (predictor, deviation) in enumerate(zip(*filters(frames), strict=True)):
        start, end = ORDER + i * HOP, ORDER + (i + 1) * HOP
        state = lfiltic([1], [1, *-predictor], found[start - ORDER : start][::-1])
        part = deviation * errors[i * HOP : (i + 1) * HOP]
        found[start:end], _ = lfilter([1], [1, *-predictor], part, zi=state)
    return found[ORDER:]


# %%
# Fit
# ---
# Rows are windows of the errors, given the frames of the window. Scores are in nats per sample of
# the new sound: those of errors, less the log-deviations. Beside the flow, a Gaussian of errors,
# which is about as good as a Gaussian of sound with the spectra of the frames. The settings are for
# a short example; `benchmarks/waveforms.md` has larger ones, for ten minutes of ten voices.
from sklearn.mixture import GaussianMixture

from skflows import ConditionalDensity, WaveFlowDensity

N_FRAMES = 4
LENGTH = N_FRAMES * HOP


def windows(sound, frames, step):
    """Return windows of a sound and of its frames, which begin every few frames."""
    rows = np.lib.stride_tricks.sliding_window_view(sound, LENGTH)[:: step * HOP]
    parts = np.lib.stride_tricks.sliding_window_view(frames, N_FRAMES, axis=0)[::step]
    return rows, parts.swapaxes(1, 2).reshape(len(parts), -1)


X, context = windows(errors(train, frames)[0], frames, 1)
of_new, log_deviations = errors(new, frames_new)
X_new, context_new = windows(of_new, frames_new, N_FRAMES)

flow = WaveFlowDensity(
    height=32,
    n_transforms=2,
    n_frames=N_FRAMES,
    hidden_layer_sizes=(16, 16, 16, 16),
    learning_rate_init=5e-3,
    batch_size=32,
    discrete=None,
    early_stopping=False,
    max_iter=10,
    random_state=0,
)
vocoder = ConditionalDensity(flow, cv=None, random_state=0).fit(context, X)
gaussian = GaussianMixture(covariance_type="spherical", random_state=0).fit(X)
scores = {"flow": vocoder.score(context_new, X_new), "Gaussian": gaussian.score(X_new)}
for name, score in scores.items():
    print(f"{name:10}{score / LENGTH - log_deviations[: X_new.size].mean():6.3f}")

# %%
# Speak
# -----
# Errors are drawn given the frames of the new sound, and become a sound. Its frames are not quite
# the given ones: filters make each band louder or softer, a few times. The log-mel distance is the
# root mean square difference between the frames of the spoken and the new sound. After the filters
# it hardly depends on the model; the pulses of a voice do, which one hears. Windows are drawn one
# by one, so that pulses may jump where two meet.


def distance(sound):
    return np.sqrt(((log_mel(sound) - frames_new[: len(sound) // HOP]) ** 2).mean())


def filtered(sound, frames):
    """Return a sound whose bands have nearly the energies of frames."""
    edge = (SIZE - HOP) // 2
    for _ in range(20):
        gains = np.exp((frames - log_mel(sound)) @ SPREAD / 2)
        spectra = stft(np.pad(sound, edge, "reflect"), boundary=None, padded=False, **STFT)[2]
        sound = istft(spectra * gains.T, boundary=False, **STFT)[1][edge : edge + len(sound)]
    return sound


drawn = {
    "flow": vocoder.sample(context_new, random_state=0)[:, 0],
    "Gaussian": gaussian.sample(len(X_new))[0],
}
sounds, n = {}, len(X_new) * N_FRAMES
for name, rows in drawn.items():
    sound = spoken(rows.ravel(), frames_new[:n])
    sounds[name] = filtered(sound, frames_new[:n])
    print(f"{name:10}{distance(sound):6.2f}, filtered{distance(sounds[name]):6.2f}")

fig, axes = plt.subplots(2, 1, figsize=(8, 4), sharex=True, sharey=True, layout="constrained")
for ax, (name, sound) in zip(axes, {"new": new, "flow": sounds["flow"]}.items(), strict=True):
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
Sound(sounds["flow"])

# %%
# Spoken by a Gaussian, which only whispers:
Sound(sounds["Gaussian"])

"""
================================
Molecules: samples and odd ones
================================

A chemist has a small library of amides, and gets a delivery into which a few other molecules
slipped. :class:`~skflows.graphs.MoleculeDensity` learns the library from its SMILES: it finds the
strays, and draws new molecules of the same kind. This example needs RDKit.
"""

# %%
# Each amide is an acid with an amine. The delivery has 60 amides that the library lacks, and four
# other molecules.
import matplotlib.pyplot as plt
import numpy as np
from rdkit import Chem
from rdkit.Chem import Draw
from sklearn.model_selection import train_test_split

acids = [
    *("C", "CC", "CCC", "CC(C)", "COC", "C1CC1", "C1CCC1", "C1CCCC1", "C1CCCCC1", "c1ccccc1"),
    *("Cc1ccc(cc1)", "COc1ccc(cc1)", "Fc1ccc(cc1)", "Clc1ccc(cc1)", "Brc1ccc(cc1)"),
    *("N#Cc1ccc(cc1)", "c1ccccc1C", "n1ccccc1", "c1cnccc1", "c1ccoc1", "c1ccsc1", "C1CCOC1"),
]
amines = [
    *("NC", "NCC", "NCCC", "NC(C)C", "N(C)C", "N(C)CC", "NCC(C)C", "NCCO", "NCCOC", "NCC#N"),
    *("NCC(=O)OC", "NC1CC1", "NC1CCC1", "NC1CCCC1", "NC1CCCCC1", "NCC1CC1", "N1CCCC1", "N1CCCCC1"),
    *("N1CCOCC1", "N1CCN(C)CC1", "N1CCc2ccccc2C1", "Nc1ccccc1", "Nc1ccc(F)cc1", "Nc1ccncc1"),
    *("NCc1ccccc1", "NCc1ccco1", "NCc1ccncc1", "NCCc1ccccc1", "NC(C)c1ccccc1", "N(C)Cc1ccccc1"),
]
strays = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "ibuprofen": "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "nicotine": "CN1CCCC1c1cccnc1",
}
amides = [f"{acid}C(=O){amine}" for acid in acids for amine in amines]
library, rest = train_test_split(amides, test_size=60, random_state=0)
delivery = np.array([*rest, *strays.values()])
names = ["amide"] * len(rest) + [*strays]

# %%
# The density grows molecules atom by atom. The threshold of `predict` is such that one in a hundred
# molecules of the library is odd. It knows these better than the delivery, so a few amides are
# below the threshold too. The strays are far lower.
from skflows.graphs import MoleculeDensity

density = MoleculeDensity(
    hidden_size=64, n_layers=3, batch_size=32, max_iter=25, contamination=0.01, random_state=0
)
density.fit(library)
scores = density.score_samples(delivery)
is_odd = density.predict(delivery) == -1


def draw(ax, smiles, legends):
    """Draw molecules side by side."""
    options = Draw.MolDrawOptions()
    options.legendFontSize = 24
    options.bondLineWidth = 3
    molecules = [Chem.MolFromSmiles(text) for text in smiles]
    image = Draw.MolsToGridImage(
        molecules, molsPerRow=6, subImgSize=(360, 220), legends=legends, drawOptions=options
    )
    ax.imshow(image)
    ax.set_axis_off()


lowest = np.argsort(scores)[:6]
legends = [f"{names[i]}: {scores[i]:.0f}{', odd' if is_odd[i] else ''}" for i in lowest]
fig, (top, bottom) = plt.subplots(
    2, 1, figsize=(11, 4.2), height_ratios=(1, 2), layout="constrained"
)
top.set_title(f"The lowest scores of the delivery; the median is {np.median(scores):.1f} nats")
draw(top, delivery[lowest], legends)

# %%
# Samples are molecules that RDKit accepts. Some are not in the library: they combine its acids and
# amines otherwise, or vary them.
drawn = density.sample(12, random_state=0)
known = {Chem.CanonSmiles(text) for text in library}
bottom.set_title("Samples")
draw(bottom, drawn, ["in the library" if text in known else "new" for text in drawn])

# %%
# A condition draws until enough molecules meet it.
drawn, acceptance = density.sample(
    6,
    random_state=0,
    where=lambda smiles: np.array(["F" in text for text in smiles]),
    return_acceptance=True,
)
print(f"{acceptance:.0%} of the draws have fluorine:", *drawn)

plt.show()

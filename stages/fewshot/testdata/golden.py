"""Makes golden.json: python3 golden.py > golden.json (numpy).

Gaussian discriminant analysis in the words of the authors' code (github.com/mrflogs/ICLR24, GDA: torch.cov, linalg.pinv, einsum), on
made vectors, and leave-one-out by fitting anew without each example.
"""
import json
import numpy as np

rng = np.random.default_rng(10)


def unit(v):
    return (v / np.linalg.norm(v, axis=-1, keepdims=True)).astype(np.float32)


def gda(vecs, labels, ridge=None):
    k = labels.max() + 1
    mus = np.stack([vecs[labels == c].mean(0) for c in range(k)])
    center = np.concatenate([vecs[labels == c] - mus[c] for c in range(k)])
    n, d = center.shape
    cov = np.cov(center.T)
    if ridge is None:
        ridge = np.trace(cov)
    inv = d * np.linalg.pinv((n - 1) * cov + ridge * np.eye(d))
    b = np.log(1 / k) - np.einsum("nd,dc,nc->n", mus, inv, mus) / 2
    mean = mus.mean(0)
    return mus @ inv, b, np.log(1 / k) - mean @ inv @ mean / 2, ridge


def case(name, d, counts, noise, scale):
    centers = rng.normal(size=(len(counts), d)) + 1
    text = unit(centers + rng.normal(size=centers.shape))
    labels = np.repeat(np.arange(len(counts)), counts)
    vecs = unit(centers[labels] + noise * rng.normal(size=(len(labels), d)))
    x, t = vecs.astype(np.float64), text.astype(np.float64)
    w, b, centre, ridge = gda(x, labels)
    losses = []
    for alpha in (0.01, 0.1, 1, 10):
        loss = np.zeros(13)
        tested = 0
        for i in np.flatnonzero(np.array(counts)[labels] > 1):
            rest = np.arange(len(labels)) != i
            wi, bi, _, _ = gda(x[rest], labels[rest], ridge)
            z = scale * t @ x[i] + alpha * (wi @ x[i] + bi)
            z = (z - z.max()) / (2.0 ** np.arange(-4, 9))[:, None]
            loss += np.log(np.exp(z).sum(1)) - z[:, labels[i]]
            tested += 1
        losses.append(loss.min() / tested)
    return {"name": name, "scale": scale, "text": text.tolist(), "labels": labels.tolist(), "examples": vecs.tolist(),
            "w": w.tolist(), "b": b.tolist(), "centre": centre, "losses": losses}


def short(v):
    if isinstance(v, list):
        return [short(x) for x in v]
    return float(f"{v:.9g}") if isinstance(v, float) else v


cases = [case("more dimensions than examples", 24, [2, 3, 4], 1, 20), case("fewer", 6, [5, 4, 6], 1, 20), case("as many", 8, [4, 4], 2, 50),
         case("one example of a class", 12, [3, 1, 2], 0.5, 100)]
print(json.dumps([{k: short(v) for k, v in c.items()} for c in cases]).replace("}, {", "},\n{"))

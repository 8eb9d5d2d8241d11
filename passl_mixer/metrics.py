"""Metrics of a batch, without gradient."""
import paddle
import paddle.nn.functional as F


def feature_std(features_bd):
    """Spread of encoder features over a batch; it falls to 0 when they collapse.

    sqrt(D) * mean over the D dimensions of the (population) standard deviation over the B rows of the
    L2-normalised features. 1 for directions uniform on the sphere, 0 for equal directions.

    Args:
        features_bd: encoder features, [B, D].
    Returns:
        Scalar float32 tensor without gradient.
    Source: the criterion of SimSiam, arXiv:2011.10566, section 4.1, scaled by sqrt(D).
    """
    with paddle.no_grad(), paddle.amp.auto_cast(enable=False):
        unit = F.normalize(features_bd.detach().astype("float32"), axis=1)
        deviation = (unit - unit.mean(axis=0)).square().mean(axis=0).sqrt()
        return deviation.mean() * float(features_bd.shape[1]) ** 0.5


def top_k_accuracy(scores_bc, labels_b, k: int = 1):
    """Fraction of rows whose label is among their k highest scores.

    Args:
        scores_bc: class scores, [B, C].
        labels_b: class indices, [B], int64.
        k: >= 1; more than C means C.
    Returns:
        Scalar float32 tensor in [0, 1], without gradient.
    """
    with paddle.no_grad():
        best = scores_bc.detach().topk(min(k, scores_bc.shape[1]), axis=1)[1]  # [B, k]
        return (best == labels_b.unsqueeze(1)).any(axis=1).astype("float32").mean()
